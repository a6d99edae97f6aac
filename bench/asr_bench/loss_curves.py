"""Whether a network learns the same by each way in which a step can be computed.

Each way starts from the same weights and sees the same batches of a data folder. What their losses differ by is
compared with what another order of the same pictures changes in float32.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from asr_bench.figures import Figure
from asr_bench.learner import WAYS, Learner, loop_recipe
from asr_models import InputTransform
from asr_runtime.reports.progress import progress_bar
from asr_train.data.batches import RankBatches, TrainingImages, collate
from asr_train.data.draws import training_draws
from asr_train.data.layouts import find_data

__all__ = ["Curves", "loss_curves"]

_SMOOTH = 20  # steps over which a loss curve is averaged


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
    config = loop_recipe(model)
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
