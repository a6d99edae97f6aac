"""Text on pictures, sharp at any size, and the colours of verdicts."""

from __future__ import annotations

import functools

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Verdict

__all__ = ["BLACK", "COLOURS", "WHITE", "Colour", "fitting", "lettering", "put"]

Colour = tuple[int, int, int]
"""Blue, green, red, 0..255."""
COLOURS: dict[Verdict, Colour] = {"ai": (58, 52, 214), "real": (78, 148, 44), "unsure": (36, 178, 245)}
WHITE: Colour = (255, 255, 255)
BLACK: Colour = (20, 20, 20)
_CAPITAL = 21.0  # height of a capital letter at scale 1 of the font, pixels
_FONT = cv2.FONT_HERSHEY_SIMPLEX


@functools.lru_cache(maxsize=64)
def lettering(text: str, letter: int, is_bold: bool = False) -> NDArray[np.float32]:
    """Return how much of each pixel a text covers, 0..1, H x W x 1; drawn larger and averaged where it is small."""
    fine = 4 if letter < 16 else 2
    scale = fine * letter / _CAPITAL
    weight = max(1, round(fine * letter / (6.5 if is_bold else 8.5)))
    (width, _), _ = cv2.getTextSize(text, _FONT, scale, weight)
    across, down = -(-(width + weight) // fine), letter + 2 * (letter // 3)
    mask = np.zeros((down * fine, across * fine), np.uint8)
    cv2.putText(mask, text, (weight // 2, (letter + letter // 3) * fine), _FONT, scale, 255, weight, cv2.LINE_AA)
    small = cv2.resize(mask, (across, down), interpolation=cv2.INTER_AREA)
    return np.asarray(small[..., None] / np.float32(255), np.float32)


def fitting(name: str, letter: int, width: int) -> NDArray[np.float32]:
    """Draw a name. Where there is no room its beginning is cut off, because names of files differ at the end."""
    full = lettering(name, letter)
    if full.shape[1] <= width:
        return full
    letters = max(0, int(len(name) * width / full.shape[1]) - 2)
    while letters and lettering(".." + name[-letters:], letter).shape[1] > width:
        letters -= 1
    return lettering(".." + name[-letters:] if letters else "", letter)


def put(strip: NDArray[np.uint8], text: NDArray[np.float32], left: int, colour: Colour) -> None:
    """Blend a text into a strip, in the middle of its height."""
    top = (strip.shape[0] - text.shape[0]) // 2
    place = strip[max(0, top) : top + text.shape[0], left : left + text.shape[1]]
    text = text[: place.shape[0], : place.shape[1]]
    place[:] = np.rint(place * (1 - text) + np.asarray(colour, np.float32) * text)
