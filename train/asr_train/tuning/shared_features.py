"""Features that the trials of a search share: extracted once per strength of augmentation, with all statistics.

Blocks, statistics and magnifications of an ASRNet-Lite are columns of its features. A network with all of them is
extracted once; a trial takes its own columns and solves for a head, which costs seconds.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_models.efficientnet_lite import ACTIVATION_CHANNELS, BLOCK_CHANNELS
from asr_train.data.layouts import DataFolder
from asr_train.fitting.closed_form import pretrained
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.features import FeatureStore
from asr_train.tuning.space import Choice, Range, Space

__all__ = ["SharedFeatures", "statistic_columns", "widest"]

_DEFAULTS: Mapping[str, Any] = {"blocks": 15, "activations": None, "correlations": 0, "scales": (1,)}


def statistic_columns(options: Mapping[str, Any], everything: Mapping[str, Any]) -> NDArray[np.int_]:
    """Return which columns of a wider network's features are the features of a network.

    Args:
        options: `blocks`, `activations`, `correlations` and `scales` of the network.
        everything: of the network that has at least these statistics and magnifications.

    Returns:
        int64 (F,), in the order of the network's own features.
    """
    own, width = _columns_of_one_scale(options, everything)
    scales = list(everything["scales"])
    return np.concatenate([own + width * scales.index(scale) for scale in options["scales"]])


def _columns_of_one_scale(options: Mapping[str, Any], everything: Mapping[str, Any]) -> tuple[NDArray[np.int_], int]:
    """Return the columns (F,) at one magnification, and how many the wider network has there."""
    chosen, rectified = _rectified(options), _rectified(everything)
    columns: list[NDArray[np.int_]] = []
    start = 0
    for block in range(everything["blocks"]):
        maps = 2 * BLOCK_CHANNELS[block]
        if block < options["blocks"]:
            columns.append(np.arange(start, start + maps))
        start += maps
        if block in rectified:
            if block in chosen:
                columns.append(np.arange(start, start + ACTIVATION_CHANNELS[block]))
            start += ACTIVATION_CHANNELS[block]
        if block < everything.get("correlations", 0):
            pairs = BLOCK_CHANNELS[block] * (BLOCK_CHANNELS[block] - 1) // 2
            if block < options.get("correlations", 0):
                columns.append(np.arange(start, start + pairs))
            start += pairs
    return np.concatenate(columns), start


def _rectified(options: Mapping[str, Any]) -> range:
    """Blocks whose rectified responses are features."""
    first, last = options.get("activations") or (0, -1)
    return range(first, last + 1)


def widest(space: Space, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options of an ASRNet-Lite that has the statistics and magnifications of every network in a space.

    Args:
        space: of the search.
        options: of every trial, where the space has none.
    """
    every = {**_DEFAULTS, **options}
    blocks = space.get("options.blocks", Choice((every["blocks"],)))
    pairs = _values(space.get("options.activations"), every["activations"] or "none")
    correlations = _values(space.get("options.correlations"), every["correlations"])
    scales = _values(space.get("options.scales"), every["scales"])
    ends = [pair for pair in pairs if pair != "none"]
    return {
        "blocks": int(blocks.high if isinstance(blocks, Range) else max(blocks.values)),
        "activations": (min(first for first, _ in ends), max(last for _, last in ends)) if ends else None,
        "correlations": max(correlations),
        "scales": sorted({scale for each in scales for scale in each}),
    }


def _values(entry: Choice | Range | None, otherwise: Any) -> Sequence[Any]:
    return entry.values if isinstance(entry, Choice) else (otherwise,)


class SharedFeatures:
    """The features of all trials.

    Args:
        data: the pictures.
        folder: extracted features stay in `folder`/features, as those of `asr-train` do in its folder of runs.
        everything: options of the network with all statistics and magnifications that any trial uses.
    """

    def __init__(self, data: DataFolder, folder: Path, everything: Mapping[str, Any]) -> None:
        self.data, self.folder, self.everything = data, folder, dict(everything)
        self._stores: dict[str, FeatureStore] = {}

    def extract(self, config: ClosedFormConfig) -> FeatureStore:
        """Return all statistics and magnifications for a configuration, extracted now or before."""
        everything = dataclasses.replace(config, options=self.everything)
        key = repr((config.augment, config.preprocess, config.views, config.windows, config.seed))
        if key not in self._stores:
            extractor = Extractor(pretrained(everything), everything)
            self._stores[key] = FeatureStore(extractor, self.data, self.folder)
        return self._stores[key]

    def alone(self, config: ClosedFormConfig) -> SharedFeatures:
        """Return the features of one configuration without those of others, for a seed that no trial has."""
        return SharedFeatures(self.data, self.folder, {**_DEFAULTS, **config.options})

    def __call__(self, config: ClosedFormConfig) -> FeatureStore:
        """Return the features of a configuration."""
        columns = statistic_columns({**_DEFAULTS, **config.options}, self.everything)
        return self.extract(config).with_columns(columns)
