"""Figures of a binary detector: label 1 (AI-generated) is positive."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn import metrics as sk
from torchmetrics.functional.classification import binary_calibration_error

__all__ = ["FALSE_POSITIVE_RATES", "binary_metrics", "metrics_by_source", "threshold_at"]

FALSE_POSITIVE_RATES = (0.01, 0.05)
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


def binary_metrics(labels: NDArray[np.int_], probability: NDArray[np.floating[Any]]) -> dict[str, Any]:
    """All figures of one set of images.

    Args:
        labels: (n,), 0 or 1.
        probability: (n,), in [0, 1]; the verdict for accuracy, precision, recall, F1 and the confusion matrix is
            ai from 0.5 on.

    Returns:
        Plain JSON data. Figures that need both classes (AUROC, AP, TPR at a false-positive rate) are None when one
        is missing.
    """
    predicted = (probability >= 0.5).astype(int)
    matrix = sk.confusion_matrix(labels, predicted, labels=[0, 1])
    both = 0 < labels.sum() < len(labels)
    real, fake = probability[labels == 0], probability[labels == 1]
    ece = binary_calibration_error(
        torch.from_numpy(probability.astype(np.float32)), torch.from_numpy(labels.astype(np.int64)), n_bins=_ECE_BINS
    )
    found: dict[str, Any] = {
        "images": len(labels),
        "real": len(real),
        "ai": len(fake),
        "accuracy": float(sk.accuracy_score(labels, predicted)),
        "precision": float(sk.precision_score(labels, predicted, zero_division=0.0)),
        "recall": float(sk.recall_score(labels, predicted, zero_division=0.0)),
        "f1": float(sk.f1_score(labels, predicted, zero_division=0.0)),
        "auroc": float(sk.roc_auc_score(labels, probability)) if both else None,
        "ap": float(sk.average_precision_score(labels, probability)) if both else None,
        "ece": float(ece),
        "confusion_matrix": matrix.tolist(),
    }
    for rate in FALSE_POSITIVE_RATES:
        key = f"tpr_at_fpr_{rate * 100:g}%"
        found[key] = float((fake >= threshold_at(real, rate)).mean()) if both else None
    return found


def metrics_by_source(
    labels: NDArray[np.int_], probability: NDArray[np.floating[Any]], sources: Sequence[str]
) -> dict[str, dict[str, Any]]:
    """Figures of each generator against its own photos where it has them, else against all photos.

    A source with photos only is reported by how many of them pass as real (`accuracy`, `mean_probability`).
    """
    names = np.asarray(sources)
    found: dict[str, dict[str, Any]] = {}
    for name in sorted(set(sources)):
        own = names == name
        has_ai, has_real = bool((labels[own] == 1).any()), bool((labels[own] == 0).any())
        if not has_ai:
            wrong = float((probability[own] >= 0.5).mean())
            found[name] = {"images": int(own.sum()), "against": None, "accuracy": 1 - wrong}
            found[name]["mean_probability"] = float(probability[own].mean())
            continue
        chosen = own if has_real else own | (labels == 0)
        against = "own photos" if has_real else "all photos"
        found[name] = {"against": against, **binary_metrics(labels[chosen], probability[chosen])}
    return found
