"""Checks of a data folder before training begins."""

from __future__ import annotations

import contextlib
import logging
from collections import Counter

import numpy as np

from asr_models import (
    InputTransform,
)
from asr_runtime.errors import DatasetError, InputError
from asr_train.data.layouts import DataFolder, picture_counts
from asr_train.fitting.config import TrainConfig

__all__ = ["checked_data", "warn_of_small_images"]

log = logging.getLogger("asr_train")


_LEAST = {"train": 2, "val": 1}  # images of each class


def checked_data(config: TrainConfig) -> DataFolder:
    """Read the data folder; warn where its thresholds will hold for one source only.

    Raises:
        DatasetError: it does not fit its layout, or a split has too few images of a class.
    """
    data = config.pictures()
    _check_enough(data)
    _warn_of_lone_sources(data)
    return data


def _check_enough(data: DataFolder) -> None:
    """Refuse splits that no training can work with.

    Raises:
        DatasetError: too few images of a class; the message says how many are needed.
    """
    for name, least in _LEAST.items():
        counts: Counter[int] = Counter()
        for (label, _), number in picture_counts(data.split(name)).items():
            counts[label] += number
        if min(counts[0], counts[1]) < least:
            raise DatasetError(
                f"{data.root}: the split {name!r} has {counts[0]} real and {counts[1]} AI-generated images; training "
                f"needs {_LEAST['train']} of each class, and {_LEAST['val']} of each to validate (held out of them "
                "where there is no folder val); some hundreds of each make a detector that is of use"
            )


def _warn_of_lone_sources(data: DataFolder) -> None:
    """Say when a class has one source only: no threshold can be tried on another."""
    for label, kind in ((0, "real"), (1, "AI-generated")):
        sources = {source for k, source in picture_counts(data.train) if k == label}
        if len(sources) == 1:
            log.warning(
                "%s is the only source of %s images: thresholds are fitted on other images of it and hold for that "
                "source only; add a second source for thresholds that hold elsewhere",
                sources.pop(),
                kind,
            )


def warn_of_small_images(data: DataFolder, preprocess: InputTransform) -> None:
    """Say when a crop is mostly mirrored continuation: it costs time and shows the network nothing."""
    sides = []
    for sample in data.train[:: max(1, len(data.train) // 20)]:
        with contextlib.suppress(InputError):
            sides.append(min(sample.read().shape[:2]))
    typical = int(np.median(sides)) if sides else preprocess.size
    if preprocess.mode == "crop" and typical <= preprocess.size // 2:
        log.warning(
            "images are about %d px, the crop is %d px: they are continued by mirroring; --crop-size %d fits them",
            typical,
            preprocess.size,
            typical,
        )
