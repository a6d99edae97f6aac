"""HEIC and HEIF pictures, as iPhones take them, by the optional package pillow-heif (extra `heic`)."""

from __future__ import annotations

import os

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DecodeError

__all__ = ["decode_heif"]


def decode_heif(data: bytes, name: str) -> NDArray[np.uint8]:
    """Decode the primary picture of an HEIC or HEIF file, turned and mirrored as the file says.

    Args:
        data: the whole file.
        name: what error messages call it.

    Returns:
        uint8 `(H, W, 3)`, BGR, 0..255.

    Raises:
        DecodeError: pillow-heif is not installed, the file is damaged, or the picture has too many pixels.
    """
    try:
        import pillow_heif
    except ImportError:
        raise DecodeError(
            f"{name}: an HEIC picture; install what reads it with pip install 'asrnet-edge[heic]', "
            "or convert it to JPEG"
        ) from None
    limit = int(os.environ["OPENCV_IO_MAX_IMAGE_PIXELS"])
    try:
        picture = pillow_heif.open_heif(data, convert_hdr_to_8bit=True, bgr_mode=True)
        width, height = picture.size
        if width * height > limit:
            raise DecodeError(f"{name}: the image has more than {limit} pixels; scale it down")
        pixels = np.asarray(picture)
    except DecodeError:
        raise
    except Exception as error:  # libheif's errors reach Python as ValueError, RuntimeError, EOFError and others
        reason = " ".join(str(error).split())
        raise DecodeError(f"{name}: not a complete HEIC picture ({reason}); copy or download it again") from None
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    return np.ascontiguousarray(pixels[..., :3]).astype(np.uint8, copy=False)
