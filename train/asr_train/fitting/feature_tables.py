"""Features of clips and of content-matched pairs: small tables, each kept in one file and loaded whole."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_models import InputTransform
from asr_runtime.errors import DatasetError
from asr_train.data.batches import EvaluationImages, TrainingImages
from asr_train.data.clips import ClipImages, thinned
from asr_train.data.layouts import DataFolder, Sample
from asr_train.data.windows import window_places
from asr_train.figures.pairs import content_matched_pairs
from asr_train.fitting.extraction import Extractor, Keyed, draw, extraction_key, is_whole, keep

__all__ = ["ClipTable", "PairTable", "clip_table", "pair_table"]

log = logging.getLogger("asr_train")

_WHOLE_CLIPS = 3  # one clip in so many is looked at as a whole


@dataclass(frozen=True)
class ClipTable:
    """Features of pictures as frames of a video (`asr_train.data.clips`).

    Attributes:
        samples: the n pictures, training split first; those that cannot be read or encoded are left out.
        features: float32 (n, F), the mean over the frames of each clip and over their windows. Margins are linear in
            the features, so a head gives the mean margin.
    """

    samples: tuple[Sample, ...]
    features: NDArray[np.float32]


def clip_table(extractor: Extractor, data: DataFolder, folder: Path, whole: bool = False) -> ClipTable:
    """Extract the features of clips made of both splits, or read what was extracted before.

    Args:
        extractor: as for `FeatureStore`.
        data: the pictures.
        folder: for the file `clips-<key>.npz`.
        whole: of all windows of every frame, not of its centre; a third as many clips, because each takes longer.
            Pictures without room for more than the centre are left out.
    """
    samples = (*thinned(data.train), *thinned(data.val))
    config = extractor.config
    facts, places = [data.summary()["fingerprint"]], window_places(config.windows if whole else 1)
    if whole:
        samples, facts = samples[::_WHOLE_CLIPS], [*facts, "whole"]
    path = folder / f"clips-{extraction_key(extractor.network, config, *facts)}.npz"
    if is_whole(path, "features", "good"):
        log.info("features of clips: read from %s", path)
        content = np.load(path)
        return ClipTable(tuple(samples[i] for i in content["good"]), content["features"])
    images = ClipImages(samples, InputTransform(**config.preprocess), config.quality, places)
    good, features = images.per_clip(*extractor(images, "clips"))
    keep(path, features=features, good=good)
    return ClipTable(tuple(samples[i] for i in good), features)


@dataclass(frozen=True)
class PairTable:
    """Features of content-matched pairs.

    Attributes:
        differences: float32 (P, F), half of (twin - photo), of the training split. Both got the same crop and the same
            degradations, so subject matter cancels out and what a neural network left in its twin stays.
        sources: str (P, 2), the source of the pair's photo, and the one of the pair (`resynthesised_...`).
        samples: the m pictures of the validation split's pairs.
        plain: float32 (m, F), as evaluation sees them.
    """

    differences: NDArray[np.float32]
    sources: NDArray[np.str_]
    samples: tuple[Sample, ...]
    plain: NDArray[np.float32]


def pair_table(extractor: Extractor, data: DataFolder, folder: Path) -> PairTable:
    """Extract the features of a folder that asr-resynthesise made, or read what was extracted before.

    Args:
        extractor: as for `FeatureStore`; one view is used.
        data: the pairs.
        folder: for the file `pairs-<key>.npz`.

    Raises:
        DatasetError: no pair in the training split, or a picture that cannot be read.
    """
    pairs = content_matched_pairs(data.train)
    if not pairs:
        raise DatasetError(f"{data.root}: no pairs of a photo and its twin; expected a folder of asr-resynthesise")
    judged = tuple(sample for pair in content_matched_pairs(data.val) for sample in pair)
    sources = np.array([(_photo_source(photo), photo.source) for photo, _ in pairs])
    config = extractor.config
    path = folder / f"pairs-{extraction_key(extractor.network, config, data.summary()['fingerprint'])}.npz"
    if is_whole(path, "differences", "plain"):
        content = np.load(path)
        return PairTable(content["differences"], sources, judged, content["plain"])
    preprocess = InputTransform(**config.preprocess)
    images = TrainingImages([sample for pair in pairs for sample in pair], preprocess, config.augment)
    draws = [(i, draw(config.seed, 0, pairs[i // 2][1].path.name)) for i in range(2 * len(pairs))]
    seen = EvaluationImages(judged, preprocess, config.quality)
    tables = []
    for part, samples, title in (
        (Keyed(images, draws), images.samples, "pairs"),
        (seen, judged, "validation pairs"),
    ):
        features, problems = extractor(part, title)
        if problems:
            index, why = problems[0]
            raise DatasetError(f"{samples[index].path}: a picture of a pair cannot be read ({why})")
        tables.append(features)
    table = PairTable((tables[0][1::2] - tables[0][::2]) / np.float32(2), sources, judged, tables[1])
    keep(path, differences=table.differences, plain=table.plain)
    return table


def _photo_source(sample: Sample) -> str:
    """Return the source that asr-resynthesise puts before the file's hash."""
    return sample.path.stem.rpartition("_")[0]
