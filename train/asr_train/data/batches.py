"""From data folder to batches: reading, random crops, balanced drawing.

A batch is a `Batch`: frames (B, S, S, 3) BGR in [0, 255], uint8 or float32, before normalisation.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from asr_models import InputTransform
from asr_runtime.errors import InputError
from asr_runtime.heap import keep_freed_memory
from asr_train.data.augment import Augment, equalise, mirrored_window
from asr_train.data.layouts import Sample
from asr_train.data.windows import CENTRE, Place, equalised_window

__all__ = [
    "Batch",
    "EvaluationImages",
    "Item",
    "PictureViews",
    "RankBatches",
    "TrainingImages",
    "collate",
    "prepare_worker",
]


@dataclass(frozen=True)
class Item:
    """One image of a dataset; `frame` is None when the file could not be read, and `problem` says why.

    The label of an image that could not be read means nothing.
    """

    index: int
    label: int
    frame: Tensor | None
    problem: str = ""


class Batch(NamedTuple):
    """Frames (B, S, S, 3), labels int64 (B,), index of each in its dataset; unreadable files are left out and named."""

    frames: Tensor
    labels: Tensor
    indices: Tensor
    problems: tuple[tuple[int, str], ...] = ()


def collate(items: Sequence[Item]) -> Batch:
    """Stack the readable items of a batch."""
    good = [(item, item.frame) for item in items if item.frame is not None]
    frames = torch.stack([frame for _, frame in good]) if good else torch.empty(0, 0, 0, 3, dtype=torch.uint8)
    return Batch(
        frames,
        torch.tensor([item.label for item, _ in good], dtype=torch.int64),
        torch.tensor([item.index for item, _ in good], dtype=torch.int64),
        tuple((item.index, item.problem) for item in items if item.frame is None),
    )


def prepare_worker(_: int) -> None:
    """Prepare a process that reads pictures: `worker_init_fn` of a DataLoader.

    Large pictures are decoded, encoded and resized again and again, each time into memory of its own.
    """
    keep_freed_memory()


class TrainingImages(Dataset[Item]):
    """Augmented crops. An item is asked for as (index, draw): the same draw gives the same crop, in any worker.

    Args:
        samples: the training split.
        preprocess: of the network; its geometry, made random, is the training crop.
        augment: what else varies.
    """

    def __init__(self, samples: Sequence[Sample], preprocess: InputTransform, augment: Augment) -> None:
        self.samples, self.preprocess, self.augment = samples, preprocess, augment
        self._squash = InputTransform("squash", preprocess.size)

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        """Read and augment one image."""
        index, draw = key
        try:
            sample = self.samples[index]
            image = sample.read()
        except InputError as error:
            return Item(index, -1, None, str(error))
        return Item(index, sample.label, self.view(image, draw))

    def view(self, image: NDArray[np.uint8], draw: int) -> Tensor:
        """Augment one decoded picture: (H, W, 3) -> (S, S, 3)."""
        rng = np.random.default_rng(draw)
        crop = self._native(image, rng) if self.preprocess.mode == "crop" else self._resized(image, rng)
        return torch.from_numpy(self.augment.pose(crop, rng))

    def _native(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.generic]:
        """Random window at (nearly) native resolution, degraded, then cut at another random offset.

        The second cut keeps the block grid of the re-encoding from always starting at the crop's corner.
        """
        size = self.preprocess.size
        margin = max(2, size // 12)
        scale = self.augment.scale(rng)
        side = math.ceil((size + margin) / scale)
        window = mirrored_window(image, *_place(image, side, rng), side, side)
        window = self.augment.live(window, rng)
        if side != size + margin:
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            window = np.asarray(cv2.resize(window, (size + margin, size + margin), interpolation=method), np.uint8)
        window = self.augment.degrade(window, rng)
        top, left = rng.integers(0, margin + 1, 2).tolist()
        return mirrored_window(window, top, left, size, size)

    def _resized(self, image: NDArray[np.uint8], rng: np.random.Generator) -> NDArray[np.generic]:
        """Degrade the whole image, then resize a random square (`resize-crop`) or the whole image (`squash`)."""
        scale = self.augment.scale(rng)
        image = self.augment.live(image, rng)
        if scale != 1.0:
            width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
            method = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
            image = np.asarray(cv2.resize(image, (width, height), interpolation=method), np.uint8)
        image = self.augment.degrade(image, rng)
        if self.preprocess.resize is not None:
            side = max(1, round(min(image.shape[:2]) * self.preprocess.size / self.preprocess.resize))
            image = mirrored_window(image, *_place(image, side, rng), side, side)
        return self._squash.geometry(torch.from_numpy(np.ascontiguousarray(image))[None])[0].numpy()


class EvaluationImages(Dataset[Item]):
    """Images as the deployed graph sees them: no randomness, the network's own geometry.

    Args:
        samples: the split.
        preprocess: of the network.
        quality: JPEG quality that every image is re-encoded with first; None leaves the files as they are.
        transform: what else happens to every image, before the re-encoding; it must pickle.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: InputTransform,
        quality: int | None = None,
        transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    ) -> None:
        self.samples, self.preprocess, self.quality, self.transform = samples, preprocess, quality, transform

    def __len__(self) -> int:
        """Count the samples."""
        return len(self.samples)

    def __getitem__(self, index: int) -> Item:
        """Read one image."""
        try:
            sample = self.samples[index]
            image = sample.read()
            if self.transform is not None:
                image = self.transform(image)
        except InputError as error:
            return Item(index, -1, None, str(error))
        return Item(index, sample.label, self.window(image, CENTRE))

    def window(self, image: NDArray[np.uint8], place: Place) -> Tensor:
        """Re-encode one decoded picture and cut a window: (H, W, 3) -> (S, S, 3).

        A network that resizes sees the whole picture, whatever the place.
        """
        if self.preprocess.mode == "crop":
            return torch.from_numpy(equalised_window(image, place, self.preprocess.size, self.quality))
        if self.quality is not None:
            image = equalise(image, self.quality)
        return self.preprocess.geometry(torch.from_numpy(image)[None])[0]


