"""One image of a data folder."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import SourceError
from asr_runtime.media.image import read_image

__all__ = ["Sample", "content_of_ends"]

_END = 4096  # bytes at either end of a file that its content's hash covers


@dataclass(frozen=True)
class Sample:
    """One image file: label 0 = real, 1 = AI-generated; `source` is the folder, generator or photo set it is from.

    `content` is a text that changes with the file's content, where it is known.
    """

    path: Path
    label: int
    source: str
    content: str = field(default="", compare=False, repr=False)

    def data(self) -> bytes:
        """Read the file.

        Raises:
            SourceError: it cannot be read.
        """
        try:
            return self.path.read_bytes()
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None

    def read(self) -> NDArray[np.uint8]:
        """Decode the file, as `asr_runtime.media.image.read_image`: uint8 (H, W, 3), BGR.

        Raises:
            InputError: it cannot be read or decoded.
        """
        return read_image(self.path)

    def key(self, root: Path) -> tuple[str, str]:
        """Return the path below the root of the data folder, and a text that changes with the content."""
        return self.path.relative_to(root).as_posix(), self.content or _content_key(self.path)


def _content_key(path: Path) -> str:
    content = content_of_ends(path)
    return "unreadable" if content is None else f"{path.stat().st_size} {content.hex()}"


def content_of_ends(path: Path) -> bytes | None:
    """Return 16 bytes that change with a file's first or last 4,096 bytes; None if it cannot be read.

    Reading an unreadable file as a picture says why.
    """
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(0)
            ends = file.read(_END)
            file.seek(max(0, size - _END))
            ends += file.read(_END)
    except OSError:
        return None
    return hashlib.sha256(ends).digest()[:16]
