"""Bytes of an image file -> pixels. A truncated or foreign file is an error, never a picture."""

from __future__ import annotations

import os
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.media.regular_file import check_regular_file

__all__ = ["IMAGE_FORMATS", "IMAGE_SUFFIXES", "MAX_IMAGE_BYTES", "decode_image", "read_image"]

IMAGE_FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "AVIF")
IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".dib", ".tif", ".tiff", ".avif"}
)
MAX_IMAGE_BYTES = 2**30
"""Longest file that is read as one image; a larger one with an image's suffix is something else."""


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of one image file.

    EXIF orientation is applied, alpha is dropped, 16-bit samples become 8-bit, grey becomes three equal
    channels. Of a file with several images the first is decoded; bytes after its end are ignored.

    Args:
        data: the whole file.
        name: what error messages call it.

    Returns:
        uint8 `(H, W, 3)`, BGR, 0..255.

    Raises:
        DecodeError: the bytes are empty, truncated, of a foreign format, or more than 2^28 pixels.
    """
    if not data:
        raise DecodeError(f"{name}: the file is empty, expected an image")
    if _is_cut_short(data):
        raise DecodeError(f"{name}: the image is truncated; copy or download it again")
    try:
        image = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    except cv2.error as error:
        if "MAX_IMAGE_PIXELS" in error.err:
            limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
            raise DecodeError(f"{name}: the image has more than {limit} pixels; scale it down") from None
        image = None
    except MemoryError:
        image = None
    if image is None:
        raise DecodeError(f"{name}: not a complete image of a known format ({', '.join(IMAGE_FORMATS)})")
    return image.astype(np.uint8, copy=False)


def read_image(path: str | os.PathLike[str], name: str | None = None) -> NDArray[np.uint8]:
    """Read and decode one image file.

    Args:
        path: of the file.
        name: what error messages call it; None: the path.

    Returns:
        uint8 `(H, W, 3)`, BGR, 0..255, as `decode_image`.

    Raises:
        SourceError: the path does not exist, cannot be read, or is no regular file.
        DecodeError: the file is not a complete image.
    """
    place = os.fspath(path)
    name = place if name is None else name
    check_regular_file(place, name)
    try:
        size = Path(place).stat().st_size
        if size > MAX_IMAGE_BYTES:
            raise SourceError(f"{name}: {size} bytes, expected an image of at most {MAX_IMAGE_BYTES}")
        data = Path(place).read_bytes()
    except OSError as error:
        raise SourceError(f"{name}: cannot be read ({error.strerror})") from None
    return decode_image(data, name)


def _is_cut_short(data: bytes) -> bool:
    """Tell a truncated JPEG or PNG from its structure.

    OpenCV decodes some JPEGs without their end as partly grey pictures (4.10 all of them, 4.14 those with
    restart markers), and an animated PNG without its last frames. The decoders of the other formats refuse
    every cut of a single image themselves.
    """
    if data[:3] == b"\xff\xd8\xff":
        return not _jpeg_ends(data)
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return not _png_ends(data)
    return False


def _jpeg_ends(data: bytes) -> bool:
    """Look for the end marker after the first scan header; an EXIF thumbnail before it has its own end."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan; the coded data after it never hold FF D9
            return data.find(b"\xff\xd9", at + 2) >= 0
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _png_ends(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return True
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return False
