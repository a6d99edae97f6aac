"""Figures of a binary detector: label 1 (AI-generated) is positive."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error

from asr_runtime.contract import Decision, OperatingPoint
from asr_train.figures.bootstrap import bootstrap_intervals, concordance

__all__ = [
    "CONTENT_BINS",
    "FALSE_POSITIVE_RATES",
    "balanced_calibration_error",
    "binary_metrics",
    "calibration_error",
    "content_adjusted_auroc",
    "content_strata",
    "metrics_by_source",
    "reliability",
    "threshold_at",
    "verdict_metrics",
]

FALSE_POSITIVE_RATES = (0.01, 0.05)
CONTENT_BINS = 8
_ECE_BINS = 15


def threshold_at(real_scores: NDArray[np.floating[Any]], rate: float) -> float:
    """Lowest threshold with at most `rate` of `real_scores` at or above it.

    With n scores at most floor(rate * n) may be false positives; the threshold lies just above the next one.
    """
    ordered = np.sort(real_scores.astype(np.float64))[::-1]
    allowed = int(rate * len(ordered) + 1e-9)
    if allowed >= len(ordered):
        return float(ordered[-1])
    return float(np.nextafter(ordered[allowed], np.inf))


def content_strata(content: NDArray[np.floating[Any]], bins: int = CONTENT_BINS) -> NDArray[np.int_]:
    """Return which quantile bin (n,) of the content-only score each image is in; equal scores share a bin."""
    edges = np.quantile(content, np.linspace(0, 1, bins + 1)[1:-1])
    return np.searchsorted(edges, content, side="right")


def content_adjusted_auroc(
    labels: NDArray[np.int_],
    scores: NDArray[np.floating[Any]],
    content: NDArray[np.floating[Any]],
    bins: int = CONTENT_BINS,
) -> float | None:
    """AUROC with subject matter held constant: only images that a content-only classifier rates alike are compared.

    Images are put into `bins` quantile bins of the content-only score; within each the (real, ai) pairs in the right
    order are counted, ties half, and the counts pooled. So a detector that only repeats the probe comes out near 0.5,
    and one that sees traces whatever the content keeps its AUROC.

    Limits. Bins are coarse, so a little content is left within them: read the figure beside the probe's own (the
    content-only score against itself), which is what content still earns. Content that the probe does not see is not
    controlled for. Content and traces that cannot be separated in the data (a generator that makes one subject only)
    leave few pairs, and a wide interval.

    Args:
        labels: (n,), 0 = real, 1 = AI-generated.
        scores: (n,), higher means AI-generated.
        content: (n,), of a `ContentProbe` fitted on the training data of the detector.
        bins: quantile bins, from all n images.

    Returns:
        In [0, 1]; None where no bin holds both classes.
    """
    value = float(concordance(labels, scores, content_strata(content, bins))[0])
    return None if np.isnan(value) else value


def binary_metrics(
    labels: NDArray[np.int_],
    probability: NDArray[np.floating[Any]],
    content: NDArray[np.floating[Any]] | None = None,
) -> dict[str, Any]:
    """All figures of one set of images.

    Args:
        labels: (n,), 0 or 1.
        probability: (n,), in [0, 1]; the verdict for accuracy, precision, recall, F1 and the confusion matrix is
            ai from 0.5 on.
        content: (n,), content-only scores for `ca_auroc`; None leaves it out (None).

    Returns:
        Plain JSON data. Figures that need both classes (AUROC, AP, TPR at a false-positive rate) are None when one
        is missing. `interval` holds the 95% bootstrap interval [low, high] of those that have one.
    """
    predicted = (probability >= 0.5).astype(int)
    matrix = sk.confusion_matrix(labels, predicted, labels=[0, 1])
    both = 0 < labels.sum() < len(labels)
    real, fake = probability[labels == 0], probability[labels == 1]
    ece = binary_calibration_error(
        torch.from_numpy(probability.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)), n_bins=_ECE_BINS
    )
    figures: dict[str, Any] = {
        "images": len(labels),
        "real": len(real),
        "ai": len(fake),
        "accuracy": float(sk.accuracy_score(labels, predicted)),
        "precision": float(sk.precision_score(labels, predicted, zero_division=0.0)),
        "recall": float(sk.recall_score(labels, predicted, zero_division=0.0)),
        "f1": float(sk.f1_score(labels, predicted, zero_division=0.0)),
        "ca_auroc": content_adjusted_auroc(labels, probability, content) if content is not None else None,
        "auroc": float(sk.roc_auc_score(labels, probability)) if both else None,
        "ap": float(sk.average_precision_score(labels, probability)) if both else None,
        "ece": float(ece),
        "balanced_ece": balanced_calibration_error(labels, probability) if both else None,
        "confusion_matrix": matrix.tolist(),
    }
    for rate in FALSE_POSITIVE_RATES:
        key = f"tpr_at_fpr_{rate * 100:g}%"
        figures[key] = float((fake >= threshold_at(real, rate)).mean()) if both else None
    strata = content_strata(content) if content is not None else None
    figures["interval"] = bootstrap_intervals(labels, probability, strata, FALSE_POSITIVE_RATES, _ECE_BINS, figures)
    return figures


def balanced_calibration_error(labels: NDArray[np.int_], probability: NDArray[np.floating[Any]]) -> float:
    """Expected calibration error as it would be with as many generated images as photos.

    Calibration assumes both classes alike (`asr_train.figures.calibrate`); on a set of 358 photos and 10 generated
    images even a perfect one has a large plain ECE.

    Args:
        labels: (n,), both 0 and 1 occur.
        probability: (n,), in [0, 1].

    Returns:
        In [0, 1]: over 15 bins of equal width, share of the bin times |share of generated images - mean probability|.
    """
    return calibration_error(reliability(labels, probability))


def reliability(labels: NDArray[np.int_], probability: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Count images per bin of probability; tables of several sets of images can be added.

    Returns:
        float64 (2, 2, 15): for photos and generated images, how many lie in each bin, and their probabilities' sum.
    """
    bins = np.minimum((probability * _ECE_BINS).astype(int), _ECE_BINS - 1)
    table = np.zeros((2, 2, _ECE_BINS))
    for label in (0, 1):
        own = labels == label
        table[label, 0] = np.bincount(bins[own], minlength=_ECE_BINS)
        table[label, 1] = np.bincount(bins[own], probability[own], minlength=_ECE_BINS)
    return table


