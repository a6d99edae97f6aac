"""Training without gradients: the trunk stays as it is, the linear head is solved for.

Everything after feature extraction takes seconds, so every figure that matters can come from pictures of sources that
the head has not seen: calibration and thresholds from leave-one-source-out margins of the training split, and the
evaluation protocols from one head per source, or pair of sources, left out.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr_models import ASRNetLite, create_model
from asr_runtime.contract import VideoRule
from asr_runtime.errors import DatasetError
from asr_train.data.degradations import Degradation
from asr_train.data.layouts import DataFolder, Sample, find_data
from asr_train.figures.calibrate import FittedCalibration, calibrate, calibrate_video, video_figures
from asr_train.figures.pairs import pair_figures
from asr_train.figures.scoring import Scored
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.features import FeatureTable, PairTable, clip_table, degraded_table, feature_table, pair_table
from asr_train.fitting.ridge import Array, Head, RidgeFit

__all__ = ["ClosedForm", "pretrained"]


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


class ClosedForm:
    """Heads of one network on one data folder.

    Args:
        network: with its pretrained trunk.
        config: of the run.
        data: pictures of the training and validation split.
        folder: extracted features are kept here.

    Raises:
        DatasetError: a split cannot be read, or the folder of pairs holds none.
    """

    def __init__(self, network: ASRNetLite, config: ClosedFormConfig, data: DataFolder, folder: Path) -> None:
        self.config, self.data = config, data
        self._extractor, self._folder = Extractor(network, config), folder
        self.table: FeatureTable = feature_table(self._extractor, data, folder)
        self.pairs: PairTable | None = None
        differences = pair_sources = None
        if config.pairs is not None:
            self.pairs = pair_table(self._extractor, find_data(config.pairs, "generators"), folder)
            kept = ~np.isin(self.pairs.sources, config.leave_out).any(axis=1)
            differences, pair_sources = self.pairs.differences[kept], self.pairs.sources[kept]
        train = self.table.rows(data.train)
        if not len(train):
            raise DatasetError(f"{data.root}: no training image could be read")
        self._train = [self.table.samples[row] for row in train]
        self._labels = np.array([s.label for s in self._train])
        self._sources = np.array([s.source for s in self._train])
        self._heads: dict[frozenset[str], Head] = {}
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

    def calibration(
        self, fitted_on: str, without: Collection[str] = (), ignored: Collection[str] = ()
    ) -> FittedCalibration:
        """Fit calibration and thresholds on margins that each training picture gets from a head without its source.

        Args:
            fitted_on: names the pictures, for the card.
            without: sources that are left out altogether.
            ignored: sources whose own margins are not used.
        """
        plain = self.table.plain[self.table.rows(self._train)]
        kept = ~np.isin(self._sources, [*without, *ignored])
        margins = self._unseen(plain[kept], self._sources[kept], without)
        return calibrate(self._labels[kept], margins, fitted_on)

    def _unseen(self, features: NDArray[np.float32], sources: NDArray[np.str_], without: Collection[str]) -> Array:
        """Return the margins (n,) of features (n, F), each from a head that has not seen its source."""
        margins = np.full(len(features), np.nan)
        for source in sorted(set(sources)):
            own = sources == source
            try:
                margins[own] = self.head({*without, str(source)})(features[own])
            except ValueError:  # the only source of its class
                margins[own] = self.head(without)(features[own])
        return margins

    def video(self, head: Head, fitted: FittedCalibration, fitted_on: str) -> tuple[VideoRule, dict[str, Any]]:
        """Calibrate verdicts on whole videos on clips made of the training pictures, as `calibration` does on pictures.

        Args:
            head: of all training pictures.
            fitted: the calibration of pictures.
            fitted_on: names the clips, for the card.

        Returns:
            The rule, and `video_figures` of clips made of the validation pictures.
        """
        clips = clip_table(self._extractor, self.data, self._folder)
        trained = {sample.path for sample in self.data.train}
        train = np.array([sample.path in trained for sample in clips.samples])
        labels = np.array([sample.label for sample in clips.samples])
        sources = np.array([sample.source for sample in clips.samples])
        margins = head(clips.features)
        margins[train] = self._unseen(clips.features[train], sources[train], ())
        log_odds = fitted.calibration.log_odds(margins)
        rule = calibrate_video(labels[train], log_odds[train], fitted_on)
        return rule, video_figures(labels[~train], log_odds[~train], rule)

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
        kept = tuple(table.samples[row] for row in rows)
        labels = np.array([s.label for s in kept], dtype=np.int64)
        return Scored(kept, labels, fitted.calibration.probability(margins), margins, table.unreadable)

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
