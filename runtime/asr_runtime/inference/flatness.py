"""Pictures that hold nothing to judge: blank pages, plain colours, screens of text, a single pixel.

A detector reads traces in texture. Where there is none its probability says nothing, so the verdict is `unsure`, and
the record gives the reason.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Preprocess

__all__ = ["FLAT", "GRAPHICS", "ONE_COLOUR", "TOO_SMALL", "judged_window", "nothing_to_judge"]

ONE_COLOUR = "one colour"
FLAT = "flat areas dominate"
GRAPHICS = "text or graphics of two colours"
TOO_SMALL = "too few pixels"

# Of 3,500 photographs, generated pictures, drawings and scans, these limits call 34 flat: scanned receipts, drawings,
# wallpapers of one colour, objects cut out on white. Skies and blurred backgrounds stay below, also as JPEGs.
_FLAT_SHARE = 0.75
_GRAPHICS_SHARE, _TWO_LEVELS_SHARE = 0.4, 0.65
_SMALLEST_SIDE = 8  # pixels
_SAMPLES = 512  # rows, and columns, that are compared with their neighbours in a large picture


def judged_window(frame: NDArray[np.uint8], preprocess: Preprocess) -> NDArray[np.uint8]:
    """Return the part of a frame that the network sees: the centre crop, or the whole frame where that is resized.

    Args:
        frame: uint8 `(H, W, 3)`.
        preprocess: of the model's card.

    Returns:
        A view of the frame, uint8 `(h, w, 3)`.
    """
    if preprocess.mode != "crop":
        return frame
    top, left = (max(0, (side - preprocess.size) // 2) for side in frame.shape[:2])
    return frame[top : top + preprocess.size, left : left + preprocess.size]


def nothing_to_judge(window: NDArray[np.uint8]) -> str | None:
    """Say why a picture, or a window of one, holds nothing that a detector could judge.

    A pixel is flat if it equals the pixels to its right and below. The noise of a sensor and the texture of a generator
    leave few such pixels.

    Args:
        window: uint8 `(H, W, 3)`, at native resolution.

    Returns:
        The reason, a short phrase; None: there is something to judge.
    """
    height, width = window.shape[:2]
    if min(height, width) < _SMALLEST_SIDE:
        return ONE_COLOUR if (window == window[0, 0]).all() else TOO_SMALL
    rows, columns = slice(0, height - 1, _step(height)), slice(0, width - 1, _step(width))
    pixels = _packed(window[rows, columns])  # (R, C)
    is_flat = pixels == _packed(window[1:][rows, columns])
    is_flat &= pixels == _packed(window[:, 1:][rows, columns])
    flat = np.count_nonzero(is_flat) / is_flat.size
    if flat == 1.0 and (pixels == pixels[0, 0]).all():
        return ONE_COLOUR
    if flat >= _FLAT_SHARE:
        return FLAT
    if flat >= _GRAPHICS_SHARE and _share_of_two_levels(window[rows, columns, 1]) >= _TWO_LEVELS_SHARE:
        return GRAPHICS
    return None


def _packed(pixels: NDArray[np.uint8]) -> NDArray[np.uint32]:
    """Return one number per pixel, (R, C, 3) -> (R, C): numbers are compared ten times as fast as triples."""
    four = np.zeros((*pixels.shape[:2], 4), np.uint8)  # the bytes of a number
    for channel in range(3):  # one after the other: all together takes four times as long
        four[..., channel] = pixels[..., channel]
    return four.view(np.uint32)[..., 0]


def _step(side: int) -> int:
    return max(1, side // _SAMPLES)


def _share_of_two_levels(green: NDArray[np.uint8]) -> float:
    """Return the share of pixels that have one of the two most frequent levels."""
    levels = np.bincount(green.ravel(), minlength=256)
    return float(np.sort(levels)[-2:].sum() / levels.sum())
