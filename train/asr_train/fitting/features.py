"""Features of a frozen trunk, extracted once per picture and view, in files of which one is in memory at a time.

A picture is seen in several augmented views, and in one or more windows as evaluation sees it; fitting uses them all.
What is drawn for a view depends on the seed, the picture's path and the view alone: leaving sources out changes nothing
for the others. Heads are fitted on moments, which add up over files and over processes (`asr_train.fitting.ridge`).
"""

from __future__ import annotations

import copy
import hashlib
import json
import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, overload

import numpy as np
import torch
from numpy.typing import NDArray

from asr_models import InputTransform
from asr_runtime.errors import InputError, SourceError
from asr_train.data.batches import EvaluationImages, PictureViews, TrainingImages
from asr_train.data.degradations import Degradation
from asr_train.data.layouts import DataFolder, Sample, grouped
from asr_train.data.shards import ShardSamples
from asr_train.data.windows import window_places
from asr_train.fitting.extraction import Extractor, draw, extraction_key, is_whole, keep
from asr_train.fitting.ranks import ALONE, Ranks
from asr_train.fitting.ridge import Array, Head, Pictures

__all__ = ["FeatureStore"]

log = logging.getLogger("asr_train")

T = TypeVar("T")

_CHUNK = 64  # pictures whose features share a file
_ARRAYS = ("windows", "views", "good", "unreadable")  # in such a file


@dataclass(frozen=True)
class _Chunk:
    """Up to `_CHUNK` pictures of one source and label, extracted together and stored in one file."""

    split: str
    label: int
    source: str
    positions: NDArray[np.int_]  # in the split


