"""Who may import whom (the arrows of the design), read from the source."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent
_FOLDERS = {
    "models": "asr_models",
    "train": "asr_train",
    "export": "asr_export",
    "runtime": "asr_runtime",
    "bench": "asr_bench",
}
_MAY_IMPORT = {
    "models": set(),
    "runtime": set(),
    "train": {"asr_models", "asr_runtime"},
    "export": {"asr_models", "asr_runtime"},
    "bench": {"asr_export", "asr_train", "asr_models", "asr_runtime"},
}
_NOT_ON_A_DEVICE = {"torch", "torchvision", "lightning", "torchmetrics", "sklearn", "matplotlib", "onnx", "onnxscript"}


def _imported(folder: str) -> dict[str, set[str]]:
    """Top-level packages that each file of a folder imports, anywhere in it."""
    found = {}
    for path in sorted((_ROOT / folder / _FOLDERS[folder]).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names.add((node.module or "").partition(".")[0])
        found[str(path.relative_to(_ROOT))] = names
    assert found
    return found


@pytest.mark.parametrize("folder", sorted(_FOLDERS))
def test_imports_follow_the_arrows(folder: str) -> None:
    allowed = _MAY_IMPORT[folder] | {_FOLDERS[folder]}
    ours = set(_FOLDERS.values())
    assert {path: names & ours - allowed for path, names in _imported(folder).items() if names & ours - allowed} == {}


def test_the_device_part_names_no_training_library() -> None:
    assert {p: n & _NOT_ON_A_DEVICE for p, n in _imported("runtime").items() if n & _NOT_ON_A_DEVICE} == {}
