"""Measures whether a server gains by scoring pictures of several requests in one inference.

    python -m asr_bench.batching [--model asrnet-lite] [--rounds 15]

Scores the same pictures one after another and in batches, in turns, and prints the processor time that a picture takes:
that time, unlike the time on the clock, does not depend on what else the machine does.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from numpy.typing import NDArray

from asr_bench.figures import Figure, figures_option, write_figures
from asr_runtime import Detector, read_image
from asr_runtime.command import command

__all__ = ["BatchCosts", "processor_seconds"]

_EXAMPLES = Path(__file__).parents[2] / "runtime" / "examples" / "real"


@dataclass(frozen=True)
class BatchCosts:
    """What a picture costs in batches of several sizes.

    Attributes:
        model: built-in name or file.
        seconds: size -> processor seconds of one picture, one value a round; size 1 is among them.
    """

    model: str
    seconds: dict[int, list[float]]

    def figures(self) -> list[Figure]:
        """Return the time of a picture for each size."""
        return [
            Figure(f"{self.model}, {size} in one inference: a picture", "ms", False, tuple(1e3 * s for s in values))
            for size, values in self.seconds.items()
        ]


def processor_seconds(
    detector: Detector, frames: NDArray[np.uint8], sizes: Sequence[int], rounds: int
) -> dict[int, list[float]]:
    """Time batches of several sizes, in turns.

    Args:
        detector: the model; one thread, so that processor time is what the work costs.
        frames: uint8 BGR (N, H, W, 3); every size divides N.
        sizes: pictures in one inference.
        rounds: how often all frames are scored with each size.

    Returns:
        Size -> seconds of processor time for one picture, one value a round.
    """
    seconds: dict[int, list[float]] = {size: [] for size in sizes}
    for size in sizes:
        detector(frames[:size])  # the first inference of a shape makes its buffers
    for _ in range(rounds):
        for size in sizes:
            began = time.process_time()
            for at in range(0, len(frames), size):
                detector(frames[at : at + size])
            seconds[size].append((time.process_time() - began) / len(frames))
    return seconds


@command("python -m asr_bench.batching")
@click.option("--model", default="asrnet-lite", show_default=True, help="Built-in name or exported file.")
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
@figures_option
def main(model: str, rounds: int, output: Path | None) -> None:
    """Compare batches with pictures one after another."""
    detector = Detector(model, device="cpu", threads=1)
    side = detector.card.preprocess.size
    crops = [read_image(path)[:side, :side] for path in sorted(_EXAMPLES.iterdir())]
    crops = [crop for crop in crops if crop.shape == (side, side, 3)]
    frames = np.stack([crops[i % len(crops)] for i in range(8)])
    seconds = processor_seconds(detector, frames, (1, 2, 4, 8), rounds)
    if output is not None:
        write_figures([BatchCosts(model, seconds)], output)
    alone = statistics.median(seconds[1])
    for size, values in seconds.items():
        median = statistics.median(values)
        click.echo(f"{size} in one inference: {1e3 * median:.1f} ms a picture, {alone / median:.2f}x")


if __name__ == "__main__":
    main()
