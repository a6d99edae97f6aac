"""From files to verdicts: how fast each step is alone, and how much of the slowest one's speed the whole keeps."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_runtime import Detector, read_image
from asr_runtime.errors import ConfigurationError
from asr_runtime.media.video import VideoFile
from asr_runtime.reports.progress import progress_bar
from asr_runtime.screening.screen import screen
from asr_runtime.sources.expand import Expansion, Unreadable

__all__ = ["EndToEnd", "end_to_end"]

_HELD = 16  # decoded frames that inference alone runs on, in turn
_REPEATS = 3


@dataclass(frozen=True)
class EndToEnd:
    """Frames per second, one value per repeat, the three in turn.

    Attributes:
        source: folder, image or video.
        frames: in it.
        decode: reading and decoding alone.
        inference: scoring decoded frames alone.
        pipeline: both as asr-screen does them, overlapped.
    """

    source: str
    frames: int
    decode: tuple[float, ...]
    inference: tuple[float, ...]
    pipeline: tuple[float, ...]

    @property
    def efficiency(self) -> float:
        """Speed of the pipeline against the slower of its two steps alone; medians."""
        return float(np.median(self.pipeline) / min(np.median(self.decode), np.median(self.inference)))

    def to_markdown(self) -> str:
        """Return the figures as a Markdown table."""
        rates = " | ".join(f"{np.median(rate):.1f}" for rate in (self.decode, self.inference, self.pipeline))
        return (
            "| source | frames | decoding alone /s | inference alone /s | asr-screen /s | of the slower step |\n"
            "|---|---|---|---|---|---|\n"
            f"| {Path(self.source).name} | {self.frames} | {rates} | {self.efficiency:.0%} |\n"
        )


def end_to_end(model: Path, source: Path, threads: int = 1) -> EndToEnd:
    """Time decoding, inference and both together on the same files.

    Args:
        model: the exported file.
        source: image, folder of images, or video.
        threads: of inference; decoding has another thread.

    Raises:
        ConfigurationError: nothing in the source can be decoded.
        ModelError: the file is refused.
    """
    detector = Detector(model, device="cpu", threads=threads)
    frames = [frame for _, frame in zip(range(_HELD), _frames(source), strict=False)]
    if not frames:
        raise ConfigurationError(f"{source}: no frame to time; expected an image, a folder of images, or a video")
    for frame in frames:
        detector(frame)
    rates: dict[str, list[float]] = {"decode": [], "inference": [], "pipeline": []}
    total = 0
    for _ in progress_bar(range(_REPEATS), "end to end"):
        started = time.perf_counter()
        total = sum(1 for _ in _frames(source))
        rates["decode"].append(total / (time.perf_counter() - started))
        started = time.perf_counter()
        for number in range(total):
            detector(frames[number % len(frames)])
        rates["inference"].append(total / (time.perf_counter() - started))
        started = time.perf_counter()
        for _ in screen([source], detector):
            pass
        rates["pipeline"].append(total / (time.perf_counter() - started))
    return EndToEnd(str(source), total, *(tuple(rates[name]) for name in ("decode", "inference", "pipeline")))


def _frames(source: Path) -> Iterator[NDArray[np.uint8]]:
    for item in Expansion([str(source)]):
        if isinstance(item, Unreadable):
            continue
        if item.kind == "video":
            yield from (frame.image for frame in VideoFile(item.name))
        else:
            yield read_image(item.name)
