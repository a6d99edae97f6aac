"""Bootstrap intervals of all figures at once.

Images are drawn with replacement within their class, so every resample has as many real and AI-generated images as the
data. A resample is a row of counts: how often each image was drawn. All curves need the counts per distinct score
only, so a thousand resamples are a few cumulative sums.

Shape legend: R resamples, N images, G groups of equal score (within a stratum), highest score first.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["RESAMPLES", "bootstrap_intervals", "concordance", "resampled"]

RESAMPLES = 1000
_COVERAGE = 0.95
_LARGEST_BLOCK = 2_000_000  # counts in memory at a time

Floats = NDArray[np.float64]


def bootstrap_intervals(
    labels: NDArray[np.int_],
    probability: NDArray[np.floating[Any]],
    strata: NDArray[np.int_] | None,
    rates: Sequence[float],
    ece_bins: int,
    point: Mapping[str, Any],
    seed: int = 0,
) -> dict[str, list[float]]:
    """95% percentile intervals, from 1,000 resamples stratified by class.

    ECE grows by resampling (noise adds to every bin); an interval that would lie beside its figure is widened to it.

    Args:
        labels: (N,), 0 or 1.
        probability: (N,), in [0, 1].
        strata: (N,), non-negative; the content bins of `ca_auroc`. They stay as they are in every resample.
        rates: false-positive rates of `tpr_at_fpr_*`.
        ece_bins: equal bins of the calibration error.
        point: the figures themselves, under the same keys; one that is None gets no interval.
        seed: of the drawing.

    Returns:
        key of the figure -> (low, high). Figures that need both classes are missing where one is.
    """
    resampled: dict[str, list[Floats]] = {}
    for counts in _resamples(labels, seed):
        for key, values in _figures(labels, probability.astype(np.float64), strata, rates, ece_bins, counts).items():
            resampled.setdefault(key, []).append(values)
    tail = (1 - _COVERAGE) / 2
    intervals = {}
    for key, blocks in resampled.items():
        value = point.get(key)
        if value is not None:
            low, high = np.nanquantile(np.concatenate(blocks), [tail, 1 - tail]).tolist()
            intervals[key] = [min(low, value), max(high, value)]
    return intervals


def concordance(
    labels: NDArray[np.int_],
    scores: NDArray[np.floating[Any]],
    strata: NDArray[np.int_],
    counts: Floats | None = None,
) -> Floats:
    """Share of (real, ai) pairs of one stratum in the right order, pooled over strata; ties count half.

    Args:
        labels: (N,), 0 or 1.
        scores: (N,), higher means AI-generated.
        strata: (N,); pairs across strata are not compared. One stratum gives the plain AUROC.
        counts: (R, N), how often each image counts; None: once.

    Returns:
        (R,); NaN where no stratum holds both classes.
    """
    counts = np.ones((1, len(labels))) if counts is None else counts
    right = np.zeros(len(counts))
    pairs = np.zeros(len(counts))
    for stratum in np.unique(strata):
        own = strata == stratum
        real, ai = _grouped(labels[own], scores[own], counts[:, own])
        below = real.sum(1, keepdims=True) - real.cumsum(1) + real / 2  # real images with lower scores, ties half
        right += (ai * below).sum(1)
        pairs += real.sum(1) * ai.sum(1)
    with np.errstate(invalid="ignore"):
        return right / pairs


def resampled(groups: NDArray[np.int_], rows: int, rng: np.random.Generator) -> Floats:
    """Draw with replacement within each group: how often each of N things is drawn in each of `rows` resamples.

    Args:
        groups: (N,); every group keeps its size.
        rows: R.
        rng: draws.

    Returns:
        (R, N).
    """
    counts = np.zeros((rows, len(groups)))
    for group in np.unique(groups):
        own = np.flatnonzero(groups == group)
        drawn = rng.integers(0, len(own), (rows, len(own))) + np.arange(rows)[:, None] * len(own)
        counts[:, own] = np.bincount(drawn.ravel(), minlength=rows * len(own)).reshape(rows, len(own))
    return counts


def _figures(
    labels: NDArray[np.int_],
    probability: Floats,
    strata: NDArray[np.int_] | None,
    rates: Sequence[float],
    ece_bins: int,
    counts: Floats,
) -> Mapping[str, Floats]:
    """Compute every figure of every resample, each (R,)."""
    n = len(labels)
    figures = {
        "accuracy": counts @ ((probability >= 0.5) == (labels == 1)) / n,
        "ece": _calibration_error(labels, probability, ece_bins, counts),
    }
    if not 0 < labels.sum() < n:
        return figures
    real, ai = _grouped(labels, probability, counts)
    real_so_far, ai_so_far = real.cumsum(1), ai.cumsum(1)
    reals, ais = real_so_far[:, -1:], ai_so_far[:, -1:]
    figures["auroc"] = (ai * (reals - real_so_far + real / 2)).sum(1) / (reals * ais)[:, 0]
    precision = ai_so_far / np.maximum(real_so_far + ai_so_far, 1)
    figures["ap"] = (ai * precision).sum(1) / ais[:, 0]
    for rate in rates:
        passed = real_so_far <= np.floor(rate * reals + 1e-9)
        figures[f"tpr_at_fpr_{rate * 100:g}%"] = (ai * passed).sum(1) / ais[:, 0]
    if strata is not None:
        figures["ca_auroc"] = concordance(labels, probability, strata, counts)
    return figures


def _grouped(labels: NDArray[np.int_], scores: NDArray[np.floating[Any]], counts: Floats) -> tuple[Floats, Floats]:
    """Count real and AI-generated images per distinct score, highest first: each (R, G)."""
    order = np.argsort(-scores, kind="stable")
    ordered = scores[order]
    starts = np.flatnonzero(np.concatenate([[True], ordered[1:] != ordered[:-1]]))
    is_ai = labels[order] == 1
    drawn = counts[:, order]
    real, ai = (np.add.reduceat(np.where(chosen, drawn, 0.0), starts, axis=1) for chosen in (~is_ai, is_ai))
    return real, ai


def _calibration_error(labels: NDArray[np.int_], probability: Floats, bins: int, counts: Floats) -> Floats:
    """Expected calibration error: |mean probability - share of ai| per bin, weighted by its images."""
    edges = np.linspace(0, 1, bins + 1, dtype=np.float32)
    which = np.digitize(probability.astype(np.float32), edges) - 1  # 1.0 has its own bin, as in torchmetrics
    gap = np.zeros((len(labels), bins + 1))
    gap[np.arange(len(labels)), which] = probability - labels
    return np.asarray(np.abs(counts @ gap).sum(1) / len(labels))


def _resamples(labels: NDArray[np.int_], seed: int) -> Iterator[Floats]:
    """Yield blocks of counts (R, N) that add up to `RESAMPLES` rows."""
    rng = np.random.default_rng(seed)
    n = len(labels)
    block = max(1, _LARGEST_BLOCK // n)
    for start in range(0, RESAMPLES, block):
        rows = min(block, RESAMPLES - start)
        yield resampled(labels, rows, rng)
