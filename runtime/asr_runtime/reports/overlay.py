"""What is drawn over a frame: verdict, probability, time, source, and the probabilities of the latest frames."""

from __future__ import annotations

import time
from collections import deque

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Verdict
from asr_runtime.records import FrameRecord
from asr_runtime.reports.lettering import BLACK, COLOURS, WHITE, Colour, fitting, lettering, put

__all__ = ["Overlay"]

_SHADE = 0.25  # of the picture that shines through a strip
_LATEST = 60  # frames in the graph
_SMALLEST = 8  # height of a capital letter, pixels


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
        colour = COLOURS[record.steady]
        for edge in (canvas[:border], canvas[-border:], canvas[:, :border], canvas[:, -border:]):
            edge[:] = colour
        inner = canvas[border:-border, border:-border]
        strip = letter + 2 * (letter // 2)
        _shade(inner[:strip])
        _shade(inner[-strip:])
        self._draw_top(inner[:strip], record, letter, colour)
        graph = self._draw_graph(inner, letter, strip)
        self._draw_source(inner[-strip:, : inner.shape[1] - graph], record, letter)

    def _draw_top(self, strip: NDArray[np.uint8], record: FrameRecord, letter: int, colour: Colour) -> None:
        """Steady verdict and smoothed probability, the frame's own probability, the time."""
        gap = letter // 2
        label = lettering(f"{record.steady.upper()} {record.smoothed:.2f}", letter, is_bold=True)
        chip = label.shape[1] + 2 * gap
        strip[:, :chip] = colour
        put(strip, label, gap, BLACK if record.steady == "unsure" else WHITE)
        free = strip.shape[1] - chip - gap
        for clock in _clocks(record):
            right = lettering(clock, letter)
            if right.shape[1] <= free:
                free -= right.shape[1]
                put(strip, right, chip + free, WHITE)
                break
        own = lettering(f"frame {record.probability:.3f}", letter)
        if own.shape[1] <= free - 2 * gap:
            put(strip, own, chip + gap, WHITE)

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
            panel[height - max(1, round(probability * height)) :, left:right] = COLOURS[verdict]
        return count * column

    def _draw_source(self, strip: NDArray[np.uint8], record: FrameRecord, letter: int) -> None:
        name = "".join(each if " " <= each <= "~" else "?" for each in record.source)
        gap = letter // 2
        put(strip, fitting(name, letter, strip.shape[1] - 2 * gap), gap, WHITE)


def _shade(part: NDArray[np.uint8]) -> None:
    part[:] = cv2.addWeighted(part, _SHADE, np.full_like(part, BLACK), 1 - _SHADE, 0)


def _clocks(record: FrameRecord) -> tuple[str, ...]:
    """Return the time of a frame, in the forms that may fit, longest first."""
    if record.age is not None:
        moment = time.gmtime(record.time)
        return time.strftime("%Y-%m-%d %H:%M:%SZ", moment), time.strftime("%H:%M:%SZ", moment)
    minutes, seconds = divmod(max(0.0, record.time), 60)
    return f"{int(minutes) // 60}:{int(minutes) % 60:02d}:{seconds:05.2f}", f"{int(minutes)}:{int(seconds):02d}"
