"""Samples of more or fewer than 8 bits -> 8 bits, by the depth that the file declares, never by a guess."""

from __future__ import annotations

import re
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DecodeError

__all__ = ["declared_white", "is_deep", "tiff_tags", "to_8_bits"]

_COMMENT = re.compile(rb"#[^\n\r]*")
_PNG_DEPTH = 24  # where the header of a PNG says how many bits a sample has
_NEAR_BLACK = (
    1 << 14
)  # 16-bit samples below this come from a sensor of 10, 12 or 14 bits, or the picture is almost black
_MAX_SAMPLE_VALUE = 281  # tag of a TIFF file
_J2K_SIZE = b"\xff\x51"


def is_deep(form: str, data: bytes) -> bool:
    """Whether samples of a picture may have another depth than 8 bits, so that OpenCV's own conversion is not enough.

    Args:
        form: name of its format, as `formats.recognise` gives it.
        data: the whole file.
    """
    if form == "PNG":
        return data[_PNG_DEPTH : _PNG_DEPTH + 1] == b"\x10"
    return form in ("TIFF", "PNM", "PAM", "PFM", "JPEG 2000")


def declared_white(form: str, data: bytes) -> int | None:
    """Return the sample value that means white by the header of the file; None: it does not say.

    Args:
        form: name of its format.
        data: the whole file.
    """
    if form == "PNM":
        return _white_of_pnm(data)
    if form == "PAM":
        match = re.match(rb"[^\0]{0,200}?\bMAXVAL\s+(\d{1,5})\s", data[:400])
        return int(match[1]) if match else None
    if form == "JPEG 2000" and (at := data.find(_J2K_SIZE, 0, 1 << 16)) >= 0 and len(data) > at + 40:
        return (1 << ((data[at + 40] & 0x7F) + 1)) - 1
    return _white_of_tiff(data) if form == "TIFF" else None


def to_8_bits(samples: NDArray[Any], white: int | None, name: str) -> NDArray[np.uint8] | None:
    """Scale samples to 0..255.

    Args:
        samples: uint8, uint16 or floating point, `(H, W, C)`.
        white: the value that means white, as the file declares it; None: it does not say.
        name: what error messages call the picture.

    Returns:
        uint8 samples; None: their depth is 8 or 16 bits, and OpenCV's own conversion is right.

    Raises:
        DecodeError: the depth is neither declared nor plain from the samples: the picture would come out near black.
    """
    if samples.dtype in (np.uint8, np.uint16):
        if white is not None and 0 < white < (255 if samples.dtype == np.uint8 else 65535):
            return _scaled(samples, 255.0 / white)
        if samples.dtype == np.uint16 and 0 < (largest := int(samples.max())) < _NEAR_BLACK:
            raise DecodeError(
                f"{name}: 16-bit samples of at most {largest}, nearly black: they seem to have fewer bits, and the "
                "file does not say how many; scale them to 8 bits first"
            )
        return None
    if not np.issubdtype(samples.dtype, np.floating):
        raise DecodeError(f"{name}: samples of type {samples.dtype}; convert it to 8 bits first")
    low, high = float(np.nanmin(samples)), float(np.nanmax(samples))
    if not (low >= 0.0 and high <= 1.0 + 1e-6 and bool(np.isfinite(samples).all())):
        raise DecodeError(
            f"{name}: floating-point samples from {low:.4g} to {high:.4g}, expected 0 (black) to 1 (white); "
            "convert it to 8 bits first"
        )
    return _scaled(samples, 255.0)


def _scaled(samples: NDArray[Any], factor: float) -> NDArray[np.uint8]:
    scaled = np.clip(samples.astype(np.float32) * np.float32(factor) + np.float32(0.5), 0, 255)
    small: NDArray[np.uint8] = scaled.astype(np.uint8)
    return small


def _white_of_pnm(data: bytes) -> int | None:
    """Return the third number of the header; bitmaps (P1, P4) have none, and OpenCV scales 8-bit text itself."""
    if data[1:2] in b"14":
        return None
    numbers = _COMMENT.sub(b" ", data[2:1024]).split(None, 3)
    white = int(numbers[2]) if len(numbers) > 2 and numbers[2].isdigit() else None
    return None if white is not None and white < 256 and data[1:2] in b"23" else white


def _white_of_tiff(data: bytes) -> int | None:
    """Return the tag MaxSampleValue of the first picture."""
    for tag, value in tiff_tags(data).items():
        if tag == _MAX_SAMPLE_VALUE and value > 1:
            return value
    return None


def tiff_tags(data: bytes) -> dict[int, int]:
    """Return the tags of a classic TIFF file's first picture with their first value, where that is a whole number."""
    order = {b"II\x2a\0": "<", b"MM\0\x2a": ">"}.get(bytes(data[:4]))
    if order is None or len(data) < 8:
        return {}
    (start,) = struct.unpack_from(order + "I", data, 4)
    if start + 2 > len(data):
        return {}
    (count,) = struct.unpack_from(order + "H", data, start)
    tags = {}
    for at in range(start + 2, min(start + 2 + 12 * count, len(data) - 11), 12):
        tag, kind, amount = struct.unpack_from(order + "HHI", data, at)
        if kind == 1:
            tags[tag] = data[at + 8] if amount <= 4 else 0
        elif kind == 3 and amount <= 2:
            tags[tag] = struct.unpack_from(order + "H", data, at + 8)[0]
        elif kind in (3, 4):
            (value,) = struct.unpack_from(order + "I", data, at + 8)
            if kind == 3:  # several: the value is where they stand
                value = struct.unpack_from(order + "H", data, value)[0] if value + 2 <= len(data) else 0
            tags[tag] = value if kind == 3 or amount == 1 else 0
    return tags