class PictureViews(Dataset[list[Item]]):
    """All views of each picture, which is decoded once: its windows as evaluation sees them, then augmented views.

    Args:
        plain: the pictures.
        places: windows of each picture.
        trained: the same pictures, or the first of them, for augmented views.
        draws: of each picture of `trained`, one for each of its augmented views.
    """

    def __init__(
        self, plain: EvaluationImages, places: Sequence[Place], trained: TrainingImages, draws: Sequence[Sequence[int]]
    ) -> None:
        self.plain, self.places, self.trained, self.draws = plain, tuple(places), trained, draws

    def __len__(self) -> int:
        """Count the pictures."""
        return len(self.plain)

    def __getitem__(self, index: int) -> list[Item]:
        """Return an item for each view, or a single one with the problem of a picture that cannot be read."""
        try:
            sample = self.plain.samples[index]
            image = sample.read()
        except InputError as error:
            return [Item(index, -1, None, str(error))]
        frames = [self.plain.window(image, place) for place in self.places]
        if index < len(self.draws):
            frames += [self.trained.view(image, draw) for draw in self.draws[index]]
        return [Item(index, sample.label, frame) for frame in frames]


class RankBatches(Sampler[list[tuple[int, int]]]):
    """One rank's part of every batch. All ranks together have the batches that one process would have.

    Args:
        draws: of all ranks; the same on each.
        size: pictures of a batch, over all ranks.
        rank: of this process.
        ranks: how many there are.
    """

    def __init__(self, draws: Sampler[tuple[int, int]], size: int, rank: int = 0, ranks: int = 1) -> None:
        self.sampler, self.size, self.rank, self.ranks = draws, size, rank, ranks
        self._length = max(1, len(draws) // size)  # type: ignore[arg-type]
        self.skipped = 0
        """Batches at the start of the next epoch that an interrupted run has behind it."""

    def __len__(self) -> int:
        """Batches per epoch. A shorter last one is left out: one image has no batch statistics."""
        return self._length

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """Yield (index, draw) of each batch."""
        skipped, self.skipped = self.skipped, 0
        draws = iter(self.sampler)
        for number in range(len(self)):
            batch = list(islice(draws, self.size))
            if number >= skipped:
                yield batch[self.rank :: self.ranks]


def _place(image: NDArray[np.uint8], side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Top-left corner of a random window of `side`; centred along an axis that is shorter than it."""

    def along(length: int) -> int:
        return int(rng.integers(0, length - side + 1)) if length >= side else (length - side) // 2

    return along(image.shape[0]), along(image.shape[1])