class FeatureStore:
    """Features of the readable pictures of a data folder's training and validation split, in files.

    Features are in `folder`/features; each file has some pictures of one source. A run that was stopped goes on, and
    other sources beside known ones cost their own pictures only. A file's name covers the trunk's weights, the
    configuration, its pictures (name, size, first and last bytes), and the code and packages that extract. A file is
    made again if it is damaged, or if a picture of it that could not be read can be read now. Several processes have a
    part of the files each; they must call the same methods in the same order, and need not share the folder.

    A row is a readable picture: training pictures first, those of one file one after the other.

    Args:
        extractor: of the network; of its configuration `augment`, `views`, `windows`, `seed` and `quality` are used.
        data: the pictures.
        folder: of all runs.
        ranks: the processes that extract together.
        degradation: what happens to every picture first; then only the centre of each is looked at, without views.

    Attributes:
        groups: label and source of every group of pictures.
        group_of: int32 (n,), the group of each row.
        trained: how many rows are training pictures.
        unreadable: path -> why, of the others.
    """

    def __init__(
        self,
        extractor: Extractor,
        data: DataFolder,
        folder: Path,
        ranks: Ranks = ALONE,
        degradation: Degradation | None = None,
    ) -> None:
        self._extractor, self._data, self._ranks, self._degradation = extractor, data, ranks, degradation
        self._windows = extractor.config.windows if degradation is None else 1
        self._columns: NDArray[np.int_] | None = None
        self._row_of: dict[Path, int] = {}
        chunks, problems = _chunks(data)
        self._key = extraction_key(extractor.network, extractor.config, *([degradation.name] if degradation else []))
        self._own = [(n, chunk, self._path(chunk, folder)) for n, chunk in ranks.share(list(enumerate(chunks)))]
        missing = [
            (chunk, path)
            for _, chunk, path in self._own
            if not is_whole(path, *_ARRAYS) or self._reads_again(chunk, path)
        ]
        if missing:
            log.info("features: %d of %d files to extract", len(missing), len(self._own))
            self._extract(missing)
        self._number(chunks, problems)

    def _path(self, chunk: _Chunk, folder: Path) -> Path:
        names = [sample.key(self._data.root) for sample in _Part(self._data, [chunk])]
        key = hashlib.sha256(json.dumps([self._key, chunk.split == "train", names]).encode()).hexdigest()[:16]
        return folder / "features" / f"{key}.npz"

    def _reads_again(self, chunk: _Chunk, path: Path) -> bool:
        """Whether a picture that could not be read when a file was made can be read now."""
        for place in json.loads(str(np.load(path)["unreadable"])):
            sample = _split(self._data, chunk.split)[int(chunk.positions[int(place)])]
            try:
                sample.read()
            except InputError:
                continue
            log.info("%s: can be read now, so its file is extracted again", sample.path)
            return True
        return False

    def _number(self, chunks: Sequence[_Chunk], problems: dict[str, str]) -> None:
        """Number the readable pictures of all processes' files."""
        good: dict[int, NDArray[np.int_]] = {}
        for number, chunk, path in self._own:
            content = np.load(path)
            good[number] = chunk.positions[content["good"]]
            for place, why in json.loads(str(content["unreadable"])).items():
                where = str(_split(self._data, chunk.split)[int(chunk.positions[int(place)])].path)
                problems[where] = f"{where}: {why}"  # where it is now
        parts = self._ranks.gather((good, problems))
        everywhere = {number: rows for part, _ in parts for number, rows in part.items()}
        self.unreadable: dict[str, str] = {path: why for _, part in parts for path, why in part.items()}
        self.groups = sorted({(chunk.label, chunk.source) for chunk in chunks})
        place = {group: number for number, group in enumerate(self.groups)}
        counts = [len(everywhere[number]) for number in range(len(chunks))]
        self._starts = np.cumsum([0, *counts])
        groups = np.array([place[chunk.label, chunk.source] for chunk in chunks], np.int32)
        self.group_of = np.repeat(groups, counts)
        self._positions = np.concatenate([everywhere[n] for n in range(len(chunks))] or [np.empty(0, np.int64)])
        self.trained = int(self._starts[sum(chunk.split == "train" for chunk in chunks)])

    def __len__(self) -> int:
        """Count the readable pictures."""
        return len(self.group_of)

    @property
    def labels(self) -> NDArray[np.int_]:
        """The label of every row: (n,)."""
        return np.array([label for label, _ in self.groups], np.int64)[self.group_of]

    def samples(self, rows: NDArray[np.int_]) -> tuple[Sample, ...]:
        """Return the pictures of some rows."""
        return tuple(self._sample(row) for row in rows.tolist())

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int_]:
        """Where these pictures stand; those that could not be read are left out."""
        if samples is self._data.val:
            return np.arange(self.trained, len(self))
        if not self._row_of:
            self._row_of = {self._sample(row).path: row for row in range(self.trained, len(self))}
        known, rest = self._row_of, {sample.path for sample in samples} - set(self._row_of)
        if rest:  # training pictures: looked for one by one, so that their number costs no memory
            known = known | {path: row for row in range(self.trained) if (path := self._sample(row).path) in rest}
        return np.array([known[s.path] for s in samples if s.path in known], dtype=np.int64)

    def _sample(self, row: int) -> Sample:
        return _split(self._data, "train" if row < self.trained else "val")[int(self._positions[row])]

    def with_columns(self, columns: NDArray[np.int_]) -> FeatureStore:
        """Return the same pictures with some of the features."""
        chosen = copy.copy(self)
        chosen._columns = columns
        return chosen

    @property
    def pictures(self) -> Pictures:
        """The training pictures, as `asr_train.fitting.ridge.RidgeFit` takes them: the views, then the windows."""
        size = self._extractor.network.features_out if self._columns is None else len(self._columns)
        return Pictures(self.groups, self.group_of[: self.trained], size, self._blocks)

    def _blocks(self, chosen: NDArray[np.bool_]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]:
        for rows, path in self._files(np.flatnonzero(chosen)):
            with np.load(path) as content:
                both = np.concatenate([content["views"], content["windows"].swapaxes(0, 1)])
            own = chosen[rows]
            yield np.arange(rows.start, rows.stop)[own], self._chosen(both[:, own])

    def windows(self, rows: NDArray[np.int_]) -> Iterator[tuple[NDArray[np.int_], NDArray[np.float32]]]:
        """Yield the places in `rows` (m,) and the windows (m, W, F) of pictures, file by file of this process."""
        place = np.full(len(self), -1)
        place[rows] = np.arange(len(rows))
        for own, path in self._files(rows):
            chosen = place[own] >= 0
            with np.load(path) as content:
                yield place[own][chosen], self._chosen(content["windows"][chosen])

    def margins(self, head: Head, rows: NDArray[np.int_]) -> Array:
        """Return the margins (k, W) of the windows of k pictures, the centre first."""
        margins = np.zeros((len(rows), self._windows))
        for places, features in self.windows(rows):
            margins[places] = head(features)
        return self._ranks.total(torch.from_numpy(margins)).numpy()

    def _files(self, rows: NDArray[np.int_]) -> Iterator[tuple[slice, Path]]:
        """Yield the files of this process that hold some of the rows, and all rows of each."""
        wanted = np.zeros(len(self) + 1, np.int64)
        wanted[rows + 1] = 1
        before = np.cumsum(wanted)
        for number, _, path in self._own:
            start, stop = int(self._starts[number]), int(self._starts[number + 1])
            if before[stop] > before[start]:
                yield slice(start, stop), path

    def _chosen(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        return features if self._columns is None else features[..., self._columns]

    def _extract(self, files: Sequence[tuple[_Chunk, Path]]) -> None:
        """Extract files, each written when its last picture is done."""
        config, network = self._extractor.config, self._extractor.network
        preprocess = InputTransform(**config.preprocess)
        trained = _Part(self._data, [chunk for chunk, _ in files if chunk.split == "train"])
        everything = _Part(self._data, [chunk for chunk, _ in files])  # training split first
        quality, places = config.quality, window_places(self._windows)
        if self._degradation is not None:
            quality = self._degradation.quality_after(quality)
        plain = EvaluationImages(everything, preprocess, quality, self._degradation)
        augmented = TrainingImages(trained, preprocess, config.augment)
        draws = _Draws(trained, self._data.root, config.seed, config.views)
        title = self._degradation.name if self._degradation else "features"
        done = self._extractor.stream(PictureViews(plain, places, augmented, draws), title)
        for number, (chunk, path) in enumerate(files):
            rows, good, unreadable = [], [], {}
            for place, position in enumerate(chunk.positions.tolist()):
                features, batch = next(done)
                if batch.problems:
                    where = _split(self._data, chunk.split)[position].path
                    unreadable[str(place)] = batch.problems[0][1].removeprefix(f"{where}: ")
                else:
                    good.append(place)
                    rows.append(features)  # (W + V, F), or (W, F) of a validation picture
            width = len(places) + (config.views if chunk.split == "train" else 0)
            table = np.stack(rows) if rows else np.empty((0, width, network.features_out), np.float32)
            keep(
                path,
                windows=table[:, : len(places)],
                views=table[:, len(places) :].swapaxes(0, 1),
                good=np.array(good, np.int64),
                unreadable=np.array(json.dumps(unreadable)),
            )
            if number % 10 == 9:
                log.info("features: %d of %d files", number + 1, len(files))


class _Part(Sequence[Sample]):
    """The pictures of some chunks, each looked up when it is asked for."""

    def __init__(self, data: DataFolder, chunks: Sequence[_Chunk]) -> None:
        self._data, self._splits = data, [chunk.split for chunk in chunks]
        self._chunk_of = np.repeat(np.arange(len(chunks)), [len(chunk.positions) for chunk in chunks])
        self._positions = np.concatenate([chunk.positions for chunk in chunks] or [np.empty(0, np.int64)])

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, place: int) -> Sample: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[Sample]: ...
    def __getitem__(self, place: int | slice) -> Sample | Sequence[Sample]:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        return _split(self._data, self._splits[self._chunk_of[place]])[int(self._positions[place])]


