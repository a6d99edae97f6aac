"""Features that the trials of a search share: extracted once per magnification, strength and crop, with all statistics.

Blocks, statistics and magnifications of an ASRNet-Lite are columns of its features. A network with all of them is
extracted once; a trial takes its own columns and solves for a head, which costs seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_models.efficientnet_lite import ACTIVATION_CHANNELS, BLOCK_CHANNELS
from asr_train.data.layouts import DataFolder
from asr_train.fitting.closed_form import pretrained
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.features import FeatureTable, feature_table
from asr_train.tuning.space import Choice, Range, Space

__all__ = ["SharedFeatures", "statistic_columns", "widest"]

_IN_MEMORY = 4  # tables


def statistic_columns(options: Mapping[str, Any], widest: Mapping[str, Any]) -> NDArray[np.int_]:
    """Return which columns of a wider network's features are the features of a network.

    Args:
        options: `blocks` and `activations` of the network, at one magnification.
        widest: of the network that has at least these statistics, at the same magnification.

    Returns:
        int64 (F,), ascending: the order of the features is the same in both.
    """
    chosen, have = _rectified(options), _rectified(widest)
    columns: list[NDArray[np.int_]] = []
    start = 0
    for block in range(widest["blocks"]):
        maps = 2 * BLOCK_CHANNELS[block]
        if block < options["blocks"]:
            columns.append(np.arange(start, start + maps))
        start += maps
        if block in have:
            if block in chosen:
                columns.append(np.arange(start, start + ACTIVATION_CHANNELS[block]))
            start += ACTIVATION_CHANNELS[block]
    return np.concatenate(columns)


def _rectified(options: Mapping[str, Any]) -> range:
    """Blocks whose rectified responses are features."""
    first, last = options.get("activations") or (0, -1)
    return range(first, last + 1)


def widest(space: Space) -> dict[str, Any]:
    """Return options of an ASRNet-Lite that has the statistics of every network in a space."""
    blocks, pairs = space.get("options.blocks", Range(15, 15)), space.get("options.activations", Choice(("none",)))
    deepest = blocks.high if isinstance(blocks, Range) else max(blocks.values)
    found = [pair for pair in pairs.values if pair != "none"] if isinstance(pairs, Choice) else []
    activations = (min(first for first, _ in found), max(last for _, last in found)) if found else None
    return {"blocks": int(deepest), "activations": activations}


class SharedFeatures:
    """The features of all trials; those of the last magnifications stay in memory.

    Args:
        data: the pictures.
        folder: extracted features are kept in `folder`/features, as `asr-train` keeps its own.
        everything: options of the network with all statistics that any trial uses: `blocks` and `activations`.
    """

    def __init__(self, data: DataFolder, folder: Path, everything: Mapping[str, Any]) -> None:
        self.data, self.folder, self.everything = data, folder, dict(everything)
        self._tables: dict[str, FeatureTable] = {}

    def extract(self, config: ClosedFormConfig) -> None:
        """Extract what a configuration needs, so that several processes need not extract the same."""
        for scale in config.options.get("scales", (1,)):
            self._table(config, scale)

    def __call__(self, config: ClosedFormConfig) -> FeatureTable:
        """Return the features of a configuration, extracted now or before."""
        options = {"blocks": 15, "activations": None, "scales": (1,), **config.options}
        columns = statistic_columns(options, self.everything)
        tables = [self._table(config, scale) for scale in options["scales"]]
        return dataclasses.replace(
            tables[0],
            windows=np.concatenate([table.windows[..., columns] for table in tables], axis=2),
            views=np.concatenate([table.views[..., columns] for table in tables], axis=2),
        )

    def _table(self, config: ClosedFormConfig, scale: int) -> FeatureTable:
        everything = dataclasses.replace(config, options={**self.everything, "scales": (scale,)})
        key = repr((scale, config.augment, config.preprocess, config.views, config.windows, config.seed))
        if key not in self._tables:
            while len(self._tables) >= _IN_MEMORY:
                self._tables.pop(next(iter(self._tables)))
            extractor = Extractor(pretrained(everything), everything)
            self._tables[key] = feature_table(extractor, self.data, self.folder)
        return self._tables[key]
