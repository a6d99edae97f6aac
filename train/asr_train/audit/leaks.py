"""How well facts about the files predict the label, each alone and all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import StratifiedKFold

from asr_train.audit.file_facts import FileFacts

__all__ = [
    "ATTRIBUTES",
    "Attribute",
    "Folds",
    "auroc_interval",
    "cross_validation_folds",
    "difference",
    "file_scores",
    "measured",
    "table_of",
]

_FOLDS = 5
_CATEGORIES = 100  # most frequent values; the others count as one
_SMALLEST_LEAF = 5

Folds = list[tuple[NDArray[np.int_], NDArray[np.int_]]]
"""Pairs of indices: fitted on the first, measured on the second."""


@dataclass(frozen=True)
class Attribute:
    """One thing that files say of themselves.

    Attributes:
        name: for people.
        value: of one file: a text (category), a number, or None where the file has no such thing.
        jpeg_only: measured among JPEG files; elsewhere it would only repeat the container.
    """

    name: str
    value: Callable[[FileFacts], str | float | None]
    jpeg_only: bool = False


ATTRIBUTES = (
    Attribute("container", lambda f: f.container),
    Attribute("width", lambda f: float(f.width)),
    Attribute("height", lambda f: float(f.height)),
    Attribute("aspect", lambda f: f.width / f.height),
    Attribute("sides that are multiples of 8", lambda f: _sides(f, 8)),
    Attribute("sides that are multiples of 64", lambda f: _sides(f, 64)),
    Attribute("JPEG quality", lambda f: f.quality, jpeg_only=True),
    Attribute("JPEG tables", lambda f: f.tables, jpeg_only=True),
    Attribute("JPEG chroma", lambda f: f.subsampling, jpeg_only=True),
    Attribute("JPEG progressive", lambda f: _yes(f.progressive), jpeg_only=True),
    Attribute("EXIF", lambda f: _yes(f.exif)),
    Attribute("colour profile", lambda f: _yes(f.icc)),
    Attribute("text inside", lambda f: _yes(f.text)),
    Attribute("samples", lambda f: f"{f.mode} {f.bit_depth} bit"),
    Attribute("alpha", lambda f: _yes(f.alpha)),
)


def table_of(facts: Sequence[FileFacts], attributes: Sequence[Attribute]) -> NDArray[np.float64]:
    """Return one row per file: a column for a number, NaN where there is none, and one for every common category.

    Categories are columns of 0 and 1, since the trees of scikit-learn pass over a category of fewer than ten files.
    """
    columns: list[list[float]] = []
    for attribute in attributes:
        values = [attribute.value(fact) for fact in facts]
        common = [value for value, _ in Counter(v for v in values if isinstance(v, str)).most_common(_CATEGORIES)]
        columns += [[float(v == category) for v in values] for category in common]
        if not common:
            columns.append([np.nan if v is None else float(v) for v in values])
    return np.array(columns, dtype=np.float64).T


def file_scores(
    facts: Sequence[FileFacts], labels: NDArray[np.int_], folds: Folds, attributes: Sequence[Attribute] = ATTRIBUTES
) -> NDArray[np.float64]:
    """Return the probability of AI-generated (n,) that boosted trees give from the attributes alone.

    Args:
        facts: of n files.
        labels: (n,).
        folds: what is fitted and what is measured; files that are in no second part are NaN.
        attributes: what the trees see.
    """
    table = np.nan_to_num(table_of(facts, attributes), nan=-1.0)  # "has none" is a value like any other
    scores = np.full(len(labels), np.nan)
    for fit, test in folds:
        varies = (table[fit] != table[fit][:1]).any(0)
        if not varies.any():
            scores[test] = 0.5
            continue
        trees = HistGradientBoostingClassifier(
            max_iter=60,
            min_samples_leaf=min(_SMALLEST_LEAF, max(1, int(np.bincount(labels[fit]).min()) // 4)),
            class_weight="balanced",
            early_stopping=False,
            random_state=0,
        )
        trees.fit(table[fit][:, varies], labels[fit])
        scores[test] = trees.predict_proba(table[test][:, varies])[:, 1]
    return scores


def measured(labels: NDArray[np.int_], scores: NDArray[np.float64]) -> dict[str, Any] | None:
    """Return `auroc`, its `interval` and the number of `images` measured (NaN: not measured); None if one class."""
    there = ~np.isnan(scores)
    if len(set(labels[there].tolist())) < 2:
        return None
    auroc = float(roc_auc_score(labels[there], scores[there]))
    real, ai = np.bincount(labels[there], minlength=2).tolist()
    return {"auroc": auroc, "interval": list(auroc_interval(auroc, real, ai)), "images": real + ai}


def auroc_interval(auroc: float, real: int, ai: int) -> tuple[float, float]:
    """Return the 95% interval of an AUROC of so many images of each class, which is wide where there are few.

    All values are in it that lie within 1.96 of their own standard errors of the measured one (Newcombe 2006, method
    5), so that a few images in perfect order are no proof. The bootstrap would give [1, 1].
    """
    others = (real + ai) / 2 - 1

    def excess(value: float) -> float:
        variance = value * (1 - value) / (real * ai)
        variance *= 1 + others * (1 - value) / (2 - value) + others * value / (1 + value)
        return abs(auroc - value) - 1.96 * float(np.sqrt(variance))

    low = 0.0 if excess(0.0) <= 0 else brentq(excess, 0.0, auroc - 1e-12)
    high = 1.0 if excess(1.0) <= 0 else brentq(excess, auroc + 1e-12, 1.0)
    return float(low), float(high)


def cross_validation_folds(splits: NDArray[np.str_], labels: NDArray[np.int_]) -> tuple[Folds, str]:
    """Fit on the training split, measure on the validation split; cross-validate all images where one is too small.

    Returns:
        The folds, none if there are too few images; and how they came about, for people.
    """
    counts = {name: np.bincount(labels[splits == name], minlength=2).min() for name in ("train", "val", "test")}
    for judged in ("val", "test"):
        if min(counts["train"], counts[judged]) >= _FOLDS:
            fold = np.flatnonzero(splits == "train"), np.flatnonzero(splits == judged)
            return [fold], f"fitted on train, measured on {judged}"
    if np.bincount(labels, minlength=2).min() < _FOLDS:
        return [], "too few images to measure"
    names = " and ".join(name for name in counts if (splits == name).any())
    parts = StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(labels, labels)
    return [(fit, test) for fit, test in parts], f"{_FOLDS}-fold cross-validation on {names}"


def difference(values: Sequence[str | float | None], labels: NDArray[np.int_]) -> str:
    """Say how the classes differ: the category whose share differs most, or the middle of the numbers."""
    by_class = [[v for v, label in zip(values, labels, strict=True) if label == k] for k in (0, 1)]
    if any(isinstance(v, str) for v in values):
        shares = [{v: n / len(own) for v, n in Counter(own).items()} for own in by_class]
        odd = max(
            sorted(set(values), key=str, reverse=True), key=lambda v: abs(shares[0].get(v, 0) - shares[1].get(v, 0))
        )
        return f"{odd}: {shares[0].get(odd, 0):.0%} of real files, {shares[1].get(odd, 0):.0%} of AI-generated"
    spread = [np.percentile([v for v in own if v is not None], [10, 50, 90]) for own in by_class]
    texts = [f"{_short(middle)} ({_short(low)} to {_short(high)})" for low, middle, high in spread]
    return f"median and middle 80%: real {texts[0]}, AI-generated {texts[1]}"


def _short(value: float) -> str:
    return f"{value:.3g}" if value < 10 else f"{value:.0f}"


def _sides(fact: FileFacts, step: int) -> str:
    return ("none", "one", "both")[(fact.width % step == 0) + (fact.height % step == 0)]


def _yes(value: bool) -> str:
    return "yes" if value else "no"
