"""Features of a frozen trunk, extracted once per picture and view and kept, so that heads are fitted in seconds.

A picture is seen in several augmented views and once as evaluation sees it; fitting uses them all. What is drawn for a
view depends on the seed, the picture's path and the view alone: leaving sources out changes nothing for the others.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_models import ASRNetLite, Preprocess
from asr_runtime.errors import DatasetError
from asr_train.data.batches import EvaluationImages, TrainingImages
from asr_train.data.clips import ClipImages, thinned
from asr_train.data.degradations import Degradation
from asr_train.data.layouts import DataFolder, Sample
from asr_train.figures.pairs import content_matched_pairs
from asr_train.fitting.config import ClosedFormConfig
from asr_train.fitting.extraction import Keyed, draw, extract, extraction_key, keep

__all__ = ["ClipTable", "FeatureTable", "PairTable", "clip_table", "degraded_table", "feature_table", "pair_table"]

log = logging.getLogger("asr_train")


@dataclass(frozen=True)
class FeatureTable:
    """Features of the readable pictures of a data folder.

    Attributes:
        samples: the n pictures, training split first.
        plain: float32 (n, F), as evaluation sees them.
        views: float32 (V + 1, n_train, F), of the training split: V augmented ones and the plain one.
        unreadable: path -> why.
    """

    samples: tuple[Sample, ...]
    plain: NDArray[np.float32]
    views: NDArray[np.float32]
    unreadable: dict[str, str]

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int_]:
        """Where these pictures stand; those that could not be read are left out."""
        index = {sample.path: row for row, sample in enumerate(self.samples)}
        return np.array([index[s.path] for s in samples if s.path in index], dtype=np.int64)


def feature_table(network: ASRNetLite, config: ClosedFormConfig, data: DataFolder, folder: Path) -> FeatureTable:
    """Extract the features of a data folder's training and validation split, or read what was extracted before.

    Args:
        network: its trunk is frozen; the head is not used.
        config: `preprocess`, `augment`, `views`, `seed`, `quality`, `batch_size` and `workers` are used.
        data: the pictures.
        folder: `features-<key>.npz` is kept here; the key covers the trunk's weights, the data and the configuration.
    """
    path = folder / f"features-{extraction_key(network, config, data)}.npz"
    if path.is_file():
        log.info("features: read from %s", path)
        return _read(path, data)
    preprocess = Preprocess(**config.preprocess)
    trained = TrainingImages(data.train, preprocess, config.augment)
    seen = EvaluationImages((*data.train, *data.val), preprocess, config.quality)
    plain, problems = extract(network, config, seen, "features")
    bad = {index for index, _ in problems}
    good_train = [i for i in range(len(data.train)) if i not in bad]
    views = []
    for view in range(config.views):
        names = (data.train[i].path.relative_to(data.root).as_posix() for i in good_train)
        draws = [(i, draw(config.seed, view, name)) for i, name in zip(good_train, names, strict=True)]
        views.append(extract(network, config, Keyed(trained, draws), f"view {view + 1}")[0])
    good = [i for i in range(len(seen)) if i not in bad]
    samples = tuple(seen.samples[i] for i in good)
    unreadable = {str(seen.samples[i].path): why for i, why in problems}
    keep(path, plain=plain, views=np.stack(views), good=np.array(good), unreadable=np.array(json.dumps(unreadable)))
    return FeatureTable(samples, plain, _with_plain(views, plain), unreadable)


def degraded_table(
    network: ASRNetLite, config: ClosedFormConfig, samples: Sequence[Sample], degradation: Degradation
) -> FeatureTable:
    """Extract the features of degraded pictures, as `asr_train.evaluation.robustness` degrades them; without views."""
    quality = degradation.quality_after(config.quality)
    images = EvaluationImages(samples, Preprocess(**config.preprocess), quality, degradation)
    features, problems = extract(network, config, images, degradation.name)
    unreadable = {str(samples[i].path): why for i, why in problems}
    good = tuple(sample for sample in samples if str(sample.path) not in unreadable)
    return FeatureTable(good, features, np.empty((0, 0, network.features_out), np.float32), unreadable)


def _with_plain(views: Sequence[NDArray[np.float32]], plain: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.stack([*views, plain[: len(views[0])]])


@dataclass(frozen=True)
class ClipTable:
    """Features of pictures as frames of a video (`asr_train.data.clips`).

    Attributes:
        samples: the n pictures, training split first; those that cannot be read or encoded are left out.
        features: float32 (n, F), the mean over the frames of each clip. Margins are linear in the features, so a head
            makes the mean margin of them.
    """

    samples: tuple[Sample, ...]
    features: NDArray[np.float32]


def clip_table(network: ASRNetLite, config: ClosedFormConfig, data: DataFolder, folder: Path) -> ClipTable:
    """Extract the features of clips made of both splits, or read what was extracted before.

    Args:
        network: as for `feature_table`.
        config: as for `feature_table`.
        data: the pictures.
        folder: `clips-<key>.npz` is kept here.
    """
    samples = (*thinned(data.train), *thinned(data.val))
    path = folder / f"clips-{extraction_key(network, config, data)}.npz"
    if path.is_file():
        log.info("features of clips: read from %s", path)
        content = np.load(path)
        return ClipTable(tuple(samples[i] for i in content["good"]), content["features"])
    images = ClipImages(samples, Preprocess(**config.preprocess), config.quality)
    good, features = images.per_clip(*extract(network, config, images, "clips"))
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


def pair_table(network: ASRNetLite, config: ClosedFormConfig, data: DataFolder, folder: Path) -> PairTable:
    """Extract the features of a folder that asr-resynthesise made, or read what was extracted before.

    Args:
        network: as for `feature_table`.
        config: as for `feature_table`; one view is used.
        data: the pairs.
        folder: `pairs-<key>.npz` is kept here.

    Raises:
        DatasetError: no pair in the training split, or a picture that cannot be read.
    """
    pairs = content_matched_pairs(data.train)
    if not pairs:
        raise DatasetError(f"{data.root}: no pairs of a photo and its twin; expected a folder of asr-resynthesise")
    judged = tuple(sample for pair in content_matched_pairs(data.val) for sample in pair)
    sources = np.array([(_photo_source(photo), photo.source) for photo, _ in pairs])
    path = folder / f"pairs-{extraction_key(network, config, data)}.npz"
    if path.is_file():
        content = np.load(path)
        return PairTable(content["differences"], sources, judged, content["plain"])
    preprocess = Preprocess(**config.preprocess)
    images = TrainingImages([sample for pair in pairs for sample in pair], preprocess, config.augment)
    draws = [(i, draw(config.seed, 0, pairs[i // 2][1].path.name)) for i in range(2 * len(pairs))]
    seen = EvaluationImages(judged, preprocess, config.quality)
    found = []
    for part, samples, title in (
        (Keyed(images, draws), images.samples, "pairs"),
        (seen, judged, "validation pairs"),
    ):
        features, problems = extract(network, config, part, title)
        if problems:
            index, why = problems[0]
            raise DatasetError(f"{samples[index].path}: a picture of a pair cannot be read ({why})")
        found.append(features)
    table = PairTable((found[0][1::2] - found[0][::2]) / np.float32(2), sources, judged, found[1])
    keep(path, differences=table.differences, plain=table.plain)
    return table


def _photo_source(sample: Sample) -> str:
    """Return the source that asr-resynthesise puts before the file's hash."""
    return sample.path.stem.rpartition("_")[0]


def _read(path: Path, data: DataFolder) -> FeatureTable:
    content = np.load(path)
    everything = (*data.train, *data.val)
    samples = tuple(everything[i] for i in content["good"])
    plain, unreadable = content["plain"], json.loads(str(content["unreadable"]))
    return FeatureTable(samples, plain, _with_plain(content["views"], plain), unreadable)
