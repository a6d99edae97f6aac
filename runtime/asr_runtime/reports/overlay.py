"""What is drawn over a frame: verdict, probability, time, source, and the probabilities of the latest frames."""

from __future__ import annotations

import functools
import time
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Verdict
from asr_runtime.records import FrameRecord

__all__ = ["Overlay"]

_Colour = tuple[int, int, int]
_COLOURS: dict[Verdict, _Colour] = {"ai": (58, 52, 214), "real": (78, 148, 44), "unsure": (36, 178, 245)}  # BGR
_WHITE, _BLACK = (255, 255, 255), (20, 20, 20)
_SHADE = 0.25  # of the picture that shines through a strip
_LATEST = 60  # frames in the graph
_SMALLEST = 8  # height of a capital letter, pixels
_CAPITAL = 21.0  # the same at scale 1 of the font
_FONT = cv2.FONT_HERSHEY_SIMPLEX


class Overlay:
    """Draws on the frames of one source; the size of everything follows the size of the frame."""

    def __init__(self) -> None:
        self._latest: deque[tuple[float, Verdict]] = deque(maxlen=_LATEST)

    def remember(self, record: FrameRecord) -> None:
        """Take the frame into the row of the latest probabilities."""
        self._latest.append((record.probability, record.verdict))

    def draw(self, canvas: NDArray[np.uint8], record: FrameRecord) -> None:
        """Draw on a frame, in place.

        Args:
            canvas: uint8 BGR, H x W x 3; from 160 pixels wide on everything can be read.
            record: of the frame; its steady verdict gives the colour.
        """
        height, width = canvas.shape[:2]
        letter = max(_SMALLEST, round(0.024 * min(height, 0.75 * width)))
        border = max(2, round(0.3 * letter))
        colour = _COLOURS[record.steady]
        for edge in (canvas[:border], canvas[-border:], canvas[:, :border], canvas[:, -border:]):
            edge[:] = colour
        inner = canvas[border:-border, border:-border]
        strip = letter + 2 * (letter // 2)
        _shade(inner[:strip])
        _shade(inner[-strip:])
        self._draw_top(inner[:strip], record, letter, colour)
        graph = self._draw_graph(inner, letter, strip)
        self._draw_source(inner[-strip:, : inner.shape[1] - graph], record, letter)

    def _draw_top(self, strip: NDArray[np.uint8], record: FrameRecord, letter: int, colour: _Colour) -> None:
        """Steady verdict and smoothed probability, the frame's own probability, the time."""
        gap = letter // 2
        label = _text(f"{record.steady.upper()} {record.smoothed:.2f}", letter, is_bold=True)
        chip = label.shape[1] + 2 * gap
        strip[:, :chip] = colour
        _put(strip, label, gap, _BLACK if record.steady == "unsure" else _WHITE)
        free = strip.shape[1] - chip - gap
        for clock in _clocks(record):
            right = _text(clock, letter)
            if right.shape[1] <= free:
                free -= right.shape[1]
                _put(strip, right, chip + free, _WHITE)
                break
        own = _text(f"frame {record.probability:.3f}", letter)
        if own.shape[1] <= free - 2 * gap:
            _put(strip, own, chip + gap, _WHITE)

    def _draw_graph(self, inner: NDArray[np.uint8], letter: int, strip: int) -> int:
        """One column per frame, newest on the right, coloured by its own verdict; returns the width."""
        column = max(1, letter // 4)
        count = min(_LATEST, int(0.4 * inner.shape[1]) // column)
        panel = inner[-2 * strip :, inner.shape[1] - count * column :]
        _shade(panel[:-strip])
        height, width = panel.shape[:2]
        for place, (probability, verdict) in enumerate(reversed(list(self._latest)[-count:])):
            right = width - place * column
            # A pixel between the columns, where they are wide enough for one.
            left = right - column + (column > 2)
            panel[height - max(1, round(probability * height)) :, left:right] = _COLOURS[verdict]
        return count * column

    def _draw_source(self, strip: NDArray[np.uint8], record: FrameRecord, letter: int) -> None:
        name = "".join(each if " " <= each <= "~" else "?" for each in record.source)
        gap = letter // 2
        _put(strip, _fitting(name, letter, strip.shape[1] - 2 * gap), gap, _WHITE)


def _shade(part: NDArray[np.uint8]) -> None:
    part[:] = cv2.addWeighted(part, _SHADE, np.full_like(part, _BLACK), 1 - _SHADE, 0)


def _clocks(record: FrameRecord) -> tuple[str, ...]:
    """Return the time of a frame, in the forms that may fit, longest first."""
    if record.age is not None:
        moment = time.gmtime(record.time)
        return time.strftime("%Y-%m-%d %H:%M:%SZ", moment), time.strftime("%H:%M:%SZ", moment)
    minutes, seconds = divmod(max(0.0, record.time), 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{seconds:05.2f}", f"{int(minutes)}:{int(seconds):02d}"


@functools.lru_cache(maxsize=64)
def _text(text: str, letter: int, is_bold: bool = False) -> NDArray[np.float32]:
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


def _fitting(name: str, letter: int, width: int) -> NDArray[np.float32]:
    """Return the text of a name, without its beginning where there is no room: the end tells files apart."""
    full = _text(name, letter)
    if full.shape[1] <= width:
        return full
    kept = max(0, int(len(name) * width / full.shape[1]) - 2)
    while kept and _text(".." + name[-kept:], letter).shape[1] > width:
        kept -= 1
    return _text(".." + name[-kept:] if kept else "", letter)


def _put(strip: NDArray[np.uint8], text: NDArray[np.float32], left: int, colour: _Colour) -> None:
    """Blend a text into a strip, in the middle of its height."""
    top = (strip.shape[0] - text.shape[0]) // 2
    place = strip[max(0, top) : top + text.shape[0], left : left + text.shape[1]]
    text = text[: place.shape[0], : place.shape[1]]
    place[:] = np.rint(place * (1 - text) + np.asarray(colour, np.float32) * text)
