"""Training without gradients: the trunk stays as it is, the linear head is solved for.

Everything after feature extraction takes seconds, so every figure that matters can come from pictures of sources that
the head has not seen: calibration and thresholds from margins of training pictures whose source was left out, and the
evaluation protocols from one head per source, or pair of sources, left out.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.model_selection import GroupKFold

from asr_models import ASRNetLite, create_model
from asr_runtime.contract import CLASSES, WholeLook
from asr_runtime.errors import DatasetError
from asr_train.data.degradations import Degradation
from asr_train.data.families import Families
from asr_train.data.layouts import DataFolder, Sample, find_data, picture_counts
from asr_train.data.near_duplicates import near_duplicate_groups
from asr_train.data.windows import window_places
from asr_train.figures.calibrate import FittedCalibration, calibrate
from asr_train.figures.pairs import pair_figures
from asr_train.figures.scoring import Scored
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.feature_tables import PairTable, clip_table, pair_table
from asr_train.fitting.features import FeatureStore
from asr_train.fitting.ranks import ALONE, Ranks
from asr_train.fitting.ridge import Array, Head, RidgeFit
from asr_train.fitting.unseen import sources_left_out_together
from asr_train.fitting.video_rules import ClipMargins
from asr_train.fitting.whole_look import whole_look

__all__ = ["ClosedForm", "pretrained"]

log = logging.getLogger("asr_train")

_FOLDS = 5  # within a source that is the only one of its class

_Scores = Callable[[Head, NDArray[np.int_]], Array]


def pretrained(config: ClosedFormConfig) -> ASRNetLite:
    """Return the network of a configuration with its pretrained trunk.

    Raises:
        OptionError: an option does not exist or cannot work.
        WeightsError: the weights cannot be read, or do not fit.
    """
    network = create_model(config.model, **config.options)
    assert isinstance(network, ASRNetLite)
    if config.weights != "none":
        network.load_pretrained(config.weights)
    return network


def _report_unreadable(store: FeatureStore, data: DataFolder) -> None:
    """Name every picture that cannot be read, with the reason, and count them.

    Raises:
        DatasetError: of a class of a split nothing can be read.
    """
    for why in store.unreadable.values():
        log.warning("skipped: %s", why)
    if store.unreadable:
        log.warning("%d of %d images cannot be read", len(store.unreadable), len(data.train) + len(data.val))
    labels = store.labels
    for name, readable in (("train", labels[: store.trained]), ("val", labels[store.trained :])):
        for label, kind in enumerate(CLASSES):
            own = sum(count for (k, _), count in picture_counts(data.split(name)).items() if k == label)
            if own and not (readable == label).any():
                raise DatasetError(f"{data.root}: none of the {own} {kind} images of the split {name} can be read")


class ClosedForm:
    """Heads of one network on one data folder.

    Several processes that work together each make one and call the same methods in the same order.

    Args:
        network: with its pretrained trunk.
        config: of the run.
        data: pictures of the training and validation split.
        folder: for extracted features.
        families: of the sources. With them margins for calibration come from heads that have seen no source of the
            picture's family of generators or kind of photos; without them, from heads that have not seen its source.
        store: features of the network that are at hand already; None: they are extracted, or read from `folder`.
        ranks: the processes.

    Raises:
        DatasetError: no picture of a class of a split can be read, or the folder of pairs holds none.
    """

    def __init__(
        self,
        network: ASRNetLite,
        config: ClosedFormConfig,
        data: DataFolder,
        folder: Path,
        families: Families | None = None,
        store: FeatureStore | None = None,
        ranks: Ranks = ALONE,
    ) -> None:
        self.config, self.data, self._ranks = config, data, ranks
        self._extractor, self._folder = Extractor(network, config), folder
        self.store: FeatureStore = store or FeatureStore(self._extractor, data, folder, ranks)
        ranks.from_first(lambda: _report_unreadable(self.store, data))
        self.pairs: PairTable | None = None
        differences = pair_sources = None
        if (pairs := config.pairs) is not None:
            self.pairs = ranks.from_first(lambda: pair_table(self._extractor, find_data(pairs, "generators"), folder))
            usable = ~np.isin(self.pairs.sources, config.leave_out).any(axis=1)
            differences, pair_sources = self.pairs.differences[usable], self.pairs.sources[usable]
        self._trained = self.store.pictures
        self._labels = self.store.labels[: self.store.trained]
        self.families = families
        self._counts = {
            group: int(count)
            for group, count in zip(self.store.groups, np.bincount(self._trained.group_of), strict=False)
            if count
        }
        self._together = sources_left_out_together(self._counts, families)
        self._heads: dict[frozenset[str], Head] = {}
        self._margins: dict[frozenset[str], Array] = {}
        self._heads_within: dict[tuple[frozenset[str], bytes], Head] = {}
        self._parts: dict[tuple[int, str], list[NDArray[np.int_]]] = {}
        self._degraded: dict[Degradation, FeatureStore] = {}
        augmented, plain = config.views, config.windows
        share = config.plain_weight
        weights = np.array([*[(1 - share) / augmented] * augmented, *[share / plain] * plain])
        self.fit = RidgeFit(self._trained, config.ridge, differences, pair_sources, config.pair_weight, weights, ranks)

    def head(self, without: Collection[str] = ()) -> Head:
        """Solve for the head of all training pictures but those of some sources; remembers what it solved."""
        key = frozenset(without)
        if key not in self._heads:
            self._heads[key] = self.fit.head(key)
        return self._heads[key]

    @property
    def lone_sources(self) -> tuple[str, ...]:
        """Sources that are the only one of a class: no head can be solved for without them."""
        names = sorted({source for _, source in self._counts})
        return tuple(name for name in names if any(self.fit.lone(label, name) for label in (0, 1)))

    def calibrated_on(self) -> str:
        """Say on which margins `calibration` fits, for the card."""
        lone = self.lone_sources
        scored = "never saw its source"
        if lone:
            image = "never saw the image or a near duplicate of it, but other images of its source"
            several = set(lone) != {source for _, source in self._counts}
            scored = f"{scored} ({', '.join(lone)}: {image})" if several else image
        elif self.families is not None:
            scored = "never saw its family of generators or its kind of photos"
            if parted := self._parted_families():
                scored += f" ({', '.join(parted)}, which make up much of a class: never saw its source)"
        equalised = f", re-encoded at JPEG {self.config.quality}" if self.config.quality else ""
        return f"the training split of {self.data.root.name}, every image scored by a head that {scored}{equalised}"

    def _parted_families(self) -> list[str]:
        """Name the families and kinds of photos that are not left out as a whole."""
        assert self.families is not None
        groups: dict[tuple[int, str], set[int]] = {}
        for label, source in self._counts:
            family = label, self.families.of(label, source)
            place = next(i for i, group in enumerate(self._together) if source in group)
            groups.setdefault(family, set()).add(place)
        alone = {place for place, group in enumerate(self._together) if not self.fit.solvable(group)}
        return sorted(name for (_, name), places in groups.items() if len(places) > 1 or places & alone)

    def calibration(
        self, fitted_on: str, without: Collection[str] = (), ignored: Collection[str] = ()
    ) -> FittedCalibration:
        """Fit calibration and thresholds on margins that each training picture gets from a head that never saw it.

        The head has not seen the picture's source either. Only where the source is the only one of a class has it seen
        other pictures of it, but no near duplicates.

        Args:
            fitted_on: names the pictures, for the card.
            without: sources that are left out altogether.
            ignored: sources whose own margins are not used.

        Raises:
            DatasetError: the only source of a class has fewer than two distinct pictures.
        """
        return self.thresholds(fitted_on, without, ignored)[0]

    def thresholds(
        self, fitted_on: str, without: Collection[str] = (), ignored: Collection[str] = ()
    ) -> tuple[FittedCalibration, WholeLook | None]:
        """As `calibration`, for the centre and, where there are several windows, for the whole look."""
        rows = np.flatnonzero(~self._trained.of({*without, *ignored}))
        margins = self._unseen_windows(without)[rows]
        labels, top = self._labels[rows], self.config.top or self.config.windows
        whole = whole_look(labels, margins, window_places(self.config.windows), top, fitted_on)
        return calibrate(labels, margins[:, 0], fitted_on), whole

    @property
    def default_look(self) -> str:
        """`whole` where the whole look ranks training pictures of unseen sources better, else `centre`."""
        whole = self.thresholds("")[1]
        return "whole" if whole is not None and whole.is_default else "centre"

    def _unseen_windows(self, without: Collection[str]) -> Array:
        """Return the margins (n, W) of all training pictures' windows, from heads that have not seen them."""
        key = frozenset(without)
        if key not in self._margins:
            rows = np.flatnonzero(~self._trained.of(key))
            margins = np.full((len(self._labels), self.config.windows), np.nan)
            margins[rows] = self._unseen(lambda head, own: self.store.margins(head, rows[own]), rows, key)
            self._margins[key] = margins
        return self._margins[key]

    def _unseen(self, score: _Scores, rows: NDArray[np.int_], without: Collection[str] = ()) -> Array:
        """Return the margins (n, ...) of training pictures `rows` (n,), by heads that have not seen them.

        Args:
            score: called with a head and the places in `rows` of some pictures; returns their margins.
            rows: of the pictures.
            without: sources that no head sees.
        """
        found = [
            (own, score(self.head({*without, *group}), own))
            if self.fit.solvable({*without, *group})
            else self._unseen_sources(score, rows, own, without)
            for group in self._together
            if len(own := np.flatnonzero(self._trained.of(group)[rows]))
        ]
        return _in_order(found)

    def _unseen_sources(
        self, score: _Scores, rows: NDArray[np.int_], own: NDArray[np.int_], without: Collection[str]
    ) -> tuple[NDArray[np.int_], Array]:
        """As `_unseen`, for each source of the places `own` by itself: of its class there is hardly another."""
        found: list[tuple[NDArray[np.int_], Array]] = []
        groups = [self.store.groups[group] for group in np.unique(self._trained.group_of[rows[own]]).tolist()]
        for source in sorted({name for _, name in groups}):
            if not any(self.fit.lone(label, source, without) for label in (0, 1)):
                places = own[self._trained.of({source})[rows[own]]]
                found.append((places, score(self.head({*without, source}), places)))
                continue
            for label in sorted({label for label, name in groups if name == source}):
                lone = self.fit.lone(label, source, without)
                for part in self._folds(label, source) if lone else [self._of(label, source)]:
                    places = own[np.isin(rows[own], part)]
                    if len(places):
                        found.append((places, score(self._head_without_rows(part, without), places)))
        return np.concatenate([places for places, _ in found]), np.concatenate([margins for _, margins in found])

    def _of(self, label: int, source: str) -> NDArray[np.int_]:
        return np.flatnonzero(self._trained.of({source}, label))

    def _folds(self, label: int, source: str) -> list[NDArray[np.int_]]:
        """Part the training pictures of a source into folds, near duplicates in the same one; remembers the folds."""
        if (label, source) not in self._parts:
            self._parts[label, source] = self._ranks.from_first(lambda: self._parted(label, source))
        return self._parts[label, source]

    def _parted(self, label: int, source: str) -> list[NDArray[np.int_]]:
        rows = self._of(label, source)
        groups = near_duplicate_groups(self.store.samples(rows))
        count = len(set(groups.tolist()))
        if count < 2:
            raise DatasetError(
                f"{self.data.root}: {source} is the only source of {CLASSES[label]} images and has {count} "
                "distinct image for training; expected 2 at least, and some hundreds for thresholds that hold"
            )
        folds = GroupKFold(min(_FOLDS, count)).split(rows, groups=groups)
        return [rows[part] for _, part in folds]

    def _head_without_rows(self, rows: NDArray[np.int_], without: Collection[str]) -> Head:
        key = frozenset(without), rows.tobytes()
        if key not in self._heads_within:
            self._heads_within[key] = self.fit.head(without, rows)
        return self._heads_within[key]

    def clip_margins(self, head: Head, whole: bool = False) -> ClipMargins:
        """Return the mean margins of clips made of the pictures; those of training pictures from unseen heads.

        Args:
            head: of all training pictures, for clips of the validation split.
            whole: of all windows of every frame (`feature_tables.clip_table`).
        """
        clips = self._ranks.from_first(lambda: clip_table(self._extractor, self.data, self._folder, whole))
        known = self.store.rows(clips.samples)
        row_of = dict(zip((sample.path for sample in self.store.samples(known)), known.tolist(), strict=True))
        rows = np.array([row_of.get(sample.path, self.store.trained) for sample in clips.samples], dtype=np.int64)
        unseen = rows < self.store.trained
        margins = head(clips.features)
        if unseen.any():
            own = clips.features[unseen]
            margins[unseen] = self._unseen(lambda head, places: head(own[places]), rows[unseen])
        return ClipMargins(clips.samples, np.array([s.label for s in clips.samples]), margins, unseen)

    def score(
        self,
        head: Head,
        fitted: FittedCalibration,
        samples: Sequence[Sample],
        degradation: Degradation | None = None,
    ) -> Scored:
        """Score pictures of the data folder; degraded ones must be of its validation split."""
        store = self.store if degradation is None else self._degraded_store(degradation)
        rows = store.rows(samples)
        margins = store.margins(head, rows)[:, 0]
        return Scored(
            store.samples(rows), store.labels[rows], fitted.calibration.probability(margins), margins, store.unreadable
        )

    def _degraded_store(self, degradation: Degradation) -> FeatureStore:
        if degradation not in self._degraded:
            data = dataclasses.replace(self.data, train=())
            self._degraded[degradation] = FeatureStore(self._extractor, data, self._folder, self._ranks, degradation)
        return self._degraded[degradation]

    def pair_figures(self, head: Head) -> dict[str, dict[str, Any]]:
        """Return `asr_train.figures.pairs.pair_figures` of the validation pairs; empty without any."""
        if self.pairs is None or not self.pairs.samples:
            return {}
        return pair_figures(self.pairs.samples, head(self.pairs.plain))

    @staticmethod
    def install(network: ASRNetLite, head: Head) -> ASRNetLite:
        """Put a head into the network."""
        with torch.no_grad():
            network.head.weight.copy_(torch.from_numpy(head.weight)[None])
            network.head.bias.fill_(head.bias)
        return network


def _in_order(found: Sequence[tuple[NDArray[np.int_], Array]]) -> Array:
    """Put margins (m, ...) of parts of the pictures to their places: (n, ...)."""
    values = np.concatenate([margins for _, margins in found])
    margins = np.empty_like(values)
    margins[np.concatenate([places for places, _ in found])] = values
    return margins
