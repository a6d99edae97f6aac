"""A linear head in closed form: ridge regression on frozen features, classes and sources balanced.

All that the solution needs are weighted first and second moments per class. Leaving a source out subtracts its moments,
so every leave-one-source-out model costs one linear solve, and never sees a picture of that source. The moments of a
source, or of several, are computed again when they are left out: of all sources together they would fill gigabytes. The
last ones are kept, because protocols leave the same families out of many heads.

Shape legend: V views, n pictures, F features.
"""

from __future__ import annotations

import weakref
from collections.abc import Collection
from dataclasses import dataclass
from functools import lru_cache, partial

import numpy as np
from numpy.typing import NDArray
from scipy import linalg

__all__ = ["Array", "Head", "RidgeFit"]

Array = NDArray[np.float64]
_KEPT = 16  # sources, or sets of sources, that are left out together
_DOUBLE = 2048  # features up to which second moments are in float64; beyond, float32 halves memory and time


@dataclass(frozen=True)
class Head:
    """margin = features @ weight + bias; above 0 is ai.

    Attributes:
        weight: float64 (F,).
        bias: added.
    """

    weight: Array
    bias: float

    def __call__(self, features: NDArray[np.floating]) -> Array:
        """(n, F) -> margins (n,)."""
        return np.asarray(features.astype(np.float64) @ self.weight + self.bias)


@dataclass(frozen=True)
class _Moments:
    weight: float
    first: Array  # (F,)
    second: NDArray[np.floating]  # (F, F)

    def __add__(self, other: _Moments) -> _Moments:
        return _Moments(self.weight + other.weight, self.first + other.first, self.second + other.second)

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(self.weight - other.weight, self.first - other.first, self.second - other.second)


