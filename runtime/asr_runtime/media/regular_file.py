"""Checks that a path is a regular file before it is opened. Separate from the decoders, so that it loads no OpenCV."""

from __future__ import annotations

import stat
from pathlib import Path

from asr_runtime.errors import SourceError

__all__ = ["check_regular_file"]


def check_regular_file(path: str, name: str | None = None) -> None:
    """Refuse what is not a regular file: opening a fifo without a writer, or some devices, waits for ever.

    Args:
        path: of the file.
        name: what error messages call it; None: the path.

    Raises:
        SourceError: `path` does not exist, cannot be looked at, or is no regular file.
    """
    name = path if name is None else name
    try:
        mode = Path(path).stat().st_mode
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror})") from None
    except ValueError:
        raise SourceError(f"{name!r}: not a path (it holds a NUL character)") from None
    if not stat.S_ISREG(mode):
        raise SourceError(f"{name}: not a regular file")
