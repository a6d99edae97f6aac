"""How far figures fall when pictures are saved again, resized, cropped or filmed: one point per degradation."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Decision
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_train.data.degradations import FAMILIES, Degradation, degradations
from asr_train.data.layouts import Sample
from asr_train.figures.metrics import binary_metrics, threshold_at
from asr_train.figures.scoring import Scored

__all__ = ["FIGURES", "Score", "robustness", "subsample"]

log = logging.getLogger(__name__)

FIGURES = ("ca_auroc", "auroc", "accuracy", "tpr_at_fpr_5%")
"""Figures that are reported for every point, with their intervals."""
_KEPT_RATE = 0.05

Score = Callable[[Sequence[Sample], int | None, Degradation | None], Scored]


def robustness(
    score: Score,
    samples: Sequence[Sample],
    content: Mapping[Path, float] | None = None,
    families: Iterable[str] | None = None,
    per_class: int | None = None,
    quality: int = 90,
    decision: Decision | None = None,
) -> dict[str, Any]:
    """Measure a model under every degradation.

    Both classes are degraded alike, then re-encoded at `quality` like every image of an evaluation, so that the format
    of the file says nothing. Degradations that end in a JPEG are not encoded once more. The content-only scores are
    those of the pictures as they were: a degradation changes traces, not subjects.

    Args:
        score: scores images after a degradation (None: without) and a re-encoding (None: without).
        samples: of both classes.
        content: content-only score of each file, for `ca_auroc`.
        families: of `degradations.FAMILIES`; None takes all.
        per_class: at most so many images of each class, sources in proportion; None takes all.
        quality: JPEG quality of the equal re-encoding.
        decision: the model's rule; None: no verdicts.

    Returns:
        Plain JSON data. `undegraded`: figures; `undegraded_verdicts`: `photos_called_ai`, `generated_called_ai` and
        `generated_called_real`, shares of a class by the decision rule (None without one); `threshold`: that at most 5%
        of the undegraded photos reach; `families`: name -> `title`, `axis`, `points` (mildest first), each with
        `strength`, `figures` (None if no image of a class was left), `difference` to undegraded per figure, `verdicts`
        as above, `kept_threshold`: the rates of photos (`fpr`) and of generated images (`tpr`) that reach `threshold`,
        and how many images were `unreadable`.

    Raises:
        ConfigurationError: no such family, fewer than one image per class.
        DatasetError: one class only.
    """
    chosen = degradations(families)
    samples = samples if per_class is None else subsample(samples, per_class)
    undegraded = score(samples, quality, None)
    if len(set(undegraded.labels.tolist())) < 2:
        raise DatasetError("robustness needs readable images of both classes")
    figures = _figures(undegraded, content)
    threshold = threshold_at(undegraded.probability[undegraded.labels == 0], _KEPT_RATE)
    curves: dict[str, Any] = {}
    for degradation in chosen:
        family = FAMILIES[degradation.family]
        if degradation.family not in curves:
            log.info("robustness: %s", family.title)
            curves[degradation.family] = {"title": family.title, "axis": family.axis, "points": []}
        scored = score(samples, degradation.quality_after(quality), degradation)
        point = {"strength": degradation.strength, **_point(scored, content, figures, threshold, decision)}
        curves[degradation.family]["points"].append(point)
    return {
        "quality": quality,
        "images": len(undegraded.labels),
        "sampled": per_class is not None,
        "undegraded": figures,
        "undegraded_verdicts": _verdicts(undegraded, decision),
        "threshold": threshold,
        "families": curves,
    }


def subsample(samples: Sequence[Sample], per_class: int) -> list[Sample]:
    """Choose at most `per_class` images of each class, each source in proportion, by file name: always the same.

    Raises:
        ConfigurationError: fewer than one.
    """
    if per_class < 1:
        raise ConfigurationError(f"robustness {per_class}: expected at least one image per class")
    groups: dict[tuple[int, str], list[Sample]] = {}
    for sample in sorted(samples, key=lambda s: (hashlib.sha256(s.path.name.encode()).digest(), s.path)):
        groups.setdefault((sample.label, sample.source), []).append(sample)
    chosen: list[Sample] = []
    for label in (0, 1):
        placed = [
            ((place + 0.5) / len(group), source, sample)
            for (own, source), group in groups.items()
            if own == label
            for place, sample in enumerate(group)
        ]
        chosen += [sample for *_, sample in sorted(placed, key=lambda item: item[:2])[:per_class]]
    return chosen


def _figures(scored: Scored, content: Mapping[Path, float] | None) -> dict[str, Any]:
    content_scores = None if content is None else _aligned(scored, content)
    figures = binary_metrics(scored.labels, scored.probability, content_scores)
    interval = {key: ends for key, ends in figures["interval"].items() if key in FIGURES}
    return {**{key: figures[key] for key in FIGURES}, "interval": interval}


def _verdicts(scored: Scored, decision: Decision | None) -> dict[str, float] | None:
    if decision is None:
        return None
    verdicts = np.array([decision.verdict(float(p)) for p in scored.probability])
    photos, generated = verdicts[scored.labels == 0], verdicts[scored.labels == 1]
    return {
        "photos_called_ai": float((photos == "ai").mean()),
        "generated_called_ai": float((generated == "ai").mean()),
        "generated_called_real": float((generated == "real").mean()),
    }


def _aligned(scored: Scored, content: Mapping[Path, float]) -> NDArray[np.float64]:
    return np.array([content[sample.path] for sample in scored.samples])


def _point(
    scored: Scored,
    content: Mapping[Path, float] | None,
    undegraded: Mapping[str, Any],
    threshold: float,
    decision: Decision | None,
) -> dict[str, Any]:
    unreadable = {"unreadable": len(scored.unreadable)}
    if len(set(scored.labels.tolist())) < 2:
        return {"figures": None, "difference": None, "kept_threshold": None, "verdicts": None, **unreadable}
    figures = _figures(scored, content)
    pairs = {key: (figures[key], undegraded[key]) for key in FIGURES}
    reached = scored.probability >= threshold
    return {
        "figures": figures,
        "difference": {k: now - before for k, (now, before) in pairs.items() if None not in (now, before)},
        "kept_threshold": {
            "fpr": float(reached[scored.labels == 0].mean()),
            "tpr": float(reached[scored.labels == 1].mean()),
        },
        "verdicts": _verdicts(scored, decision),
        **unreadable,
    }
