"""How fast a network learns on this processor, by the way its step is computed, and whether it learns the same.

    python -m asr_bench.training --model asrnet
    python -m asr_bench.training --model asrnet --data dataset --curve 60

A step is what asr-train does with a batch in memory: scale, forward, backward, clip, update. The ways take turns, a
step each. With `--curve` each way starts from the same weights and sees the same batches of a data folder; what the
losses differ by is printed beside what another order of the same pictures changes in float32.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import click
import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from asr_bench.figures import Figure, figures_option, write_figures
from asr_models import InputTransform, create_model
from asr_runtime.command import command
from asr_runtime.errors import ConfigurationError
from asr_runtime.machine import has_bf16
from asr_runtime.reports.progress import progress_bar
from asr_train.data.batches import RankBatches, TrainingImages, collate
from asr_train.data.layouts import find_data
from asr_train.data.shard_order import training_draws
from asr_train.fitting.config import LoopConfig, recipe

if TYPE_CHECKING:
    from pathlib import Path

__all__ = ["WAYS", "Curves", "Learner", "StepTimes", "Way", "default_way", "loss_curves", "step_times"]

_SMOOTH = 20  # steps over which a loss curve is averaged


@dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        bf16: convolutions and matrix products in bfloat16, weights and statistics in float32 (autocast).
        channels_last: the memory layout of maps; False: channels first.
        fused: AdamW updates all weights in one kernel.
        compiled: by `torch.compile`, which needs a C++ compiler.
    """

    bf16: bool = False
    channels_last: bool = True
    fused: bool = False
    compiled: bool = False


WAYS: Mapping[str, Way] = {
    "float32": Way(),
    "float32, channels first": Way(channels_last=False),
    "float32, fused AdamW": Way(fused=True),
    "float32, compiled": Way(compiled=True),
    "bf16": Way(bf16=True),
    "bf16, fused AdamW": Way(bf16=True, fused=True),
    "bf16, compiled": Way(bf16=True, compiled=True),
}
"""The first is what asr-train does where the processor has no bfloat16, `bf16` what it does where it has."""


def default_way() -> str:
    """Return the name of the way that asr-train takes on this processor."""
    return "bf16" if has_bf16() else "float32"


class Learner:
    """A network and its optimiser, from the recipe of asr-train; the same weights at every call.

    Args:
        config: recipe of the network.
        way: how its step is computed.
    """

    def __init__(self, config: LoopConfig, way: Way) -> None:
        torch.manual_seed(0)
        options = {name: value for name, value in config.options.items() if name != "freeze"}
        self.network = create_model(config.model, **options).train()
        self.layout = torch.channels_last if way.channels_last else torch.contiguous_format
        self.network.to(memory_format=self.layout)
        self.compute = torch.compile(self.network) if way.compiled else self.network
        self.transform = InputTransform(**config.preprocess)
        # None is torch's own choice; False would switch its other fast path off.
        fused = True if way.fused else None
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.lr, config.betas, weight_decay=config.weight_decay, fused=fused
        )
        self.config, self.way = config, way

    def step(self, frames: Tensor, labels: Tensor) -> float:
        """Learn from one batch.

        Args:
            frames: (B, S, S, 3) BGR in [0, 255].
            labels: int64 (B,), 0 or 1.

        Returns:
            The loss before the update.
        """
        x = self.transform.normalise(frames).contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.way.bf16):
            loss = F.cross_entropy(self.compute(x), labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        return float(loss.detach())


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
    config = _recipe(model)
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


@dataclass(frozen=True)
class Curves:
    """Losses of the same steps.

    Attributes:
        model: registry name.
        losses: way -> loss of every step, from the same weights on the same batches.
        reordered: losses in float32 on the same pictures in another order.
    """

    model: str
    losses: Mapping[str, tuple[float, ...]]
    reordered: tuple[float, ...]

    def difference(self, way: str) -> float:
        """Return the largest difference of the smoothed loss from that of the first way."""
        return _furthest(self.losses[way], next(iter(self.losses.values())))

    @property
    def chance(self) -> float:
        """Return what another order changes: the same difference."""
        return _furthest(self.reordered, next(iter(self.losses.values())))

    def figures(self) -> list[Figure]:
        """Return the differences."""
        named = {way: self.difference(way) for way in list(self.losses)[1:]} | {"float32, another order": self.chance}
        return [
            Figure(f"{self.model}, loss, {name}: furthest from float32", "nats", False, (value,))
            for name, value in named.items()
        ]

    def to_markdown(self) -> str:
        """Return the differences and the mean losses at the end as a Markdown table."""
        rows = [
            f"| {self.model}, {len(self.reordered)} steps | loss, first {_SMOOTH} | last {_SMOOTH} | "
            "furthest from float32, smoothed |",
            "|---|---|---|---|",
        ]
        for way, losses in {**self.losses, "float32, another order": self.reordered}.items():
            apart = _furthest(losses, next(iter(self.losses.values())))
            rows.append(f"| {way} | {np.mean(losses[:_SMOOTH]):.4f} | {np.mean(losses[-_SMOOTH:]):.4f} | {apart:.4f} |")
        return "\n".join(rows) + "\n"


def loss_curves(model: str, root: str, steps: int, ways: Sequence[str], batch: int = 8) -> Curves:
    """Train each way on the same batches of a data folder.

    Args:
        model: a network that is trained by gradient descent.
        root: the data folder.
        steps: of each way.
        ways: of `WAYS`; the first is the reference.
        batch: pictures in a step.

    Raises:
        ConfigurationError: the network is solved for in closed form.
        DatasetError: no data folder.
    """
    config = _recipe(model)
    data = find_data(root)
    images = TrainingImages(data.train, InputTransform(**config.preprocess), config.augment)
    draws = training_draws(data.train, config.balance, batch * steps, config.seed)
    batches = [
        collate([images[key] for key in keys])
        for keys in progress_bar(list(itertools.islice(RankBatches(draws, batch), steps)), "pictures")
    ]
    order = np.random.default_rng(config.seed).permutation(batch * steps)
    frames, labels = torch.cat([b.frames for b in batches]), torch.cat([b.labels for b in batches])
    order = order[order < len(labels)]
    losses: dict[str, tuple[float, ...]] = {}
    for name in ways:
        learner = Learner(config, WAYS[name])
        losses[name] = tuple(learner.step(b.frames, b.labels) for b in progress_bar(batches, f"{model}, {name}"))
    learner = Learner(config, WAYS[ways[0]])
    other = [order[at : at + batch] for at in range(0, len(order), batch)]
    again = tuple(learner.step(frames[i], labels[i]) for i in progress_bar(other, f"{model}, another order"))
    return Curves(model, losses, again)


def _furthest(one: Sequence[float], other: Sequence[float]) -> float:
    width = min(_SMOOTH, len(one))
    window = np.ones(width) / width
    apart = np.convolve(one, window, "valid") - np.convolve(other[: len(one)], window, "valid")
    return float(np.abs(apart).max())


def _recipe(model: str) -> LoopConfig:
    config = recipe(model, weights="none")
    if not isinstance(config, LoopConfig):
        raise ConfigurationError(
            f"{model} is solved for in closed form; expected a network that gradient descent trains"
        )
    return config


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
