"""How well the label can be told from facts of the files alone, one by one and all together."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.model_selection import StratifiedKFold

from asr_train.audit.file_facts import FileFacts
from asr_train.figures.metrics import binary_metrics

__all__ = ["ATTRIBUTES", "Attribute", "Folds", "difference", "file_scores", "folds_of", "measured", "table_of"]

_FOLDS = 5
_CATEGORIES = 100  # most frequent values that are told apart
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
    """Return one row per file, one column per attribute: numbers, or ranks of categories; NaN where there is none."""
    columns = []
    for attribute in attributes:
        values = [attribute.value(fact) for fact in facts]
        common = [value for value, _ in Counter(v for v in values if isinstance(v, str)).most_common(_CATEGORIES)]
        ranks: dict[Any, float] = {value: float(rank) for rank, value in enumerate(common)}
        columns.append([ranks.get(v, np.nan) if isinstance(v, str) else np.nan if v is None else v for v in values])
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
    is_category = np.array([any(isinstance(a.value(fact), str) for fact in facts) for a in attributes])
    scores = np.full(len(labels), np.nan)
    for fit, test in folds:
        varies = (table[fit] != table[fit][:1]).any(0)
        if not varies.any():
            scores[test] = 0.5
            continue
        trees = HistGradientBoostingClassifier(
            max_iter=60,
            min_samples_leaf=_SMALLEST_LEAF,
            categorical_features=is_category[varies],
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
    figures = binary_metrics(labels[there], scores[there])
    return {"auroc": figures["auroc"], "interval": figures["interval"]["auroc"], "images": figures["images"]}


def folds_of(splits: NDArray[np.str_], labels: NDArray[np.int_]) -> tuple[Folds, str]:
    """Fit on the training split, measure on the validation split; where one lacks a class, cross-validate.

    Returns:
        The folds, none if there are too few images; and how they came about, for people.
    """
    by_split = {name: np.flatnonzero(splits == name) for name in ("train", "val", "test")}
    whole = [name for name, own in by_split.items() if min(np.bincount(labels[own], minlength=2)) > 0]
    if "train" in whole and len(whole) > 1:
        return [(by_split["train"], by_split[whole[1]])], f"fitted on train, measured on {whole[1]}"
    if not whole or min(np.bincount(labels[by_split[whole[0]]], minlength=2)) < _FOLDS:
        return [], "too few images to measure"
    own = by_split[whole[0]]
    parts = StratifiedKFold(_FOLDS, shuffle=True, random_state=0).split(own, labels[own])
    return [(own[fit], own[test]) for fit, test in parts], f"{_FOLDS}-fold cross-validation on {whole[0]}"


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
