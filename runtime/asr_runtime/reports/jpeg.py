"""Pictures that the product writes: JPEG, in a size that a JPEG can have."""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import OutputError

__all__ = ["jpeg"]

_LARGEST_SIDE = 65500  # pixels; what a JPEG can hold


def jpeg(picture: NDArray[np.uint8], quality: int, largest: int = _LARGEST_SIDE) -> bytes:
    """Encode a picture as JPEG, shrunk where its longer side is above a limit.

    Args:
        picture: uint8 BGR `(H, W, 3)`.
        quality: 1 to 100.
        largest: pixels of the longer side, at most 65,500.

    Raises:
        OutputError: there is no memory for it, or OpenCV cannot encode it.
    """
    try:
        shrink = min(largest, _LARGEST_SIDE) / max(picture.shape[:2])
        if shrink < 1:
            size = [max(1, round(side * shrink)) for side in picture.shape[1::-1]]
            picture = cv2.resize(picture, size, interpolation=cv2.INTER_AREA).astype(np.uint8, copy=False)
        return cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    except (cv2.error, MemoryError) as error:
        height, width = picture.shape[:2]
        reason = "not enough memory" if isinstance(error, MemoryError) else error.err or "OpenCV cannot encode it"
        raise OutputError(f"a picture of {width} x {height} pixels cannot be written as JPEG ({reason})") from None
