"""Training without gradients: the trunk stays as it is, the linear head is solved for.

Everything after feature extraction takes seconds, so every figure that matters can come from pictures of sources that
the head has not seen: calibration and thresholds from margins of training pictures whose source was left out, and the
evaluation protocols from one head per source, or pair of sources, left out.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Sequence
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
from asr_train.data.layouts import DataFolder, Sample, find_data
from asr_train.data.near_duplicates import near_duplicate_groups
from asr_train.data.windows import window_places
from asr_train.figures.calibrate import FittedCalibration, calibrate
from asr_train.figures.pairs import pair_figures
from asr_train.figures.scoring import Scored
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.features import (
    FeatureTable,
    PairTable,
    clip_table,
    degraded_table,
    feature_table,
    pair_table,
)
from asr_train.fitting.ridge import Array, Head, RidgeFit
from asr_train.fitting.unseen import sources_left_out_together
from asr_train.fitting.video_rules import ClipMargins
from asr_train.fitting.whole_look import whole_look

__all__ = ["ClosedForm", "pretrained"]

log = logging.getLogger("asr_train")

_FOLDS = 5  # within a source that is the only one of its class


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


def _report_unreadable(table: FeatureTable, data: DataFolder) -> None:
    """Name every picture that cannot be read, with the reason, and count them.

    Raises:
        DatasetError: of a class of a split nothing can be read.
    """
    for why in table.unreadable.values():
        log.warning("skipped: %s", why)
    if table.unreadable:
        log.warning("%d of %d images cannot be read", len(table.unreadable), len(data.train) + len(data.val))
    for name in ("train", "val"):
        for label, kind in enumerate(CLASSES):
            own = [sample for sample in data.split(name) if sample.label == label]
            if own and all(str(sample.path) in table.unreadable for sample in own):
                raise DatasetError(f"{data.root}: none of the {len(own)} {kind} images of the split {name} can be read")


class ClosedForm:
    """Heads of one network on one data folder.

    Args:
        network: with its pretrained trunk.
        config: of the run.
        data: pictures of the training and validation split.
        folder: for extracted features.
        families: of the sources. With them margins for calibration come from heads that have seen no source of the
            picture's family of generators or kind of photos; without them, from heads that have not seen its source.
        table: features of the network that are at hand already; None: they are extracted, or read from `folder`.

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
        table: FeatureTable | None = None,
    ) -> None:
        self.config, self.data = config, data
        self._extractor, self._folder = Extractor(network, config), folder
        self.table: FeatureTable = table or feature_table(self._extractor, data, folder)
        _report_unreadable(self.table, data)
        self.pairs: PairTable | None = None
        differences = pair_sources = None
        if config.pairs is not None:
            self.pairs = pair_table(self._extractor, find_data(config.pairs, "generators"), folder)
            usable = ~np.isin(self.pairs.sources, config.leave_out).any(axis=1)
            differences, pair_sources = self.pairs.differences[usable], self.pairs.sources[usable]
        train = self.table.rows(data.train)
        self._train = [self.table.samples[row] for row in train]
        self._labels = np.array([s.label for s in self._train])
        self._sources = np.array([s.source for s in self._train])
        self.families = families
        self._together = sources_left_out_together(self._train, families)
        self._heads: dict[frozenset[str], Head] = {}
        self._margins: dict[frozenset[str], Array] = {}
        self._heads_within: dict[tuple[frozenset[str], bytes], Head] = {}
        self._parts: dict[tuple[int, str], list[NDArray[np.int_]]] = {}
        self._degraded: dict[Degradation, FeatureTable] = {}
        augmented, plain = len(self.table.views), config.windows
        share = config.plain_weight
        weights = np.array([*[(1 - share) / augmented] * augmented, *[share / plain] * plain])
        self.fit = RidgeFit(
            np.concatenate([self.table.views, self.table.windows[: len(train)].swapaxes(0, 1)]),
            self._labels,
            self._sources,
            config.ridge,
            differences,
            pair_sources,
            config.pair_weight,
            weights,
        )

    def head(self, without: Collection[str] = ()) -> Head:
        """Solve for the head of all training pictures but those of some sources; remembers what it solved."""
        key = frozenset(without)
        if key not in self._heads:
            self._heads[key] = self.fit.head(key)
        return self._heads[key]

    @property
    def lone_sources(self) -> tuple[str, ...]:
        """Sources that are the only one of a class: no head can be solved for without them."""
        names = sorted({str(source) for source in self._sources})
        return tuple(name for name in names if any(self.fit.lone(label, name) for label in (0, 1)))

    def calibrated_on(self) -> str:
        """Say on which margins `calibration` fits, for the card."""
        lone = self.lone_sources
        scored = "never saw its source"
        if lone:
            image = "never saw the image or a near duplicate of it, but other images of its source"
            several = set(lone) != set(self._sources)
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
        for sample in self._train:
            family = sample.label, self.families.of(sample.label, sample.source)
            place = next(i for i, group in enumerate(self._together) if sample.source in group)
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
        rows = np.flatnonzero(~np.isin(self._sources, [*without, *ignored]))
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
            rows = np.flatnonzero(~np.isin(self._sources, list(key)))
            margins = np.full((len(self._sources), self.config.windows), np.nan)
            margins[rows] = self._unseen(self.table.windows[self.table.rows(self._train)][rows], rows, key)
            self._margins[key] = margins
        return self._margins[key]

    def _unseen(self, features: NDArray[np.float32], rows: NDArray[np.int_], without: Collection[str] = ()) -> Array:
        """Return the margins (n, ...) of features (n, ..., F) of training pictures `rows` (n,), not seen by heads."""
        margins = np.full(features.shape[:-1], np.nan)
        for group in self._together:
            own = np.isin(self._sources[rows], list(group))
            if self.fit.solvable({*without, *group}):
                margins[own] = self.head({*without, *group})(features[own])
            else:
                margins[own] = self._unseen_sources(features[own], rows[own], without)
        return margins

    def _unseen_sources(self, features: NDArray[np.float32], rows: NDArray[np.int_], without: Collection[str]) -> Array:
        """As `_unseen`, for each source by itself: of its class there is hardly another."""
        margins = np.full(features.shape[:-1], np.nan)
        for source in sorted(set(self._sources[rows].tolist())):
            own = self._sources[rows] == source
            if not any(self.fit.lone(label, source, without) for label in (0, 1)):
                margins[own] = self.head({*without, source})(features[own])
                continue
            for label in sorted(set(self._labels[rows][own].tolist())):
                lone = self.fit.lone(label, source, without)
                for part in self._folds(label, source) if lone else [self._of(label, source)]:
                    chosen = np.isin(rows, part)
                    if chosen.any():
                        margins[chosen] = self._head_without_rows(part, without)(features[chosen])
        return margins

    def _of(self, label: int, source: str) -> NDArray[np.int_]:
        return np.flatnonzero((self._labels == label) & (self._sources == source))

    def _folds(self, label: int, source: str) -> list[NDArray[np.int_]]:
        """Part the training pictures of a source into folds, near duplicates in the same one; remembers the folds."""
        if (label, source) not in self._parts:
            rows = self._of(label, source)
            groups = near_duplicate_groups([self._train[row].path for row in rows])
            count = len(set(groups.tolist()))
            if count < 2:
                raise DatasetError(
                    f"{self.data.root}: {source} is the only source of {CLASSES[label]} images and has {count} "
                    "distinct image for training; expected 2 at least, and some hundreds for thresholds that hold"
                )
            folds = GroupKFold(min(_FOLDS, count)).split(rows, groups=groups)
            self._parts[label, source] = [rows[part] for _, part in folds]
        return self._parts[label, source]

    def _head_without_rows(self, rows: NDArray[np.int_], without: Collection[str]) -> Head:
        key = frozenset(without), rows.tobytes()
        if key not in self._heads_within:
            self._heads_within[key] = self.fit.head(without, rows)
        return self._heads_within[key]

    def clip_margins(self, head: Head, whole: bool = False) -> ClipMargins:
        """Return the mean margins of clips made of the pictures; those of training pictures from unseen heads.

        Args:
            head: of all training pictures, for clips of the validation split.
            whole: of all windows of every frame (`features.clip_table`).
        """
        clips = clip_table(self._extractor, self.data, self._folder, whole)
        row_of = {sample.path: row for row, sample in enumerate(self._train)}
        rows = np.array([row_of.get(sample.path, -1) for sample in clips.samples], dtype=np.int64)
        unseen = rows >= 0
        margins = head(clips.features)
        if unseen.any():
            margins[unseen] = self._unseen(clips.features[unseen], rows[unseen])
        return ClipMargins(clips.samples, np.array([s.label for s in clips.samples]), margins, unseen)

    def score(
        self,
        head: Head,
        fitted: FittedCalibration,
        samples: Sequence[Sample],
        degradation: Degradation | None = None,
    ) -> Scored:
        """Score pictures of the data folder; degraded ones must be of its validation split."""
        table = self.table if degradation is None else self._table_of(degradation)
        rows = table.rows(samples)
        margins = head(table.plain[rows])
        scored = tuple(table.samples[row] for row in rows)
        labels = np.array([s.label for s in scored], dtype=np.int64)
        return Scored(scored, labels, fitted.calibration.probability(margins), margins, table.unreadable)

    def _table_of(self, degradation: Degradation) -> FeatureTable:
        if degradation not in self._degraded:
            self._degraded[degradation] = degraded_table(self._extractor, self.data.val, degradation)
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
