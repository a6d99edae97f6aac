"""A linear head in closed form: ridge regression on frozen features, classes and sources balanced.

All that the solution needs are weighted first and second moments per class. They add up over pictures, files and
processes, so features are seen in blocks and never all together. Leaving a source out subtracts its moments, so every
leave-one-source-out model costs one linear solve, and never sees a picture of that source. The moments of a source, or
of several, are computed again when they are left out: of all sources together they would fill gigabytes. The last ones
are kept, because protocols leave the same sources out of many heads, alone or with others.

Shape legend: V views, n pictures, F features.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import linalg

from asr_train.fitting.ranks import ALONE, Ranks

__all__ = ["Array", "Head", "Pictures", "RidgeFit"]

Array = NDArray[np.float64]
_KEPT = 6  # sources, or sets of sources, that are left out together
_DOUBLE = 2048  # features up to which products and solutions are in float64; beyond, float32 halves memory and time
_ROUNDING = 2.0**-9  # of a feature, relative to itself
_ROWS = 4096  # views that are multiplied together


@dataclass(frozen=True)
class Pictures:
    """Training pictures whose features are read in blocks.

    Attributes:
        groups: label (0 or 1) and source of every group of pictures.
        group_of: int (n,), the group of each picture.
        size: features of a picture, F.
        blocks: called with bool (n,), the chosen pictures; yields m of those that this process has and their features,
            float32 (V, m, F), at a time.
    """

    groups: Sequence[tuple[int, str]]
    group_of: NDArray[np.integer]
    size: int
    blocks: Callable[[NDArray[np.bool_]], Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]]

    def of(self, sources: Collection[str], label: int | None = None) -> NDArray[np.bool_]:
        """Return which pictures (n,) are of some sources, and of a label."""
        named = [name in sources and label in (None, kind) for kind, name in self.groups]
        return np.asarray(np.array([*named, False])[self.group_of], bool)

    def part(self, rows: NDArray[np.int_]) -> Pictures:
        """Return the pictures `rows` (m,), in ascending order, alone."""
        place = np.full(len(self.group_of), -1)
        place[rows] = np.arange(len(rows))

        def blocks(chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]:
            wanted = np.zeros(len(place), bool)
            wanted[rows[chosen]] = True
            for own_rows, features in self.blocks(wanted):
                yield place[own_rows], features

        return Pictures(self.groups, self.group_of[rows], self.size, blocks)


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
        """(..., F) -> margins (...,)."""
        return np.asarray(features.astype(np.float64) @ self.weight + self.bias)


@dataclass(frozen=True)
class _Moments:
    weight: float
    first: Array  # (F,)
    second: NDArray[np.floating]  # (F, F)

    def __sub__(self, other: _Moments) -> _Moments:
        return _Moments(self.weight - other.weight, self.first - other.first, self.second - other.second)


class RidgeFit:
    """Fits heads on all sources or on all but some.

    Several processes that have some of the pictures each call the same methods in the same order; sums go over all.

    Args:
        pictures: for training. Within a class a source of m pictures weighs sqrt(m); both classes weigh the same.
        penalty: ridge penalty, relative to each feature's variance.
        differences: float32 (P, F), half of (twin - photo) of content-matched pairs; None for none. Each asks for a
            margin of 1 between the two, and says nothing about where they lie.
        pair_sources: str (P, k), sources that each pair belongs to; the pair is left out with any of them.
        pair_weight: of all pairs together, relative to all pictures together.
        view_weights: float (V,), sum 1: what each view counts; None for all alike.
        ranks: the processes.
    """

    def __init__(
        self,
        pictures: Pictures,
        penalty: float,
        differences: NDArray[np.float32] | None = None,
        pair_sources: NDArray[np.str_] | None = None,
        pair_weight: float = 0.0,
        view_weights: Array | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.pictures, self.penalty, self._ranks = pictures, penalty, ranks
        self.differences, self.pair_sources, self.pair_weight = differences, pair_sources, pair_weight
        self.view_weights = view_weights
        counts = np.bincount(pictures.group_of, minlength=len(pictures.groups))
        self._groups = [group for group, count in zip(pictures.groups, counts, strict=True) if count]
        self._weights = np.maximum(counts, 1)[pictures.group_of] ** -0.5  # (n,), of each picture
        self._dtype: type[np.floating] = np.float64 if pictures.size <= _DOUBLE else np.float32
        # Subtracted everywhere, so that centred moments lose no digits; the solution does not depend on it.
        self._origin: Array = ranks.from_first(self._first_mean)
        self._total = {label: self._moments(self._of_label(label)) for label in (0, 1)}
        self._kept: OrderedDict[tuple[int, frozenset[str]], _Moments] = OrderedDict()
        self._pairs = None if differences is None else _pair_moments(differences)

    def solvable(self, without: Collection[str]) -> bool:
        """Return whether both classes have pictures of sources other than those in `without`."""
        return {k for k, s in self._groups if s not in without} == {0, 1}

    def lone(self, label: int, source: str, without: Collection[str] = ()) -> bool:
        """Return whether a source is the only one of its class, of all sources but those in `without`."""
        return {s for k, s in self._groups if k == label and s not in without} == {source}

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
            own = frozenset(source for part, source in self._groups if part == label and source in without)
            for part in self._kept_parts(label, own):
                left[label] -= self._last_moments(label, part)
        if rows is not None:
            gone = np.zeros(len(self._weights), bool)
            gone[rows] = True
            gone &= ~self.pictures.of(without)
            for label in (0, 1):
                if (chosen := gone & self._of_label(label)).any():
                    left[label] -= self._moments(chosen)
            groups = np.unique(self.pictures.group_of[rows]).tolist()
            without = {*without, *(self.pictures.groups[group][1] for group in groups)}
        if min(m.weight for m in left.values()) < 1e-9:
            raise ValueError("one class has no pictures left")
        return self._ranks.from_first(lambda: self._solved(left, without))

    def _solved(self, left: dict[int, _Moments], without: Collection[str]) -> Head:
        # Class-balanced weighted moments; targets -1 and +1.
        mean = (left[0].first / left[0].weight + left[1].first / left[1].weight) / 2
        moments = left[0].second * (0.5 / left[0].weight)
        moments += left[1].second * (0.5 / left[1].weight)
        squares = np.diag(moments) + 2 * mean * self._origin + self._origin**2
        moments -= np.outer(mean, mean)
        towards_ai = (left[1].first / left[1].weight - left[0].first / left[0].weight) / 2
        if (pairs := self._pairs_without(without)) is not None:
            share = self.pair_weight / pairs.weight
            towards_ai = towards_ai + share * pairs.first
            moments += share * pairs.second
        covariance = moments.astype(self._dtype, copy=False)
        variance = np.maximum(np.diag(covariance), 1e-12)
        # A feature that varies no more than it is rounded (in bfloat16 by 2^-9 of itself) would get a weight that
        # makes every engine's rounding visible.
        least = 1e-12 + _ROUNDING**2 * squares
        covariance[np.diag_indices_from(covariance)] += self.penalty * variance + least
        factor = linalg.cho_factor(covariance.T, overwrite_a=True, check_finite=False)  # symmetric, so .T is itself
        weight = np.asarray(linalg.cho_solve(factor, towards_ai.astype(self._dtype), check_finite=False), np.float64)
        return Head(weight, float(-(mean + self._origin) @ weight))

    def subset(self, rows: NDArray[np.int_]) -> RidgeFit:
        """Return the fit of some of the pictures, in ascending order, without pairs."""
        return RidgeFit(self.pictures.part(rows), self.penalty, view_weights=self.view_weights, ranks=self._ranks)

    def _pairs_without(self, without: Collection[str]) -> _Moments | None:
        if self._pairs is None or self.differences is None or self.pair_sources is None:
            return self._pairs
        gone = np.isin(self.pair_sources, sorted(without)).any(axis=1)
        if not gone.any():
            return self._pairs
        return None if gone.all() else self._pairs - _pair_moments(self.differences[gone])

    def _of_label(self, label: int) -> NDArray[np.bool_]:
        return self.pictures.of({source for kind, source in self.pictures.groups if kind == label}, label)

    def _first_mean(self) -> Array:
        """Return the mean of the first pictures."""
        for _, features in self.pictures.blocks(np.ones(len(self._weights), bool)):
            return np.asarray(features.mean(axis=(0, 1), dtype=np.float64))
        return np.zeros(self.pictures.size)

    def _kept_parts(self, label: int, sources: frozenset[str]) -> list[frozenset[str]]:
        """Part sources of a class into sets whose moments are kept, the largest first, and the rest."""
        parts = []
        kept = sorted((names for kind, names in self._kept if kind == label), key=len, reverse=True)
        for names in kept:
            if names <= sources:
                parts.append(names)
                sources -= names
        return [*parts, sources] if sources else parts

    def _last_moments(self, label: int, sources: frozenset[str]) -> _Moments:
        """Return the moments of sources of a class; the last ones are kept."""
        if (label, sources) not in self._kept:
            moments = self._moments(self.pictures.of(sources, label))
            second = moments.second.astype(self._dtype, copy=False)
            self._kept[label, sources] = _Moments(moments.weight, moments.first, second)
        self._kept.move_to_end((label, sources))
        if len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return self._kept[label, sources]

    def _moments(self, chosen: NDArray[np.bool_]) -> _Moments:
        """Return the moments of pictures (n,) of one class; of a source of m pictures each weighs 1 / sqrt(m)."""
        first, second = np.zeros(self.pictures.size), np.zeros((self.pictures.size, self.pictures.size))
        waiting: list[NDArray[np.floating]] = []
        for rows, features in self.pictures.blocks(chosen):
            views = np.full(len(features), 1 / len(features)) if self.view_weights is None else self.view_weights
            root = np.sqrt(views[:, None] * self._weights[rows])[..., None]  # (V, m, 1)
            x = ((features - self._origin) * root).astype(self._dtype)  # (V, m, F)
            first += (x * root).sum(axis=(0, 1), dtype=np.float64)
            waiting.append(x.reshape(-1, x.shape[2]))
            if sum(map(len, waiting)) >= _ROWS:
                second += _squared(waiting)
        if waiting:
            second += _squared(waiting)
        sums = [self._ranks.total(torch.from_numpy(part)).numpy() for part in (first, second)]
        return _Moments(float(self._weights[chosen].sum()), *sums)


def _squared(waiting: list[NDArray[np.floating]]) -> NDArray[np.floating]:
    """Return the product of all rows that wait, (rows, F) -> (F, F); one product, because many small ones are slow."""
    x = np.concatenate(waiting)
    waiting.clear()
    return np.asarray(x.T @ x)


def _pair_moments(differences: NDArray[np.float32]) -> _Moments:
    d = differences.astype(np.float64)
    return _Moments(float(len(d)), d.sum(axis=0), d.T @ d)
