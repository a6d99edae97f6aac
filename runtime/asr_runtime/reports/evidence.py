"""Evidence maps: a flagged picture with the parts tinted that speak for AI."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Verdict
from asr_runtime.errors import InferenceError
from asr_runtime.records import FrameRecord, ImageRecord, Record
from asr_runtime.reports.flagged import FlaggedPictures
from asr_runtime.reports.lettering import BLACK, COLOURS, WHITE, lettering, put
from asr_runtime.windows import Window

__all__ = ["Evidence", "draw_evidence"]

_QUALITY = 92
_WINDOWS, _LIVE_WINDOWS = 49, 16  # of a map; while one is made, a camera waits
_LONGEST, _NARROWEST = 1600, 480  # pixels: the picture is shrunk or enlarged to fit between them
_LOW, _HIGH = np.array((0, 200, 255)), np.array((30, 20, 220))  # BGR at probability 0.5, and at 1
_STRONG = 0.75  # how much of the tint covers the picture at probability 1; at 0.5 none
_SOFT = 0.12  # deviation of the blur over the edges of windows, in sides of a window
_DULL = 0.75  # of the picture is grey, so that the tint is the only strong colour
_UNSEEN = 0.35  # brightness of parts of which no window was judged
_LIMIT = 7.0  # log-odds; a window at exactly 0 or 1 must not outweigh all others


class Evidence:
    """Writes an evidence map of every flagged picture, under the name of its snapshot with `_map` at the end.

    Args:
        pictures: decides which pictures are flagged, and takes the maps.
        score_map: (picture, largest number of windows) -> windows that cover it: `Detector.map`.
        warn: called with one line about a map that cannot be made.
    """

    def __init__(
        self,
        pictures: FlaggedPictures,
        score_map: Callable[[NDArray[np.uint8], int], Sequence[Window]],
        *,
        warn: Callable[[str], None],
    ) -> None:
        self._pictures, self._score_map, self._warn = pictures, score_map, warn

    def observe(self, record: Record, image: NDArray[np.uint8] | None) -> None:
        """Take one record of the run; write the map of its picture if that is flagged.

        Args:
            record: only those of images and frames have a picture.
            image: uint8 BGR, H x W x 3; None where the record has none.

        Raises:
            OutputError: the map cannot be written.
        """
        name = self._pictures.name(record, image)
        if name is None or image is None or not isinstance(record, ImageRecord | FrameRecord):
            return
        is_live = isinstance(record, FrameRecord) and record.age is not None
        try:
            windows = self._score_map(image, _LIVE_WINDOWS if is_live else _WINDOWS)
        except InferenceError as error:
            self._warn(f"{record.source}: no evidence map: {error}")
            return
        try:
            picture = draw_evidence(image, windows, record.verdict, record.probability)
        except (cv2.error, MemoryError) as error:
            self._warn(f"{record.source}: no evidence map: it cannot be drawn ({type(error).__name__})")
            return
        self._pictures.write(f"{name}_map", picture, _QUALITY)


def draw_evidence(
    image: NDArray[np.uint8], windows: Sequence[Window], verdict: Verdict, probability: float
) -> NDArray[np.uint8]:
    """Draw a picture with its evidence and a legend below it.

    Each pixel has the mean log-odds of the windows around it, those whose middle is near counting more; the edges
    of windows are blurred. Where that is above 0 (probability 0.5) the picture is tinted, from yellow to red;
    everywhere else it is greyed. Parts of which no window was judged are dark.

    Args:
        image: uint8 BGR, H x W x 3, any size.
        windows: that cover it, as `Detector.map` returns them.
        verdict: of the whole picture.
        probability: of the whole picture, 0..1.

    Returns:
        uint8 BGR; the picture, at most 1600 pixels long, over a strip with the verdict and the colour scale.
    """
    scale = min(_LONGEST / max(image.shape[:2]), max(1.0, _NARROWEST / image.shape[1]))
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    resized = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    heat, seen = _heat(windows, height, width, scale)
    grey = cv2.cvtColor(cv2.cvtColor(resized, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    dulled = cv2.addWeighted(grey, _DULL, resized, 1 - _DULL, 0)
    picture = _tinted(dulled.astype(np.uint8), 1 / (1 + np.exp(-heat)))
    picture[~seen] = picture[~seen] * _UNSEEN
    if width < _NARROWEST:
        sides = (_NARROWEST - width) // 2, (_NARROWEST - width + 1) // 2
        picture = cv2.copyMakeBorder(picture, 0, 0, *sides, cv2.BORDER_CONSTANT, value=BLACK).astype(np.uint8)
    legend = _legend(picture.shape[1], verdict, probability, bool(seen.all()))
    return np.concatenate([picture, legend])


def _heat(
    windows: Sequence[Window], height: int, width: int, scale: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the mean log-odds around each pixel of the scaled picture (height, width), and where a window is."""
    total = np.zeros((height, width), np.float32)
    weights = np.zeros((height, width), np.float32)
    for window in windows:
        log_odds = np.clip(np.log(max(window.probability, 1e-9) / max(1 - window.probability, 1e-9)), -_LIMIT, _LIMIT)
        top, left = round(window.y * scale), round(window.x * scale)
        side = max(1, round(window.size * scale))
        bottom, right = min(height, top + side), min(width, left + side)
        weight = np.outer(_tent(bottom - top), _tent(right - left))
        total[top:bottom, left:right] += weight * np.float32(log_odds)
        weights[top:bottom, left:right] += weight
    seen = weights > 0
    heat = np.divide(total, weights, out=total, where=seen)
    largest = min(max((window.size for window in windows), default=1) * scale, float(max(height, width)))
    soft = (0, 0), max(1.0, _SOFT * largest)
    share = cv2.GaussianBlur(seen.astype(np.float32), *soft)  # so that parts without a window do not count as 0
    blurred = cv2.GaussianBlur(heat, *soft)
    return np.divide(blurred, share, out=np.zeros_like(heat), where=seen), seen


