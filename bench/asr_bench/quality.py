"""What an engine's speed costs: AUROC and changed verdicts on labelled images, every engine asked the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from asr_bench.process import EngineProcess
from asr_export.precision_gate import Images, auroc
from asr_runtime import read_image
from asr_runtime.contract import Decision
from asr_runtime.reports.progress import progress_bar

__all__ = ["Quality", "measure_quality"]


@dataclass(frozen=True)
class Quality:
    """What engines say of the same labelled images, each read once.

    Attributes:
        images: how many.
        auroc: engine -> area under its ROC curve.
        changed: engine -> share of images whose verdict is not the first engine's.
    """

    images: int
    auroc: Mapping[str, float]
    changed: Mapping[str, float]


def measure_quality(running: Mapping[str, EngineProcess], images: Images, decision: Decision) -> Quality:
    """Score images with every engine.

    Args:
        running: the engines, the one that the others are compared with first.
        images: labelled, both classes.
        decision: from probability to verdict.
    """
    probabilities_of: dict[str, list[float]] = {name: [] for name in running}
    for path in progress_bar(images.paths, "quality"):
        frames = read_image(path)[None]
        for name, engine in running.items():
            probabilities_of[name].append(float(engine.score(frames)[0]))
    verdicts = {name: [decision.verdict(p) for p in probabilities] for name, probabilities in probabilities_of.items()}
    reference = next(iter(verdicts.values()))
    return Quality(
        len(images.paths),
        {name: auroc(images.labels, np.array(probabilities)) for name, probabilities in probabilities_of.items()},
        {name: float(np.mean([a != b for a, b in zip(v, reference, strict=True)])) for name, v in verdicts.items()},
    )
