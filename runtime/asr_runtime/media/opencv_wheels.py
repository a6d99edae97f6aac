"""Checks that OpenCV is installed once: its wheels overwrite each other's files. Loads no OpenCV."""

from __future__ import annotations

import importlib.util
import sys
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path

from asr_runtime.errors import DependencyError

__all__ = ["check_opencv"]

_ADVICE = "uninstall all of them, then pip install --force-reinstall opencv-python"


def check_opencv() -> None:
    """Refuse an OpenCV that two wheels share, or that the removal of one has left incomplete.

    Raises:
        DependencyError: two of opencv-python, -headless, -contrib are installed, or the package cv2 has no code.
    """
    wheels = {
        path.name.partition("-")[0].replace("_", "-")
        for folder in sys.path
        for path in Path(folder).glob("opencv_*.dist-info")
    }
    if len(wheels) > 1:
        raise DependencyError(f"{' and '.join(sorted(wheels))} are installed and overwrite each other: {_ADVICE}")
    spec = importlib.util.find_spec("cv2")
    if spec is None or spec.origin is None or not _has_code(Path(spec.origin)):
        raise DependencyError("OpenCV is missing or incomplete: pip install --force-reinstall opencv-python")


def _has_code(origin: Path) -> bool:
    """Whether the compiled part is there: the module itself, or a file in its package."""
    compiled = tuple(EXTENSION_SUFFIXES)
    return origin.name.endswith(compiled) or any(path.name.endswith(compiled) for path in origin.parent.rglob("cv2*"))
