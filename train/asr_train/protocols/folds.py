"""Folds: the generators, and photo sources, that are left out of training and then judged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DatasetError
from asr_train.data.layouts import DataFolder, Sample
from asr_train.figures.content import ContentProbe, content_features, fit_features

__all__ = ["Fold", "FoldContent", "folds_of", "judged_generators"]

_LARGEST_FIT = 20_000  # training images that the content-only probe of a fold is fitted on


@dataclass(frozen=True)
class Fold:
    """One training: without a generator, perhaps without photos too; judged by `samples`.

    Attributes:
        generator: source or family that is judged.
        photos: photo source or kind of photo that is left out as well.
        samples: what is judged.
        without: sources that training does not see.
    """

    generator: str
    photos: str | None
    samples: tuple[Sample, ...]
    without: tuple[str, ...]


class FoldContent:
    """The content-only probe of each fold, fitted on what the detector of that fold may see."""

    def __init__(self, data: DataFolder, progress: bool) -> None:
        train, drawn = data.split("train"), np.arange(len(data.train))
        if len(drawn) > _LARGEST_FIT:
            drawn = np.sort(np.random.default_rng(0).choice(len(drawn), _LARGEST_FIT, replace=False))
        self.train = [train[i] for i in drawn.tolist()]
        self.features = content_features(self.train, progress)
        self._judged = content_features(data.val, progress)
        self._row_of = {sample.path: row for row, sample in enumerate(data.val)}
        self._probes: dict[frozenset[str], ContentProbe] = {}

    def __call__(self, fold: Fold, unseen: Collection[str] | None = None) -> NDArray[np.float64]:
        """Return the content-only scores of the fold's samples.

        Args:
            fold: of validation images.
            unseen: sources that the probe has not seen; None: those of the fold.
        """
        without = frozenset(fold.without if unseen is None else unseen)
        if without not in self._probes:
            rows = [i for i, sample in enumerate(self.train) if sample.source not in without]
            self._probes[without] = fit_features(self.features[rows], [self.train[i] for i in rows])
        return self._probes[without].score_features(self._judged[[self._row_of[s.path] for s in fold.samples]])


def judged_generators(data: DataFolder, at_least: int) -> list[str]:
    """Return the generators with at least so many validation images.

    Raises:
        DatasetError: there is none, or only one generator in all.
    """
    counts = Counter(s.source for s in data.split("val") if s.label == 1)
    names = sorted(name for name, count in counts.items() if count >= at_least)
    if len(counts) < 2 or not names:
        raise DatasetError(
            f"{data.root}: leaving one generator out needs two generators or more, one of them with {at_least} "
            f"validation images; found {', '.join(f'{n} ({c})' for n, c in sorted(counts.items())) or 'none'}"
        )
    return names


def folds_of(data: DataFolder, generator: str, with_photos: bool) -> list[Fold]:
    """Return the folds that judge a generator: one against all photos, or one for every photo source.

    Raises:
        DatasetError: one photo source only, which cannot be left out.
    """
    own = [s for s in data.val if s.label == 1 and s.source == generator]
    sources = sorted({s.source for s in data.val if s.label == 0 and s.source != generator})
    if not with_photos:
        return [
            Fold(generator, None, tuple(s for s in data.val if s.label == 0 or s.source == generator), (generator,))
        ]
    if len({s.source for s in data.train if s.label == 0}) < 2:
        raise DatasetError(f"{data.root}: leaving photos out as well needs two photo sources or more")
    return [
        Fold(generator, name, (*own, *(s for s in data.val if s.label == 0 and s.source == name)), (generator, name))
        for name in sources
    ]