def _tent(length: int) -> NDArray[np.float32]:
    """Weights (length,) that fall from 1 in the middle to almost 0 at the ends."""
    place = (np.arange(length, dtype=np.float32) + 0.5) / max(1, length)
    return np.asarray(1.02 - np.abs(2 * place - 1), np.float32)


def _tinted(picture: NDArray[np.uint8], probability: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Tint a picture (H, W, 3) where the probability (H, W) is above 0.5."""
    strength = np.clip(2 * probability - 1, 0, 1)[..., None]  # (H, W, 1)
    colour = _LOW + (_HIGH - _LOW) * strength
    cover = _STRONG * np.sqrt(strength)
    return np.asarray(np.rint(picture * (1 - cover) + colour * cover), np.uint8)


def _legend(width: int, verdict: Verdict, probability: float, is_covered: bool) -> NDArray[np.uint8]:
    """Return the strip below a picture: the verdict, and the colours from probability 0.5 to 1."""
    letter = max(9, min(18, width // 50))
    gap, height = letter // 2, 3 * letter
    strip = np.full((height, width, 3), BLACK, np.uint8)
    label = lettering(f"{verdict.upper()} {probability:.2f}", letter, is_bold=True)
    chip = label.shape[1] + 2 * gap
    strip[:, :chip] = COLOURS[verdict]
    put(strip, label, gap, BLACK if verdict == "unsure" else WHITE)
    low, high = lettering("windows: 0.5", letter), lettering("1 AI", letter)
    length = min(12 * letter, width - chip - low.shape[1] - high.shape[1] - 5 * gap)
    if length < letter:
        return strip
    right = width - gap - high.shape[1]
    put(strip, high, right, WHITE)
    bar = strip[letter : 2 * letter, right - gap - length : right - gap]
    ramp = np.broadcast_to(np.linspace(0.5, 1, length, dtype=np.float32), bar.shape[:2])
    bar[:] = _tinted(np.full_like(bar, 128), ramp)
    left = right - 2 * gap - length - low.shape[1]
    put(strip, low, left, WHITE)
    note = lettering("dark: not judged", letter)
    if not is_covered and chip + note.shape[1] + 2 * gap < left:
        put(strip, note, chip + gap, WHITE)
    return strip
