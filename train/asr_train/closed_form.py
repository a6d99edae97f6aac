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

from asr_models import ASRNetLite
from asr_runtime.errors import DatasetError
from asr_train.calibrate import FittedCalibration, calibrate
from asr_train.config import TrainConfig
from asr_train.features import FeatureTable, PairTable, feature_table, pair_table
from asr_train.layouts import DataFolder, Sample, find_data
from asr_train.pairs import pair_figures
from asr_train.ridge import Head, RidgeFit
from asr_train.scoring import Scored

__all__ = ["ClosedForm"]


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

    def __init__(self, network: ASRNetLite, config: TrainConfig, data: DataFolder, folder: Path) -> None:
        self.config, self.data = config, data
        self.table: FeatureTable = feature_table(network, config, data, folder)
        self.pairs: PairTable | None = None
        differences = pair_sources = None
        if config.pairs is not None:
            self.pairs = pair_table(network, config, find_data(config.pairs, "generators"), folder)
            kept = ~np.isin(self.pairs.sources, config.leave_out).any(axis=1)
            differences, pair_sources = self.pairs.differences[kept], self.pairs.sources[kept]
        train = self.table.rows(data.train)
        if not len(train):
            raise DatasetError(f"{data.root}: no training image could be read")
        self._train = [self.table.samples[row] for row in train]
        self._labels = np.array([s.label for s in self._train])
        self._sources = np.array([s.source for s in self._train])
        self._heads: dict[frozenset[str], Head] = {}
        self.fit = RidgeFit(
            self.table.views, self._labels, self._sources, config.ridge, differences, pair_sources, config.pair_weight
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
        margins = np.full(len(plain), np.nan)
        for source in sorted(set(self._sources[kept])):
            own = self._sources == source
            try:
                margins[own] = self.head({*without, str(source)})(plain[own])
            except ValueError:  # the only source of its class
                margins[own] = self.head(without)(plain[own])
        return calibrate(self._labels[kept], margins[kept], fitted_on)

    def score(self, head: Head, fitted: FittedCalibration, samples: Sequence[Sample]) -> Scored:
        """Score pictures of the data folder."""
        rows = self.table.rows(samples)
        margins = head(self.table.plain[rows])
        scaled = margins / fitted.calibration.temperature + fitted.calibration.shift
        kept = tuple(self.table.samples[row] for row in rows)
        labels = np.array([s.label for s in kept], dtype=np.int64)
        probability: NDArray[np.float64] = 1.0 / (1.0 + np.exp(-scaled))
        return Scored(kept, labels, probability, margins, self.table.unreadable)

    def pair_figures(self, head: Head) -> dict[str, dict[str, Any]]:
        """Return `asr_train.pairs.pair_figures` of the validation pairs; empty without any."""
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
