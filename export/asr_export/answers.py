"""The answers of one engine on many frames, and how two engines differ."""

from __future__ import annotations

import copy
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from asr_export.parity_inputs import Frames
from asr_models import Deployed
from asr_runtime import Detector
from asr_runtime.contract import ModelCard

__all__ = [
    "Answers",
    "Difference",
    "Engine",
    "answers",
    "changed_verdicts",
    "difference",
    "logit_errors",
    "logit_scale",
    "onnxruntime",
    "pytorch",
]

Engine = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float64], NDArray[np.float64]]]
"""uint8 (N, H, W, 3) -> probability (N,), logits (N, 2)."""


_WORST = 5


@dataclass(frozen=True)
class Answers:
    """The outputs of one engine for a list of batches.

    Attributes:
        names: of each frame, (n,).
        real: bool (n,), cut from a real picture.
        probability: float64 (n,).
        logits: float64 (n, 2).
    """

    names: tuple[str, ...]
    real: NDArray[np.bool_]
    probability: NDArray[np.float64]
    logits: NDArray[np.float64]

    def among(self, names: Collection[str]) -> Answers:
        """Return the answers on some of the frames."""
        is_chosen = np.array([name in names for name in self.names])
        chosen = tuple(name for name in self.names if name in names)
        return Answers(chosen, self.real[is_chosen], self.probability[is_chosen], self.logits[is_chosen])

    @property
    def spread(self) -> float:
        """Range of the margin logit_ai - logit_real over the real frames."""
        margins = (self.logits[:, 1] - self.logits[:, 0])[self.real]
        return float(np.ptp(margins)) if len(margins) else 0.0


@dataclass(frozen=True)
class Difference:
    """One engine compared with another, over the same frames.

    Attributes:
        probability: `max`, `p99.9` and `mean` of the absolute difference.
        logits: the same, and `max of spread`: the largest, relative to the range of the margin over the real frames
            (None if they are all alike).
        flips: threshold -> number of real frames on the other side of that threshold; `verdict`: changed verdicts.
        worst: names of the frames with the largest differences of a logit, and these.
    """

    probability: Mapping[str, float | None]
    logits: Mapping[str, float | None]
    flips: Mapping[str, int]
    worst: tuple[tuple[str, float], ...]


def pytorch(deployed: Deployed, dtype: torch.dtype = torch.float32) -> Engine:
    """Return eager PyTorch on the CPU as an engine.

    Args:
        deployed: as trained; a copy is made.
        dtype: float32, or float64 for what the numbers are without rounding.
    """
    network = copy.deepcopy(deployed).to("cpu", dtype).eval()

    @torch.inference_mode()
    def run(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        probability, logits = network(torch.from_numpy(frames))
        return probability.double().numpy(), logits.double().numpy()

    return run


def answers(engine: Engine, batches: Iterable[Frames]) -> Answers:
    """Run an engine on every frame."""
    names: list[str] = []
    real: list[bool] = []
    probabilities, logits = [], []
    for name, frames, is_real in batches:
        probability, pair = engine(frames)
        probabilities.append(np.asarray(probability, np.float64))
        logits.append(np.asarray(pair, np.float64))
        names += [name if len(frames) == 1 else f"{name}, number {i + 1}" for i in range(len(frames))]
        real += [is_real] * len(frames)
    return Answers(tuple(names), np.array(real, bool), np.concatenate(probabilities), np.concatenate(logits))


def difference(candidate: Answers, reference: Answers, card: ModelCard) -> Difference:
    """Compare the outputs of one engine with those of another."""
    probability = np.abs(candidate.probability - reference.probability)
    logits = logit_errors(candidate.logits, reference.logits)
    of_spread = float(logits.max() / reference.spread) if reference.spread > 0 else None
    thresholds = {
        "real below": card.decision.real_below,
        "ai from": card.decision.ai_from,
        **{f"{point.false_positive_rate:.0%} false positives": point.threshold for point in card.operating_points},
    }
    flips = {
        name: int(((candidate.probability >= t) != (reference.probability >= t))[candidate.real].sum())
        for name, t in thresholds.items()
    }
    flips["verdict"] = changed_verdicts(candidate, reference, card)
    worst = np.argsort(-logits, kind="stable")[:_WORST]
    return Difference(
        _figures(probability),
        {**_figures(logits), "max of spread": of_spread},
        flips,
        tuple((candidate.names[i], float(logits[i])) for i in worst),
    )


def onnxruntime(detector: Detector) -> Engine:
    """Return an exported file, as the runtime runs it, as an engine."""

    def run(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        scores = detector(frames)
        return scores.probability.astype(np.float64), scores.logits.astype(np.float64)

    return run


def changed_verdicts(candidate: Answers, reference: Answers, card: ModelCard) -> int:
    """Count real frames whose verdict differs."""
    pairs = zip(candidate.probability[candidate.real], reference.probability[candidate.real], strict=True)
    return sum(card.decision.verdict(float(a)) != card.decision.verdict(float(b)) for a, b in pairs)


def logit_errors(one: NDArray[np.float64], other: NDArray[np.float64]) -> NDArray[np.float64]:
    """Largest difference of a logit, per frame."""
    return np.abs(one - other).max(axis=-1)  # type: ignore[no-any-return]


def logit_scale(reference: Answers) -> float:
    """Return the largest logit, or 1 if all are smaller: differences are relative to it."""
    return max(float(np.abs(reference.logits).max()), 1.0)


def _figures(error: NDArray[np.float64]) -> dict[str, float | None]:
    return {"max": float(error.max()), "p99.9": float(np.quantile(error, 0.999)), "mean": float(error.mean())}
