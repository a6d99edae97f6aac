"""Features of a frozen trunk, extracted once per picture and view and stored, so that heads are fitted in seconds.

A picture is seen in several augmented views, and in one or more windows as evaluation sees it; fitting uses them all.
What is drawn for a view depends on the seed, the picture's path and the view alone: leaving sources out changes nothing
for the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_models import InputTransform
from asr_runtime.errors import DatasetError
from asr_train.data.batches import EvaluationImages, PictureViews, TrainingImages
from asr_train.data.clips import ClipImages, thinned
from asr_train.data.degradations import Degradation
from asr_train.data.layouts import DataFolder, Sample, content_key
from asr_train.data.windows import window_places
from asr_train.figures.pairs import content_matched_pairs
from asr_train.fitting.extraction import Extractor, Keyed, draw, extraction_key, is_whole, keep
from asr_train.fitting.ranks import Ranks

__all__ = [
    "ClipTable",
    "FeatureTable",
    "PairTable",
    "clip_table",
    "degraded_table",
    "extract_shares",
    "feature_table",
    "pair_table",
]

log = logging.getLogger("asr_train")

_SHARD = 64  # pictures whose features share a file
_ARRAYS = ("windows", "views", "good", "unreadable")  # in such a file
_WHOLE_CLIPS = 3  # one clip in so many is looked at as a whole


@dataclass(frozen=True)
class FeatureTable:
    """Features of the readable pictures of a data folder.

    Attributes:
        samples: the n pictures, training split first.
        windows: float32 (n, W, F), each picture's windows as evaluation sees them, the centre first.
        views: float32 (V, n_train, F), augmented views of the training split.
        unreadable: path -> why.
    """

    samples: tuple[Sample, ...]
    windows: NDArray[np.float32]
    views: NDArray[np.float32]
    unreadable: dict[str, str]

    @property
    def plain(self) -> NDArray[np.float32]:
        """The centre of every picture: float32 (n, F)."""
        return self.windows[:, 0]

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int_]:
        """Where these pictures stand; those that could not be read are left out."""
        index = {sample.path: row for row, sample in enumerate(self.samples)}
        return np.array([index[s.path] for s in samples if s.path in index], dtype=np.int64)


@dataclass(frozen=True)
class _Shard:
    """Up to `_SHARD` pictures of one source and split, extracted together and stored in one file."""

    first: int  # index of the first picture, training split first
    pictures: int
    trained: bool
    path: Path


def feature_table(extractor: Extractor, data: DataFolder, folder: Path) -> FeatureTable:
    """Extract the features of a data folder's training and validation split, or read what was extracted before.

    Features are in `folder`/features; each file has some pictures of one source. A run that was stopped goes on, and
    other sources beside known ones cost their own pictures only. A file's name covers the trunk's weights, the
    configuration, its pictures (name, size, first and last bytes), and the code and packages that extract. A damaged
    file is made again.

    Args:
        extractor: of the network; of its configuration `augment`, `views`, `windows`, `seed` and `quality` are used.
        data: the pictures.
        folder: of all runs.
    """
    config = extractor.config
    shards = list(_shards(extractor, data, folder / "features"))
    missing = [shard for shard in shards if not is_whole(shard.path, *_ARRAYS)]
    everything = (*data.train, *data.val)
    if missing:
        log.info("features: %d of %d files to extract", len(missing), len(shards))
        _extract(extractor, data, missing)
    windows = np.empty((len(everything), config.windows, extractor.network.features_out), np.float32)
    views = np.empty((config.views, len(data.train), extractor.network.features_out), np.float32)
    readable: list[int] = []
    unreadable: dict[str, str] = {}
    trained = 0
    for shard in shards:
        content = np.load(shard.path)
        good = (content["good"] + shard.first).tolist()
        windows[len(readable) : len(readable) + len(good)] = content["windows"]
        if shard.trained:
            views[:, trained : trained + len(good)] = content["views"]
            trained += len(good)
        readable += good
        for place, why in json.loads(str(content["unreadable"])).items():
            path = str(everything[int(place) + shard.first].path)
            unreadable[path] = f"{path}: {why}"  # where it is now
    return FeatureTable(
        tuple(everything[i] for i in readable), windows[: len(readable)], views[:, :trained], unreadable
    )


def extract_shares(extractor: Extractor, data: DataFolder, folder: Path, ranks: Ranks) -> None:
    """Extract what `feature_table` needs on all ranks, each a part of the files, and wait for one another.

    Args:
        extractor: as for `feature_table`.
        data: the pictures.
        folder: of all runs; the machines must share it.
        ranks: the processes that extract together.
    """
    shards = [shard for shard in _shards(extractor, data, folder / "features") if not shard.path.is_file()]
    ranks.gather(None)  # every rank must have seen the same files missing
    if own := ranks.share(shards):
        log.info("features: %d files to extract on %d processes", len(shards), ranks.size)
        _extract(extractor, data, own)
    ranks.gather(None)


def _shards(extractor: Extractor, data: DataFolder, folder: Path) -> Iterator[_Shard]:
    """Yield the shards of both splits in the order of their pictures."""
    weights = extraction_key(extractor.network, extractor.config)
    first = 0
    for samples, trained in ((data.train, True), (data.val, False)):
        for _, group in groupby(samples, key=lambda s: (s.source, s.label)):
            own = list(group)
            for start in range(0, len(own), _SHARD):
                part = own[start : start + _SHARD]
                names = [(s.path.relative_to(data.root).as_posix(), content_key(s.path)) for s in part]
                key = hashlib.sha256(json.dumps([weights, trained, names]).encode()).hexdigest()[:16]
                yield _Shard(first, len(part), trained, folder / f"{key}.npz")
                first += len(part)


def _extract(extractor: Extractor, data: DataFolder, shards: Sequence[_Shard]) -> None:
    """Extract shards, each written when its last picture is done."""
    config = extractor.config
    preprocess = InputTransform(**config.preprocess)
    everything = (*data.train, *data.val)
    order = sorted(shards, key=lambda shard: not shard.trained)
    samples = [everything[i] for shard in order for i in range(shard.first, shard.first + shard.pictures)]
    trained = samples[: sum(shard.pictures for shard in order if shard.trained)]
    names = [sample.path.relative_to(data.root).as_posix() for sample in trained]
    draws = [[draw(config.seed, view, name) for view in range(config.views)] for name in names]
    plain = EvaluationImages(samples, preprocess, config.quality)
    places = window_places(config.windows)
    pictures = PictureViews(plain, places, TrainingImages(trained, preprocess, config.augment), draws)
    done = extractor.stream(pictures, "features")
    for number, shard in enumerate(order):
        rows, good, unreadable = [], [], {}
        for place in range(shard.pictures):
            features, batch = next(done)
            if batch.problems:
                path = everything[shard.first + place].path
                unreadable[str(place)] = batch.problems[0][1].removeprefix(f"{path}: ")
            else:
                good.append(place)
                rows.append(features)  # (W + V, F), or (W, F) of a validation picture
        width = len(places) + (config.views if shard.trained else 0)
        table = np.stack(rows) if rows else np.empty((0, width, extractor.network.features_out), np.float32)
        keep(
            shard.path,
            windows=table[:, : len(places)],
            views=table[:, len(places) :].swapaxes(0, 1),
            good=np.array(good, np.int64),
            unreadable=np.array(json.dumps(unreadable)),
        )
        if number % 10 == 9:
            log.info("features: %d of %d files", number + 1, len(order))


def degraded_table(extractor: Extractor, samples: Sequence[Sample], degradation: Degradation) -> FeatureTable:
    """Extract the features of the centre of degraded pictures (`asr_train.data.degradations`); without views."""
    config = extractor.config
    quality = degradation.quality_after(config.quality)
    images = EvaluationImages(samples, InputTransform(**config.preprocess), quality, degradation)
    features, problems = extractor(images, degradation.name)
    unreadable = {str(samples[i].path): why for i, why in problems}
    good = tuple(sample for sample in samples if str(sample.path) not in unreadable)
    return FeatureTable(good, features[:, None], np.empty((0, 0, features.shape[1]), np.float32), unreadable)


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
        extractor: as for `feature_table`.
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
        extractor: as for `feature_table`; one view is used.
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
