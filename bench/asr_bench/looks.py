"""What looking at more than the centre costs: the looks at one picture in turns."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from asr_export.parity_inputs import packaged_images
from asr_runtime import Detector, read_image
from asr_runtime.reports.progress import progress_bar

__all__ = ["LookCosts", "look_costs"]

_ROOM = 4  # sides of a window that the picture measures
_ROUNDS = 5


@dataclass(frozen=True)
class LookCosts:
    """Times of the looks at one picture.

    Attributes:
        picture: its width and height in pixels.
        windows: look -> how many windows it scores.
        seconds: look -> processor seconds of every call, of all threads together, the looks in turn. Other programs
            on the machine do not count.
    """

    picture: tuple[int, int]
    windows: dict[str, int]
    seconds: dict[str, tuple[float, ...]]

    def to_markdown(self) -> str:
        """Return the figures as a Markdown table."""
        medians = {name: float(np.median(seconds)) for name, seconds in self.seconds.items()}
        lines = [
            f"| look at {self.picture[0]} x {self.picture[1]} pixels | windows | processor ms, p50 | of the centre |",
            "|---|---|---|---|",
        ]
        lines += [
            f"| {name} | {self.windows[name]} | {median * 1e3:.1f} | {median / medians['centre']:.2f}x |"
            for name, median in medians.items()
        ]
        return "\n".join(lines) + "\n"


def look_costs(model: Path, threads: int = 1, rounds: int = _ROUNDS) -> LookCosts:
    """Time a look at the centre, at the whole picture where the card has one, and an evidence map.

    Args:
        model: the exported file; its preprocessing crops.
        threads: of inference.
        rounds: calls of each look.

    Raises:
        ModelError: the file is refused.
        ConfigurationError: the model resizes pictures and so has no windows.
    """
    detector = Detector(model, device="cpu", threads=threads)
    image = read_image(sorted(packaged_images().iterdir())[0])
    side = _ROOM * detector.card.preprocess.size
    image = np.tile(image, (-(-side // image.shape[0]), -(-side // image.shape[1]), 1))[:side, :side]
    looks: dict[str, Callable[[], int]] = {"centre": lambda: len(detector.look(image, "centre").windows)}
    if detector.card.whole is not None:
        looks["whole"] = lambda: len(detector.look(image, "whole").windows)
    looks["evidence map"] = lambda: len(detector.map(image))
    windows = {name: look() for name, look in looks.items()}
    seconds: dict[str, tuple[float, ...]] = dict.fromkeys(looks, ())
    for _ in progress_bar(range(rounds), "looks"):
        for name, look in looks.items():
            started = time.process_time()
            look()
            seconds[name] += (time.process_time() - started,)
    return LookCosts((side, side), windows, seconds)
