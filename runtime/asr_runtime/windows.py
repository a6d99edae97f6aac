"""Windows of a picture: their places and scores, as plain numbers for records, reports and models."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

__all__ = ["LookKind", "Window", "window_grid"]

LookKind = Literal["centre", "whole", "quick"]
"""What the score of a picture comes from: the window in its centre, several windows (`contract.WholeLook`), or as many
of them as it takes to decide."""


@dataclass(frozen=True, slots=True)
class Window:
    """One square of a picture at native resolution, and its score.

    Attributes:
        x: of its upper left pixel, from the left edge of the picture.
        y: of its upper left pixel, from the upper edge.
        size: its side in pixels; it ends at the edge of a picture that is smaller.
        probability: calibrated P(AI-generated) of this window alone, 0..1, as if it were the centre of a picture.
    """

    x: int
    y: int
    size: int
    probability: float

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the window."""
        return {"x": self.x, "y": self.y, "size": self.size, "probability": self.probability}


def window_grid(height: int, width: int, size: int, most: int) -> list[tuple[int, int]]:
    """Return the corners (row, column) of windows that cover a picture evenly, row by row.

    Neighbours are at most half a window apart, unless that takes more than `most` windows: then the narrower spacing
    is widened until they are enough. The first and the last window of a row or column touch the edges.

    Args:
        height: of the picture, in pixels.
        width: of the picture, in pixels.
        size: side of a window, in pixels.
        most: largest number of windows, at least 1. With one, it is the centre.
    """
    down, right = max(0, height - size), max(0, width - size)
    step = max(1, size // 2)
    rows, columns = math.ceil(down / step) + 1, math.ceil(right / step) + 1
    while rows * columns > most:
        if columns == 1 or (rows > 1 and down / (rows - 1) <= right / (columns - 1)):
            rows -= 1
        else:
            columns -= 1
    return [(row, column) for row in _places(down, rows) for column in _places(right, columns)]


def _places(room: int, count: int) -> list[int]:
    return [room // 2] if count == 1 else [round(i * room / (count - 1)) for i in range(count)]