class RidgeFit:
    """Fits heads on all sources or on all but some.

    Args:
        features: float32 (V, n, F).
        labels: int (n,), 0 or 1.
        sources: (n,) names. Within a class a source of m pictures weighs sqrt(m); both classes weigh the same.
        penalty: ridge penalty, relative to each feature's variance.
        differences: float32 (P, F), half of (twin - photo) of content-matched pairs; None for none. Each asks for a
            margin of 1 between the two, and says nothing about where they lie.
        pair_sources: str (P, k), sources that each pair belongs to; the pair is left out with any of them.
        pair_weight: of all pairs together, relative to all pictures together.
        view_weights: float (V,), sum 1: what each view counts; None for all alike.
    """

    def __init__(
        self,
        features: NDArray[np.float32],
        labels: NDArray[np.int_],
        sources: NDArray[np.str_],
        penalty: float,
        differences: NDArray[np.float32] | None = None,
        pair_sources: NDArray[np.str_] | None = None,
        pair_weight: float = 0.0,
        view_weights: Array | None = None,
    ) -> None:
        self.features, self.labels, self.sources, self.penalty = features, labels, sources, penalty
        self.differences, self.pair_sources, self.pair_weight = differences, pair_sources, pair_weight
        self.view_weights = np.full(len(features), 1 / len(features)) if view_weights is None else view_weights
        # Subtracted everywhere, so that centred moments lose no digits; the solution does not depend on it.
        self._origin: Array = features[0].mean(axis=0, dtype=np.float64)
        size = features.shape[2]
        self._dtype: type[np.floating] = np.float64 if size <= _DOUBLE else np.float32
        self._total = {label: _Moments(0.0, np.zeros(size), np.zeros((size, size), self._dtype)) for label in (0, 1)}
        self._parts = sorted({(int(k), str(s)) for k, s in zip(labels, sources, strict=True)})
        self._weights = np.zeros(len(labels))  # (n,), of each picture
        for label, source in self._parts:
            own = (labels == label) & (sources == source)
            self._weights[own] = own.sum() ** -0.5
            self._total[label] += self._moments(own)
        # A cycle through the cache would keep this object's gigabyte until the garbage collector runs.
        self._last_moments = lru_cache(_KEPT)(partial(RidgeFit._moments_of, weakref.proxy(self)))
        self._pairs = None if differences is None else _pair_moments(differences)

    def solvable(self, without: Collection[str]) -> bool:
        """Return whether both classes have pictures of sources other than those in `without`."""
        return {k for k, s in self._parts if s not in without} == {0, 1}

    def lone(self, label: int, source: str, without: Collection[str] = ()) -> bool:
        """Return whether a source is the only one of its class, of all sources but those in `without`."""
        return {s for k, s in self._parts if k == label and s not in without} == {source}

    def head(self, without: Collection[str] = (), rows: NDArray[np.int_] | None = None) -> Head:
        """Solve for the head of all sources but those in `without`.

        Args:
            without: sources that are left out.
            rows: pictures of other sources that are left out as well, and with them all pairs of those sources.

        Raises:
            ValueError: nothing of one class is left.
        """
        left = dict(self._total)
        for label in (0, 1):
            if own := frozenset(source for part, source in self._parts if part == label and source in without):
                left[label] -= self._last_moments(label, own)
        if rows is not None:
            gone = np.zeros(len(self.labels), bool)
            gone[rows] = True
            gone &= ~np.isin(self.sources, list(without))
            for label in (0, 1):
                if (gone & (self.labels == label)).any():
                    left[label] -= self._moments(gone & (self.labels == label))
            without = {*without, *self.sources[rows].tolist()}
        if min(m.weight for m in left.values()) < 1e-9:
            raise ValueError("one class has no pictures left")
        # Class-balanced weighted moments; targets -1 and +1.
        mean = (left[0].first / left[0].weight + left[1].first / left[1].weight) / 2
        covariance = left[0].second * self._dtype(0.5 / left[0].weight)
        covariance += left[1].second * self._dtype(0.5 / left[1].weight)
        squares = np.diag(covariance).copy()
        covariance -= np.outer(mean.astype(self._dtype), mean.astype(self._dtype))
        towards_ai = (left[1].first / left[1].weight - left[0].first / left[0].weight) / 2
        if (pairs := self._pairs_without(without)) is not None:
            share = self.pair_weight / pairs.weight
            towards_ai = towards_ai + share * pairs.first
            covariance += (share * pairs.second).astype(self._dtype)
        variance = np.maximum(np.diag(covariance), 1e-12)
        # Of a feature that hardly varies rounding leaves anything: no less than what rounding is of its square.
        least = 1e-12 + 10 * np.finfo(self._dtype).eps * squares
        covariance[np.diag_indices_from(covariance)] += self.penalty * variance + least
        factor = linalg.cho_factor(covariance.T, overwrite_a=True, check_finite=False)  # symmetric, so .T is itself
        weight = np.asarray(linalg.cho_solve(factor, towards_ai.astype(self._dtype), check_finite=False), np.float64)
        return Head(weight, float(-(mean + self._origin) @ weight))

    def subset(self, rows: NDArray[np.int_]) -> RidgeFit:
        """Return the fit of some of the pictures, without pairs."""
        chosen = self.features[:, rows], self.labels[rows], self.sources[rows]
        return RidgeFit(*chosen, self.penalty, view_weights=self.view_weights)

    def _pairs_without(self, without: Collection[str]) -> _Moments | None:
        if self._pairs is None or self.differences is None or self.pair_sources is None:
            return self._pairs
        gone = np.isin(self.pair_sources, sorted(without)).any(axis=1)
        if not gone.any():
            return self._pairs
        return None if gone.all() else self._pairs - _pair_moments(self.differences[gone])

    def _moments_of(self, label: int, sources: frozenset[str]) -> _Moments:
        return self._moments((self.labels == label) & np.isin(self.sources, list(sources)))

    def _moments(self, chosen: NDArray[np.bool_]) -> _Moments:
        """Return the moments of pictures (n,) of one class; of a source of m pictures each weighs 1 / sqrt(m)."""
        weights = self._weights[chosen]
        root = np.sqrt(self.view_weights[:, None] * weights)[..., None]  # (V, m, 1)
        x: NDArray[np.floating] = ((self.features[:, chosen] - self._origin) * root).astype(self._dtype)  # (V, m, F)
        first = (x * root).sum(axis=(0, 1), dtype=np.float64)
        x = x.reshape(-1, x.shape[2])  # one product over all views: one each takes four times as long
        return _Moments(float(weights.sum()), first, x.T @ x)


def _pair_moments(differences: NDArray[np.float32]) -> _Moments:
    d = differences.astype(np.float64)
    return _Moments(float(len(d)), d.sum(axis=0), d.T @ d)
