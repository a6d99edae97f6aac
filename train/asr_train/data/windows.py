"""Places of windows in a picture at native resolution: the centre alone, or several all over the picture.

A place is (vertical, horizontal), each a fraction of the room that the picture leaves beside the window, as in
`asr_runtime.contract.WholeLook`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError
from asr_train.data.augment import equalise, mirrored_window

__all__ = ["CENTRE", "WINDOW_COUNTS", "Place", "corner", "equalised_window", "window_places"]

Place = tuple[float, float]

CENTRE: Place = (0.5, 0.5)
WINDOW_COUNTS = (1, 5, 9)
_NEAR, _FAR = 0.2, 0.8  # towards the corners: at them are frames, captions and dark lens corners
_PLACES: tuple[Place, ...] = (
    CENTRE,
    *((row, column) for row in (_NEAR, _FAR) for column in (_NEAR, _FAR)),
    *((_NEAR, 0.5), (0.5, _NEAR), (0.5, _FAR), (_FAR, 0.5)),
)
_BLOCK = 16  # a JPEG with halved colour is coded in blocks of 16 x 16 px


def window_places(count: int) -> tuple[Place, ...]:
    """Return the centre; with 5 windows also four towards the corners, with 9 four towards the sides as well.

    Raises:
        ConfigurationError: another number of windows.
    """
    if count not in WINDOW_COUNTS:
        raise ConfigurationError(f"windows {count}: expected one of {', '.join(map(str, WINDOW_COUNTS))}")
    return _PLACES[:count]


def corner(place: Place, height: int, width: int, size: int) -> tuple[int, int]:
    """Return the top and left pixel of a window of `size`; below 0 where the picture is smaller than the window."""

    def along(share: float, length: int) -> int:
        room = length - size
        return int(share * room) if room >= 0 else room // 2

    return along(place[0], height), along(place[1], width)


def equalised_window(image: NDArray[np.uint8], place: Place, size: int, quality: int | None) -> NDArray[np.uint8]:
    """Cut the window (size, size, 3) out of a picture that is re-encoded as JPEG first.

    Only the blocks around the window are encoded; the pixels are those of encoding the whole picture.

    Args:
        image: uint8 (H, W, 3), BGR.
        place: of the window.
        size: side of the window in pixels.
        quality: JPEG quality, 1 to 100; None leaves the picture as it is.
    """
    height, width = image.shape[:2]
    top, left = corner(place, height, width, size)
    if quality is None:
        return mirrored_window(image, top, left, size, size)
    first_row, rows = _blocks(top, size, height)
    first_column, columns = _blocks(left, size, width)
    region = equalise(np.ascontiguousarray(image[first_row:rows, first_column:columns]), quality)
    return mirrored_window(region, top - first_row, left - first_column, size, size)


def _blocks(first: int, size: int, length: int) -> tuple[int, int]:
    """Return start and end of the blocks that a window touches, with one block beyond: colour is interpolated."""
    if first < 0:  # continued by mirroring: all of the axis
        return 0, length
    start = max(0, first // _BLOCK * _BLOCK - _BLOCK)
    return start, min(length, -(-(first + size) // _BLOCK) * _BLOCK + _BLOCK)