def calibration_error(table: NDArray[np.float64]) -> float:
    """Return the balanced calibration error of a table that `reliability` made; both classes occur in it."""
    share = table / (2 * table[:, 0].sum(axis=1)[:, None, None])  # both classes weigh the same
    return float(np.abs(share[1, 0] - share[:, 1].sum(axis=0)).sum())


def metrics_by_source(
    labels: NDArray[np.int_],
    probability: NDArray[np.floating[Any]],
    sources: Sequence[str],
    content: NDArray[np.floating[Any]] | None = None,
) -> dict[str, dict[str, Any]]:
    """Figures of each generator against its own photos where it has them, else against all photos.

    For a source with photos only, the figures say how many photos pass as real (`accuracy`, `mean_probability`).

    Args:
        labels: (n,), 0 or 1.
        probability: (n,), in [0, 1].
        sources: n names.
        content: (n,), content-only scores; with them every generator has `ca_auroc` (bins of the images compared)
            and `content_auroc`, what the content-only probe reaches on the same images.

    Returns:
        Generators first, worst content-adjusted AUROC (without it: AUROC) first; then photos, worst accuracy first.
    """
    names = np.asarray(sources)
    generators: dict[str, dict[str, Any]] = {}
    photos: dict[str, dict[str, Any]] = {}
    for name in sorted(set(sources)):
        own = names == name
        has_ai, has_real = bool((labels[own] == 1).any()), bool((labels[own] == 0).any())
        if not has_ai:
            figures = binary_metrics(labels[own], probability[own])
            photos[name] = {"images": int(own.sum()), "against": None, "accuracy": figures["accuracy"]}
            photos[name]["mean_probability"] = float(probability[own].mean())
            photos[name]["interval"] = {"accuracy": figures["interval"]["accuracy"]}
            continue
        chosen = own if has_real else own | (labels == 0)
        against = "own photos" if has_real else "all photos"
        content_scores = content[chosen] if content is not None else None
        figures = binary_metrics(labels[chosen], probability[chosen], content_scores)
        both = figures["auroc"] is not None and content_scores is not None
        content_auroc = float(sk.roc_auc_score(labels[chosen], content_scores)) if both else None
        generators[name] = {"against": against, **figures, "content_auroc": content_auroc}
    ordered = sorted(generators.items(), key=lambda item: _worst(item[1]))
    return dict(ordered) | dict(sorted(photos.items(), key=lambda item: float(item[1]["accuracy"])))


def verdict_metrics(
    labels: NDArray[np.int_],
    probability: NDArray[np.floating[Any]],
    sources: Sequence[str],
    decision: Decision,
    points: Sequence[OperatingPoint],
) -> dict[str, Any]:
    """Verdicts of a model: how often it is unsure, how often wrong otherwise, and whether its thresholds hold.

    Args:
        labels: (n,), 0 or 1.
        probability: (n,), calibrated.
        sources: n names.
        decision: the model's unsure band.
        points: the model's thresholds with the false-positive rates they promised.

    Returns:
        Plain JSON data: `unsure` (share), `unsure_real`, `unsure_ai`, `error` (share of wrong verdicts among those
        that are not unsure; None if all are), and per operating point the false-positive rate measured on all photos
        and on each photo source (`found_by_source`, highest first), and the share of generated images detected.
    """
    names = np.asarray(sources)
    verdicts = np.array([decision.verdict(float(p)) for p in probability])
    unsure = verdicts == "unsure"
    wrong = np.where(labels == 1, verdicts == "real", verdicts == "ai")
    thresholds = []
    for point in points:
        above = probability >= point.threshold
        by_source = {
            str(name): _share(above, (labels == 0) & (names == name)) for name in np.unique(names[labels == 0])
        }
        thresholds.append(
            {
                "false_positive_rate": point.false_positive_rate,
                "threshold": point.threshold,
                "found": _share(above, labels == 0),
                "found_by_source": dict(sorted(by_source.items(), key=lambda item: -(item[1] or 0.0))),
                "true_positive_rate": _share(above, labels == 1),
            }
        )
    return {
        "rule": decision.rule,
        "real_below": decision.real_below,
        "ai_from": decision.ai_from,
        "unsure": float(unsure.mean()),
        "unsure_real": _share(unsure, labels == 0),
        "unsure_ai": _share(unsure, labels == 1),
        "error": _share(wrong, ~unsure),
        "operating_points": thresholds,
    }


def _share(which: NDArray[np.bool_], among: NDArray[np.bool_]) -> float | None:
    return float(which[among].mean()) if among.any() else None


def _worst(figures: Mapping[str, Any]) -> float:
    return float(next((figures[key] for key in ("ca_auroc", "auroc") if figures[key] is not None), 0.0))
