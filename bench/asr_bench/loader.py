"""How fast pictures come out of a data folder against how fast ASRNet learns from them, and where the time goes."""

from __future__ import annotations

import itertools
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from asr_bench.figures import Figure, write_figures
from asr_bench.learner import WAYS, Learner, default_way
from asr_models import InputTransform
from asr_runtime.errors import DatasetError, InputError
from asr_runtime.media.image import decode_image
from asr_train.data.batches import RankBatches, TrainingImages, collate
from asr_train.data.draws import training_draws
from asr_train.data.layouts import Sample, find_data
from asr_train.fitting.config import LoopConfig, recipe

__all__ = ["LoaderFigures", "loader_figures"]

_REPEATS = 3
_BATCHES = 6  # of a repeat
_STEPS = 1  # of training in a repeat


@dataclass(frozen=True)
class LoaderFigures:
    """Measured in turn, one value per repeat.

    Attributes:
        data: name of the folder.
        layout: of it.
        workers: reading processes; training has as many threads.
        read, decode, augment: seconds a picture takes in one process.
        decoding: pictures per second that the same processes read and decode, and do nothing else with.
        loader: pictures per second that come out of the loader of asr-train.
        training: pictures per second that ASRNet learns from, of batches in memory.
    """

    data: str
    layout: str
    workers: int
    read: tuple[float, ...]
    decode: tuple[float, ...]
    augment: tuple[float, ...]
    decoding: tuple[float, ...]
    loader: tuple[float, ...]
    training: tuple[float, ...]

    def to_markdown(self) -> str:
        """Return the figures, medians over the repeats, as a Markdown table."""
        steps = [float(np.median(step)) for step in (self.read, self.decode, self.augment)]
        shares = " | ".join(f"{step / sum(steps):.0%}" for step in steps)
        decoding, loader, training = (float(np.median(x)) for x in (self.decoding, self.loader, self.training))
        return (
            "| data | processes | read | decode | augment | decoding alone /s | loader /s | ASRNet learns /s | "
            "loader : decoding | loader : ASRNet |\n|---|---|---|---|---|---|---|---|---|---|\n"
            f"| {self.data} ({self.layout}) | {self.workers} | {shares} | {decoding:.0f} | {loader:.0f} | "
            f"{training:.1f} | {loader / decoding:.2f} | {loader / training:.1f} |\n"
        )

    def write(self, folder: Path) -> None:
        """Write every value as `loader.json`, as `asr_bench.figures` does.

        Raises:
            OutputError: it cannot be written.
        """
        write_figures([self], folder / "loader.json")

    def figures(self) -> list[Figure]:
        """Return the steps and the rates."""
        of, ms = (
            f"{self.data}, {self.workers} processes",
            {"read": self.read, "decode": self.decode, "augment": self.augment},
        )
        rates = {"decoding alone": self.decoding, "loader": self.loader, "ASRNet learns": self.training}
        share = tuple(100 * loader / alone for loader, alone in zip(self.loader, self.decoding, strict=True))
        return [
            *(Figure(f"{of}: {name}", "ms", False, tuple(1e3 * s for s in values)) for name, values in ms.items()),
            *(Figure(f"{of}: {name}", "pictures/s", True, values) for name, values in rates.items()),
            Figure(f"{of}: loader over decoding alone", "%", True, share),
        ]


class _Decoded(Dataset[int]):
    """Pictures that are read, decoded and thrown away."""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self.samples = samples

    def __len__(self) -> int:
        return len(self.samples)

    def __getitem__(self, key: tuple[int, int]) -> int:
        try:
            return int(self.samples[key[0]].read().shape[0])
        except InputError:
            return 0


def loader_figures(root: str, workers: int | None = None) -> LoaderFigures:
    """Measure the loader of asr-train with ASRNet's published recipe.

    Args:
        root: the data folder, in any layout, or the URL of shards.
        workers: reading processes; None: one for each processor.

    Raises:
        DatasetError: no data folder, or none of its training pictures can be read.
    """
    workers = workers or os.cpu_count() or 1
    data = find_data(root)
    config = recipe("asrnet")
    assert isinstance(config, LoopConfig)
    transform = InputTransform(**config.preprocess)
    images = TrainingImages(data.split("train"), transform, config.augment)
    draws = training_draws(data.train, config.balance, config.batch_size * (_BATCHES + 2), config.seed)

    def batches(dataset: Dataset[Any], joined: Callable[[Any], Any]) -> Any:
        sampler = RankBatches(draws, config.batch_size)
        return DataLoader(dataset, batch_sampler=sampler, collate_fn=joined, num_workers=workers)

    threads = torch.get_num_threads()
    torch.set_num_threads(workers)
    try:
        learner = Learner(config, WAYS[default_way()])
        rng = torch.Generator().manual_seed(0)
        size = transform.size
        frames = torch.randint(0, 256, (config.batch_size, size, size, 3), generator=rng, dtype=torch.uint8)
        labels = torch.arange(config.batch_size) % 2
        learner.step(frames, labels)
        measured: dict[str, list[float]] = {name: [] for name in ("decoding", "loader", "training")}
        parts: list[tuple[float, float, float]] = []
        for _ in range(_REPEATS):
            parts.append(_parts(images, itertools.islice(draws, config.batch_size)))
            measured["decoding"].append(_rate(batches(_Decoded(data.train), list), config.batch_size))
            measured["loader"].append(_rate(batches(images, collate), config.batch_size))
            started = time.perf_counter()
            for _ in range(_STEPS):
                learner.step(frames, labels)
            measured["training"].append(_STEPS * config.batch_size / (time.perf_counter() - started))
    finally:
        torch.set_num_threads(threads)
    read, decode, augment = zip(*parts, strict=True)
    name = Path(root).name
    rates = {name: tuple(values) for name, values in measured.items()}
    return LoaderFigures(name, data.layout, workers, read, decode, augment, **rates)


def _rate(loader: Any, size: int) -> float:
    """Return pictures per second, the first batches left out: in them the processes start."""
    taken = iter(loader)
    for _ in range(2):
        next(taken)
    started = time.perf_counter()
    count = sum(1 for _ in taken)
    return count * size / (time.perf_counter() - started)


def _parts(images: TrainingImages, keys: Any) -> tuple[float, float, float]:
    """Return seconds for reading, decoding and augmenting a picture, in this process."""
    spent = np.zeros(3)
    good = 0
    for index, draw in keys:
        try:
            start = time.perf_counter()
            sample = images.samples[index]
            content = sample.data()
            in_memory = time.perf_counter()
            image = decode_image(content, str(sample.path))
            decoded = time.perf_counter()
            images.view(image, draw)
            spent += (in_memory - start, decoded - in_memory, time.perf_counter() - decoded)
            good += 1
        except InputError:
            continue
    if not good:
        raise DatasetError(f"{images.samples[0].path}, and others of the training split, cannot be read")
    read, decode, augment = (spent / good).tolist()
    return read, decode, augment
