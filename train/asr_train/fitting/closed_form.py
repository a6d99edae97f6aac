"""Training without gradients: the trunk stays as it is, the linear head is solved for.

Everything after feature extraction takes seconds, so every figure that matters can come from pictures of sources that
the head has not seen: calibration and thresholds from margins of training pictures whose source was left out, and the
evaluation protocols from one head per source, or pair of sources, left out.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from asr_models import ASRNetLite, create_model
from asr_runtime.contract import CLASSES, WholeLook
from asr_runtime.errors import DatasetError
from asr_train.data.degradations import Degradation
from asr_train.data.families import Families
from asr_train.data.layouts import DataFolder, Sample, find_data, picture_counts
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
from asr_train.fitting.unseen_heads import UnseenHeads
from asr_train.fitting.video_rules import ClipMargins
from asr_train.fitting.whole_look import whole_look

__all__ = ["ClosedForm", "pretrained"]

log = logging.getLogger("asr_train")


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
        self._margins: dict[frozenset[str], Array] = {}
        self._degraded: dict[Degradation, FeatureStore] = {}
        augmented, plain = config.views, config.windows
        share = config.plain_weight
        weights = np.array([*[(1 - share) / augmented] * augmented, *[share / plain] * plain])
        self.fit = RidgeFit(self._trained, config.ridge, differences, pair_sources, config.pair_weight, weights, ranks)
        self.heads = UnseenHeads(self.fit, self.store, data.root, families, ranks)

    def head(self, without: Collection[str] = ()) -> Head:
        """Solve for the head of all training pictures but those of some sources; remembers what it solved."""
        return self.heads.head(without)

    def calibrated_on(self) -> str:
        """Say on which margins `calibration` fits, for the card."""
        equalised = f", re-encoded at JPEG {self.config.quality}" if self.config.quality else ""
        return (
            f"the training split of {self.data.root.name}, every image scored by a head that "
            f"{self.heads.what_was_unseen()}{equalised}"
        )

    def calibration(
        self, fitted_on: str, without: Collection[str] = (), ignored: Collection[str] = ()
    ) -> FittedCalibration:
        """Fit calibration and thresholds on margins of training pictures, from heads that never saw them.

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
        margins = self.unseen_windows(without)[rows]
        labels, top = self._labels[rows], self.config.top or self.config.windows
        whole = whole_look(labels, margins, window_places(self.config.windows), top, fitted_on)
        return calibrate(labels, margins[:, 0], fitted_on), whole

    @property
    def default_look(self) -> str:
        """`whole` where the whole look ranks training pictures of unseen sources better, else `centre`."""
        whole = self.thresholds("")[1]
        return "whole" if whole is not None and whole.is_default else "centre"

    def unseen_windows(self, without: Collection[str] = ()) -> Array:
        """Return the margins (n, W) of all training pictures' windows, from heads that have not seen them."""
        key = frozenset(without)
        if key not in self._margins:
            rows = np.flatnonzero(~self._trained.of(key))
            margins = np.full((len(self._labels), self.config.windows), np.nan)
            margins[rows] = self.heads.unseen(lambda head, own: self.store.margins(head, rows[own]), rows, key)
            self._margins[key] = margins
        return self._margins[key]

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
            margins[unseen] = self.heads.unseen(lambda head, places: head(own[places]), rows[unseen])
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
