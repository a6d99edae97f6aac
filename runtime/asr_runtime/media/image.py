"""Bytes of an image file -> pixels. A truncated or foreign file is an error, never a picture."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.media.depth import declared_white, is_deep, tiff_tags, to_8_bits
from asr_runtime.media.formats import HEAD_BYTES, IMAGE_SUFFIXES, recognise
from asr_runtime.media.heif import decode_heif
from asr_runtime.media.image_end import is_cut_short
from asr_runtime.media.packets import jpeg_size
from asr_runtime.media.png_chunks import for_pixels
from asr_runtime.media.regular_file import check_regular_file

__all__ = ["IMAGE_FORMATS", "IMAGE_SUFFIXES", "MAX_IMAGE_BYTES", "decode_image", "read_image"]

IMAGE_FORMATS = ("JPEG", "PNG", "WebP", "BMP", "TIFF", "AVIF", "GIF", "JPEG 2000", "PNM", "PAM", "PFM", "Radiance HDR")
"""What is decoded without an extra; with the extra `heic` HEIC too."""
MAX_IMAGE_BYTES = 2**30
"""Longest file that is read as one image; a larger one with an image's suffix is something else."""

# Tags of a TIFF file whose first picture is a preview, or the bare samples of a sensor.
_NEW_SUBFILE_TYPE, _PHOTOMETRIC, _DNG_VERSION = 254, 262, 50706
_WIDTH_AND_HEIGHT = (256, 257)
_JP2_HEADER = 1 << 16  # bytes in which a JPEG 2000 file says what it holds
_JP2_COLOURS = (16, 17)  # sRGB, grey
_DECODING_BYTES = 12  # a pixel: in three channels of 16 bits, and once more while it is converted
_SENSOR = (32803, 34892)  # colour filter array, linear raw


def decode_image(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the bytes of one image file.

    EXIF orientation is applied, alpha is dropped, samples of any depth become 8-bit, grey becomes three equal
    channels. Of a file with several images (animation, stereo, motion photo) the first is decoded; bytes after its end
    are ignored.

    Args:
        data: the whole file.
        name: what error messages call it.

    Returns:
        uint8 `(H, W, 3)`, BGR, 0..255.

    Raises:
        DecodeError: the bytes are empty, truncated, of another format, of an unknown sample depth, or of more than
            2^28 pixels.
    """
    if not data:
        raise DecodeError(f"{name}: the file is empty, expected an image")
    known = recognise(data[:HEAD_BYTES], name)
    if known is None or known.kind != "image":
        what = "not a complete image of a known format" if known is None else f"a video ({known.name}), not an image"
        raise DecodeError(f"{name}: {what} ({', '.join(IMAGE_FORMATS)})")
    if not known.is_readable or _is_raw(known.name, data):
        form = known.name if not known.is_readable else "a camera's raw picture"
        raise DecodeError(f"{name}: {form}, a format that cannot be read; convert it to JPEG, PNG or TIFF")
    if known.name == "JPEG 2000" and (colours := _unread_colours(data)):
        raise DecodeError(f"{name}: JPEG 2000 with {colours}, which is not read; convert it to PNG or TIFF")
    if is_cut_short(known.name, data):
        raise DecodeError(f"{name}: the image is truncated; copy or download it again")
    if known.name == "HEIC":
        return decode_heif(data, name)
    try:
        image = _decoded(known.name, data, name)
    except MemoryError:
        raise _too_large(name) from None
    if image is None and not _fits(known.name, data):
        raise _too_large(name)
    if image is None:
        raise DecodeError(f"{name}: not a complete {known.name} image; copy or download it again")
    return image


def _decoded(form: str, data: bytes, name: str) -> NDArray[np.uint8] | None:
    image: NDArray[Any] | None = None
    if form == "PNG":
        data = for_pixels(data)
    if is_deep(form, data):
        samples = _decode(data, cv2.IMREAD_COLOR | cv2.IMREAD_ANYDEPTH, name)
        if samples is None:  # OpenCV converts no floating-point samples of TIFF
            samples = _decode(data, cv2.IMREAD_UNCHANGED, name)
        if samples is not None:
            image = to_8_bits(_three_channels(samples), declared_white(form, data), name)
    if image is None:
        image = _decode(data, cv2.IMREAD_COLOR, name)
    return None if image is None else _three_channels(image).astype(np.uint8, copy=False)


def _too_large(name: str) -> DecodeError:
    return DecodeError(f"{name}: decoding takes more memory than there is; scale it down")


def _fits(form: str, data: bytes) -> bool:
    """Whether a picture that OpenCV could not decode would have had room: it does not say that it ran out of memory."""
    width, height = 0, 0
    if form == "PNG":
        width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    elif form == "TIFF":
        width, height = (tiff_tags(data).get(tag, 0) for tag in _WIDTH_AND_HEIGHT)
    elif form == "JPEG":
        width, height = jpeg_size(data) or (0, 0)
    try:
        np.empty(width * height * _DECODING_BYTES, np.uint8)
    except (MemoryError, ValueError):
        return False
    return True


def _decode(data: bytes, flags: int, name: str) -> NDArray[Any] | None:
    """Decode with OpenCV; None where it cannot."""
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        if "MAX_IMAGE_PIXELS" in error.err:
            limit = os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"]
            raise DecodeError(f"{name}: the image has more than {limit} pixels; scale it down") from None
        return None


def _three_channels(image: NDArray[Any]) -> NDArray[Any]:
    """Return grey, or a picture with alpha, as `(H, W, 3)`."""
    if image.ndim == 2:
        image = image[..., None]
    return np.repeat(image, 3, axis=2) if image.shape[2] == 1 else image[..., :3]


def _is_raw(form: str, data: bytes) -> bool:
    """Whether a TIFF file is the raw picture of a camera: its first picture is a preview, or no picture yet."""
    if form != "TIFF":
        return False
    tags = tiff_tags(data)
    return _DNG_VERSION in tags or tags.get(_PHOTOMETRIC) in _SENSOR or bool(tags.get(_NEW_SUBFILE_TYPE, 0) & 1)


def _unread_colours(data: bytes) -> str | None:
    """Return what OpenCV would take for red, green and blue though it is not; None: the colours are read."""
    at = data.find(b"colr", 0, _JP2_HEADER)
    if at >= 0 and data[at + 4 : at + 5] == b"\x01":
        code = int.from_bytes(data[at + 7 : at + 11], "big")
        if code not in _JP2_COLOURS:
            return "luma and chroma (sYCC)" if code == 18 else f"colours of kind {code}"
    at = data.find(b"\xff\x51", 0, _JP2_HEADER)
    components = data[at + 40 : at + 40 + 3 * int.from_bytes(data[at + 38 : at + 40], "big")] if at >= 0 else b""
    is_full = all(step == 1 for step in components[1::3] + components[2::3])
    return None if is_full else "chroma of a lower resolution"


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
