"""The models that ship inside the package, by name."""

from __future__ import annotations

from pathlib import Path

from asr_runtime.errors import ModelError

__all__ = ["BUILTIN", "DEFAULT", "builtin_path"]

BUILTIN = {"asrnet-lite": "asrnet-lite.onnx", "asrnet-lite-tiny": "asrnet-lite-tiny.onnx"}
DEFAULT = "asrnet-lite"


def builtin_path(name: str) -> Path:
    """Return the file of a built-in model.

    Raises:
        ModelError: no built-in model has this name, or its file is not part of this installation.
    """
    if name not in BUILTIN:
        raise ModelError(f"model {name}: no built-in model of this name, expected {', '.join(BUILTIN)}")
    path = Path(__file__).parents[1] / "builtin" / BUILTIN[name]
    if not path.is_file():
        raise ModelError(f"model {name}: not part of this installation; give a file with --model X.onnx")
    return path