class _Draws(Sequence[list[int]]):
    """What is drawn for every view of each picture."""

    def __init__(self, samples: Sequence[Sample], root: Path, seed: int, views: int) -> None:
        self._samples, self._root, self._seed, self._views = samples, root, seed, views

    def __len__(self) -> int:
        return len(self._samples)

    @overload
    def __getitem__(self, place: int) -> list[int]: ...
    @overload
    def __getitem__(self, place: slice) -> Sequence[list[int]]: ...
    def __getitem__(self, place: int | slice) -> Any:
        if isinstance(place, slice):
            return [self[i] for i in range(*place.indices(len(self)))]
        name = self._samples[place].key(self._root)[0]
        return [draw(self._seed, view, name) for view in range(self._views)]


def _split(data: DataFolder, name: str) -> Sequence[Sample]:
    samples: Sequence[Sample] = getattr(data, name)
    return samples


def _chunks(data: DataFolder) -> tuple[list[_Chunk], dict[str, str]]:
    """Return the chunks of both splits, training first, and the problem of every row of an index that is damaged."""
    chunks: list[_Chunk] = []
    problems: dict[str, str] = {}
    for name in ("train", "val"):
        samples = _split(data, name)
        for label, source, together in _runs(samples):
            if label in (0, 1):
                cuts = range(_CHUNK, len(together), _CHUNK)
                chunks += [_Chunk(name, label, source, part) for part in np.split(together, cuts)]
                continue
            for position in together.tolist():
                try:
                    samples[position]
                except SourceError as error:
                    problems[f"{name} {position}"] = str(error)
    return chunks, problems


def _runs(samples: Sequence[Sample]) -> Iterator[tuple[int, str, NDArray[np.int_]]]:
    """Yield label, source and positions of pictures that stand together: in a folder, or in a tar file."""
    if isinstance(samples, ShardSamples):
        for place in range(len(samples.groups)):
            labels, sources = samples.labels_and_sources(place)
            groups: dict[tuple[int, str], list[int]] = {}
            for position, (label, source) in enumerate(zip(labels, sources, strict=True)):
                groups.setdefault((int(label), source), []).append(position)
            for (label, source), positions in sorted(groups.items()):
                yield label, source, np.array(positions, np.int64) + int(samples.starts[place])
        return
    names, group_of = grouped(samples)
    cuts = np.flatnonzero(np.diff(group_of)) + 1
    for together in np.split(np.arange(len(group_of)), cuts) if len(group_of) else ():
        yield *names[group_of[together[0]]], together
