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
_ROOMS = {
    "asr_runtime": {
        "media": {"errors"},
        "http": {"errors", "redact"},
        "sources": {"errors", "claims", "redact", "http", "media"},
        "cameras": {"errors", "redact", "http", "records", "media", "sources"},
        "isolation": {"errors", "heap", "media", "sources", "cameras"},
        "inference": {
            *("errors", "caches", "contract", "heap", "machine", "whole_file", "windows"),
            "media.regular_file",
        },
        "reports": {"errors", "claims", "contract", "redact", "http", "records", "whole_file", "windows"},
        "provenance": {"errors", "claims", "isolation", "sources"},
        "screening": {
            *("errors", "claims", "contract", "records", "redact", "windows"),
            *("media", "sources", "cameras", "isolation", "inference", "provenance"),
        },
        "archive": {
            *("errors", "records", "redact", "screening", "whole_file"),
            *("media", "sources", "isolation", "inference"),
        },
        "commands": {
            *("errors", "command", "doctor", "heap", "interrupt", "machine", "screening", "archive"),
            *("provenance", "media", "sources", "inference", "reports"),
        },
        "serve": {
            *("errors", "command", "interrupt", "machine", "records", "screening", "windows"),
            *("provenance", "media", "sources", "isolation", "inference", "reports"),
        },
    },
    "asr_train": {
        "data": set(),
        "figures": {"data"},
        "tracking": {"data"},
        "fitting": {"data", "figures", "tracking"},
        "protocols": {"data", "figures", "fitting"},
        "tuning": {"data", "figures", "fitting", "protocols"},
        "evaluation": {"data", "figures"},
        "audit": {"data", "figures"},
        "resynthesis": {"data", "figures"},
        "collection": set(),
        "commands": {
            "data",
            "figures",
            "fitting",
            "protocols",
            "evaluation",
            "audit",
            "resynthesis",
            "tracking",
            "tuning",
        },
    },
}
"""What each room may import of its own package, beside itself."""
_NOT_ON_A_DEVICE = {"torch", "torchvision", "lightning", "torchmetrics", "sklearn", "matplotlib", "onnx", "onnxscript"}


def _imported(folder: str) -> dict[str, set[str]]:
    """Top-level packages that each file of a folder imports, anywhere in it."""
    imported = {}
    for path in sorted((_ROOT / folder / _FOLDERS[folder]).rglob("*.py")):
        names: set[str] = set()
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0, f"{path}: relative import"
                names.add((node.module or "").partition(".")[0])
        imported[str(path.relative_to(_ROOT))] = names
    assert imported
    return imported


@pytest.mark.parametrize("folder", sorted(_FOLDERS))
def test_imports_follow_the_arrows(folder: str) -> None:
    allowed = _MAY_IMPORT[folder] | {_FOLDERS[folder]}
    ours = set(_FOLDERS.values())
    assert {path: names & ours - allowed for path, names in _imported(folder).items() if names & ours - allowed} == {}


def test_the_device_part_names_no_training_library() -> None:
    assert {p: n & _NOT_ON_A_DEVICE for p, n in _imported("runtime").items() if n & _NOT_ON_A_DEVICE} == {}


def _modules(path: Path, package: str) -> set[str]:
    """What a file imports of a package, as dotted names below it."""
    modules: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] == package:
            below = (node.module or "").partition(".")[2]
            modules |= {below} if below else {alias.name for alias in node.names}
    return modules


@pytest.mark.parametrize(("package", "room"), [(p, room) for p, rooms in _ROOMS.items() for room in rooms])
def test_rooms_import_what_the_table_allows(package: str, room: str) -> None:
    folder = next(f for f, p in _FOLDERS.items() if p == package)
    allowed = _ROOMS[package][room] | {room}
    files = sorted((_ROOT / folder / package / room).glob("*.py"))
    assert len(files) > 1
    strangers = {
        f"{path.name}: {name}"
        for path in files
        for name in _modules(path, package)
        if name not in allowed and name.partition(".")[0] not in allowed
    }
    assert strangers == set()


@pytest.mark.parametrize("package", sorted(_ROOMS))
def test_every_room_says_what_it_is_for(package: str) -> None:
    folder = next(f for f, p in _FOLDERS.items() if p == package)
    rooms = {path.parent.name for path in (_ROOT / folder / package).glob("*/*.py")}
    assert rooms == set(_ROOMS[package])
    for room in rooms:
        assert "Imports " in (_ROOT / folder / package / room / "__init__.py").read_text()
