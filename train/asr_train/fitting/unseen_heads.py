"""Heads that have not seen a picture: solved once for each set of sources, or of pictures, that is left out."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from asr_runtime.contract import CLASSES
from asr_runtime.errors import DatasetError
from asr_train.data.families import Families
from asr_train.data.near_duplicates import near_duplicate_groups
from asr_train.fitting.features import FeatureStore
from asr_train.fitting.ranks import ALONE, Ranks
from asr_train.fitting.ridge import Array, Head, RidgeFit
from asr_train.fitting.unseen import sources_left_out_together

__all__ = ["UnseenHeads"]

_FOLDS = 5  # within a source that is the only one of its class

_Scores = Callable[[Head, NDArray[np.int_]], Array]


class UnseenHeads:
    """Finds, for every training picture, a head that has not seen it.

    The head has not seen the picture's group of sources either: its family of generators or kind of photos, or else its
    source. Only where a source is the only one of a class has the head seen other pictures of it, but no near
    duplicates.

    Args:
        fit: on the training pictures.
        store: their features, and which pictures they are.
        root: of the data folder, for messages.
        families: of the sources; None: each source is a group.
        ranks: the processes that solve together.

    Attributes:
        together: sources that are left out together.
    """

    def __init__(
        self,
        fit: RidgeFit,
        store: FeatureStore,
        root: Path,
        families: Families | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self._fit, self._store, self._root, self._families, self._ranks = fit, store, root, families, ranks
        counts = np.bincount(fit.pictures.group_of)
        self._counts = {group: int(n) for group, n in zip(store.groups, counts, strict=False) if n}
        self.together = sources_left_out_together(self._counts, families)
        self._without_sources: dict[frozenset[str], Head] = {}
        self._without_rows: dict[tuple[frozenset[str], bytes], Head] = {}
        self._parts: dict[tuple[int, str], list[NDArray[np.int_]]] = {}

    def head(self, without: Collection[str] = ()) -> Head:
        """Solve for the head of all training pictures but those of some sources; remembers what it solved."""
        key = frozenset(without)
        if key not in self._without_sources:
            self._without_sources[key] = self._fit.head(key)
        return self._without_sources[key]

    @property
    def lone_sources(self) -> tuple[str, ...]:
        """Sources that are the only one of a class: no head can be solved for without them."""
        names = sorted({source for _, source in self._counts})
        return tuple(name for name in names if any(self._fit.lone(label, name) for label in (0, 1)))

    def what_was_unseen(self) -> str:
        """Say in words what the head of each picture had not seen."""
        if lone := self.lone_sources:
            image = "never saw the image or a near duplicate of it, but other images of its source"
            several = set(lone) != {source for _, source in self._counts}
            return f"never saw its source ({', '.join(lone)}: {image})" if several else image
        if self._families is None:
            return "never saw its source"
        parted = ", ".join(self._parted_families(self._families))
        return "never saw its family of generators or its kind of photos" + (
            f" ({parted}, which make up much of a class: never saw its source)" if parted else ""
        )

    def _parted_families(self, families: Families) -> list[str]:
        """Name the families and kinds of photos that are not left out as a whole."""
        groups: dict[tuple[int, str], set[int]] = {}
        for label, source in self._counts:
            place = next(i for i, group in enumerate(self.together) if source in group)
            groups.setdefault((label, families.of(label, source)), set()).add(place)
        alone = {place for place, group in enumerate(self.together) if not self._fit.solvable(group)}
        return sorted(name for (_, name), places in groups.items() if len(places) > 1 or places & alone)

    def unseen(self, score: _Scores, rows: NDArray[np.int_], without: Collection[str] = ()) -> Array:
        """Return the margins (n, ...) of training pictures `rows` (n,), by heads that have not seen them.

        Args:
            score: called with a head and the places in `rows` of some pictures; returns their margins.
            rows: of the pictures.
            without: sources that no head sees.

        Raises:
            DatasetError: the only source of a class has fewer than two distinct pictures.
        """
        scored = [
            (own, score(self.head({*without, *group}), own))
            if self._fit.solvable({*without, *group})
            else self._by_sources(score, rows, own, without)
            for group in self.together
            if len(own := np.flatnonzero(self._fit.pictures.of(group)[rows]))
        ]
        return _in_order(scored)

    def _by_sources(
        self, score: _Scores, rows: NDArray[np.int_], own: NDArray[np.int_], without: Collection[str]
    ) -> tuple[NDArray[np.int_], Array]:
        """As `unseen`, for each source of the places `own` by itself: of its class there is hardly another."""
        pictures = self._fit.pictures
        scored: list[tuple[NDArray[np.int_], Array]] = []
        groups = [pictures.groups[group] for group in np.unique(pictures.group_of[rows[own]]).tolist()]
        for source in sorted({name for _, name in groups}):
            if not any(self._fit.lone(label, source, without) for label in (0, 1)):
                places = own[pictures.of({source})[rows[own]]]
                scored.append((places, score(self.head({*without, source}), places)))
                continue
            for label in sorted({label for label, name in groups if name == source}):
                lone = self._fit.lone(label, source, without)
                for part in self._folds(label, source) if lone else [self._of(label, source)]:
                    places = own[np.isin(rows[own], part)]
                    if len(places):
                        scored.append((places, score(self._head_without(part, without), places)))
        return np.concatenate([places for places, _ in scored]), np.concatenate([margins for _, margins in scored])

    def _of(self, label: int, source: str) -> NDArray[np.int_]:
        return np.flatnonzero(self._fit.pictures.of({source}, label))

    def _folds(self, label: int, source: str) -> list[NDArray[np.int_]]:
        """Part the training pictures of a source into folds, near duplicates in the same one; remembers the folds."""
        if (label, source) not in self._parts:
            self._parts[label, source] = self._ranks.from_first(lambda: self._parted(label, source))
        return self._parts[label, source]

    def _parted(self, label: int, source: str) -> list[NDArray[np.int_]]:
        rows = self._of(label, source)
        groups = near_duplicate_groups(self._store.samples(rows))
        count = len(set(groups.tolist()))
        if count < 2:
            raise DatasetError(
                f"{self._root}: {source} is the only source of {CLASSES[label]} images and has {count} "
                "distinct image for training; expected 2 at least, and some hundreds for thresholds that hold"
            )
        folds = GroupKFold(min(_FOLDS, count)).split(rows, groups=groups)
        return [rows[part] for _, part in folds]

    def _head_without(self, rows: NDArray[np.int_], without: Collection[str]) -> Head:
        key = frozenset(without), rows.tobytes()
        if key not in self._without_rows:
            self._without_rows[key] = self._fit.head(without, rows)
        return self._without_rows[key]


def _in_order(scored: Sequence[tuple[NDArray[np.int_], Array]]) -> Array:
    """Put margins (m, ...) of parts of the pictures to their places: (n, ...)."""
    values = np.concatenate([margins for _, margins in scored])
    margins = np.empty_like(values)
    margins[np.concatenate([places for places, _ in scored])] = values
    return margins
