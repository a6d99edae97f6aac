"""How fast a network learns on this processor, by the way its step is computed, and whether it learns the same.

    python -m asr_bench.training --model asrnet
    python -m asr_bench.training --model asrnet --data dataset --curve 60

A step is what asr-train does with a batch in memory: scale, forward, backward, clip, update. The ways take turns, a
step each. With `--curve` their losses are compared, too (`loss_curves.py`).
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np
import torch

from asr_bench.figures import Figure, figures_option, write_figures
from asr_bench.learner import WAYS, Learner, loop_recipe
from asr_bench.loss_curves import Curves, loss_curves
from asr_runtime.command import command
from asr_runtime.reports.progress import progress_bar

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["StepTimes", "step_times"]


@dataclass(frozen=True)
class StepTimes:
    """Steps of training, the ways in turn, every sample kept.

    Attributes:
        model: registry name.
        batch: pictures in a step.
        threads: of torch.
        processor: way -> processor seconds for one picture, of all threads; other programs do not count.
        seconds: way -> seconds on the clock for one picture.
        first: way -> seconds of the first step, compiling included.
    """

    model: str
    batch: int
    threads: int
    processor: Mapping[str, tuple[float, ...]]
    seconds: Mapping[str, tuple[float, ...]]
    first: Mapping[str, float]

    def figures(self) -> list[Figure]:
        """Return processor time and rate of each way."""
        figures = []
        for way, processor in self.processor.items():
            of = f"{self.model}, training, {way}"
            figures += [
                Figure(f"{of}: a picture, all cores", "ms", False, tuple(1e3 * s for s in processor)),
                Figure(f"{of}", "pictures/s", True, tuple(1 / s for s in self.seconds[way])),
            ]
        return figures

    def to_markdown(self) -> str:
        """Return the ways as a Markdown table, the first as the reference."""
        rows = [
            f"| {self.model}, batch {self.batch}, threads {self.threads} | processor ms a picture | pictures/s | "
            "speed-up | first step s |",
            "|---|---|---|---|---|",
        ]
        reference = float(np.median(next(iter(self.processor.values()))))
        for way, processor in self.processor.items():
            median, rate = float(np.median(processor)), 1 / float(np.median(self.seconds[way]))
            span = f"{1e3 * min(processor):.1f} to {1e3 * max(processor):.1f}"
            rows.append(
                f"| {way} | {1e3 * median:.1f} ({span}) | {rate:.1f} | {reference / median:.2f}x | "
                f"{self.first[way]:.1f} |"
            )
        return "\n".join(rows) + "\n"


def step_times(
    model: str, ways: Sequence[str] = tuple(WAYS), batch: int = 8, rounds: int = 5, threads: int = 1
) -> StepTimes:
    """Time steps on a batch of noise, the ways in turn.

    Args:
        model: a network that is trained by gradient descent.
        ways: of `WAYS`.
        batch: pictures in a step.
        rounds: steps of each way, after one that compiles and one that warms up.
        threads: of torch.

    Raises:
        ConfigurationError: the network is solved for in closed form.
    """
    config = loop_recipe(model)
    size = config.preprocess["size"]
    rng = torch.Generator().manual_seed(0)
    frames = torch.randint(0, 256, (batch, size, size, 3), generator=rng, dtype=torch.uint8)
    labels = torch.arange(batch) % 2
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        learners = {name: Learner(config, WAYS[name]) for name in ways}
        first: dict[str, float] = {}
        for name, learner in progress_bar(list(learners.items()), "first steps"):
            started = time.perf_counter()
            learner.step(frames, labels)
            first[name] = time.perf_counter() - started
            learner.step(frames, labels)
        processor: dict[str, tuple[float, ...]] = dict.fromkeys(ways, ())
        seconds: dict[str, tuple[float, ...]] = dict.fromkeys(ways, ())
        for _ in progress_bar(range(rounds), f"training {model}"):
            for name, learner in learners.items():
                used, started = time.process_time(), time.perf_counter()
                learner.step(frames, labels)
                processor[name] += ((time.process_time() - used) / batch,)
                seconds[name] += ((time.perf_counter() - started) / batch,)
    finally:
        torch.set_num_threads(before)
    return StepTimes(model, batch, threads, processor, seconds, first)


@command("python -m asr_bench.training")
@click.option("--model", default="asrnet")
@click.option("--way", "ways", type=click.Choice(list(WAYS)), multiple=True, help="Repeatable.  [default: all]")
@click.option("--batch", type=click.IntRange(min=2), default=8, help="Pictures in a step.")
@click.option("--rounds", type=click.IntRange(min=1), default=5, help="Steps of each way.")
@click.option("--threads", type=click.IntRange(min=1), default=1)
@click.option("--data", metavar="DIR", help="Data folder of --curve.")
@click.option("--curve", type=click.IntRange(min=1), help="Compare the losses of so many steps, too; needs --data.")
@figures_option
def main(
    model: str,
    ways: tuple[str, ...],
    batch: int,
    rounds: int,
    threads: int,
    data: str | None,
    curve: int | None,
    output: Path | None,
) -> None:
    """Time steps of training and print a table."""
    if (curve is None) != (data is None):
        raise click.UsageError("--curve needs --data DIR, and --data is for --curve only.")
    ways = ways or tuple(WAYS)
    results: list[StepTimes | Curves] = [step_times(model, ways, batch, rounds, threads)]
    if curve is not None and data is not None:
        results.append(loss_curves(model, data, curve, tuple(dict.fromkeys(("float32", *ways))), batch))
    for result in results:
        click.echo(result.to_markdown())
    if output is not None:
        write_figures(results, output)


if __name__ == "__main__":
    main()
