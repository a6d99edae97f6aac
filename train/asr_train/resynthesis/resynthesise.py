"""Content-matched fakes: photos passed through neural networks that keep what is seen and leave a generator's traces.

`resynthesise` makes a data folder in the layout `generators`, one source per network. A photo window and its twin bear
the same name, so `asr_train.figures.pairs` finds them again:

    OUT/resynthesised_<network>/{train,val}/nature/<photo source>_<start of its SHA-256>.png    the window
    OUT/resynthesised_<network>/{train,val}/ai/<the same>.png                                   its twin
    OUT/index.csv                                                                               where each is from
"""

from __future__ import annotations

import hashlib
import math
import multiprocessing
import signal
import threading
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import CancelledError, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, DatasetError, InputError
from asr_runtime.media.image import read_image
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import write_whole
from asr_train.data.layouts import SPLITS, DataFolder
from asr_train.figures.pairs import PAIRED_SOURCE
from asr_train.resynthesis.index import Index, Row
from asr_train.resynthesis.taef2 import STRIDE, load_taef2
from asr_train.resynthesis.upscalers import UPSCALERS, load_upscaler

__all__ = ["MIN_SIDE", "RESYNTHESISERS", "Resynthesised", "Resynthesiser", "load_resynthesiser", "resynthesise"]

RESYNTHESISERS = ("taef2", *UPSCALERS)
MIN_SIDE = 32
"""Shortest side of a window in pixels."""

Image = NDArray[np.uint8]


class Resynthesiser(Protocol):
    """A network that redraws a photo."""

    name: str

    def apply(self, image: Image) -> Image:
        """Return the twin of a uint8 BGR image (H, W, 3), of the same size; always the same for the same image."""


@dataclass(frozen=True)
class Resynthesised:
    """What a run made.

    Attributes:
        made: pairs per resynthesiser.
        present: pairs that were there already, per resynthesiser.
        identical: photos whose twin is equal to them, as of a plain surface, and makes no pair, per resynthesiser.
        psnr: mean of the pairs that were made, in dB, per resynthesiser.
        failed: photo -> why it gave no pair.
    """

    made: Mapping[str, int]
    present: Mapping[str, int]
    identical: Mapping[str, int]
    psnr: Mapping[str, float]
    failed: Mapping[str, str]


@dataclass(frozen=True)
class _Task:
    """One photo and the resynthesisers it still needs; travels to a worker process."""

    path: Path
    photo: str
    source: str
    split: str
    names: tuple[str, ...]


def load_resynthesiser(name: str, weights: Path | None = None, threads: int = 1) -> Resynthesiser:
    """Load a resynthesiser.

    Args:
        name: one of `RESYNTHESISERS`.
        weights: folder of TAEF2's weights; the upscalers bring theirs along.
        threads: CPU threads of an upscaler (PyTorch has its own setting).

    Raises:
        ConfigurationError: an unknown name, or `taef2` without its weights.
        DependencyError: a package is not installed.
        ModelError: weights that are not what they should be.
    """
    if name == "taef2":
        return load_taef2(weights)
    if name not in UPSCALERS:
        raise ConfigurationError(f"{name}: no such resynthesiser; expected one of {', '.join(RESYNTHESISERS)}")
    return load_upscaler(name, threads)


def resynthesise(
    data: DataFolder,
    out: Path,
    names: Sequence[str],
    weights: Path | None = None,
    splits: Sequence[str] | None = None,
    side: int = 256,
    workers: int = 1,
    stop: threading.Event | None = None,
) -> Resynthesised:
    """Make pairs of every photo of a data folder, as far as they are not there yet.

    A window lies at a random place that the file's SHA-256 fixes; a photo shorter than `side` gives the largest
    multiple of 8. Files are lossless.

    Args:
        data: the folder; sources named `resynthesised_*` are not taken for photos.
        out: where to; may hold pairs of an earlier run.
        names: of `RESYNTHESISERS`.
        weights: folder of TAEF2's weights.
        splits: which to take; None takes all there are.
        side: longest side of a window in pixels, a multiple of 8.
        workers: processes; 1 works in this one.
        stop: when set, the run ends after the photos at hand.

    Raises:
        ConfigurationError: a value that cannot work, or `out` holds something else.
        DatasetError: no photos.
        DependencyError: a package is not installed.
        ModelError: a network that does not load.
        OutputError: the disk.
    """
    if side < MIN_SIDE or side % STRIDE:
        raise ConfigurationError(f"side {side}: expected a multiple of {STRIDE} of at least {MIN_SIDE} pixels")
    if workers < 1:
        raise ConfigurationError(f"workers {workers}: expected at least 1")
    names = tuple(dict.fromkeys(names))
    maker = _Maker(out, side, names, weights)  # raises before anything is written if a package or file is missing
    with Index(out, side) as index:
        tasks = _tasks(data, splits, names, index.present)
        outcomes = _outcomes([task for task in tasks if task.names], maker, workers, stop)
        count = sum(bool(task.names) for task in tasks)
        distances: defaultdict[str, list[float]] = defaultdict(list)
        identical: Counter[str] = Counter()
        failed: dict[str, str] = {}
        for task, outcome in progress_bar(outcomes, "resynthesising", total=count):
            if isinstance(outcome, str):
                failed[task.photo] = outcome
                continue
            index.add(outcome)
            identical.update(set(task.names) - {row.resynthesiser for row in outcome})
            for row in outcome:
                distances[row.resynthesiser].append(row.psnr)
    return Resynthesised(
        {name: len(distances[name]) for name in names},
        {name: sum(name not in task.names for task in tasks) for name in names},
        {name: identical[name] for name in names},
        {name: float(np.mean(distances[name])) for name in names if distances[name]},
        failed,
    )


def _tasks(
    data: DataFolder, splits: Sequence[str] | None, names: tuple[str, ...], present: set[tuple[str, str, str]]
) -> list[_Task]:
    tasks = []
    for split in splits or [name for name in SPLITS if getattr(data, name)]:
        for sample in data.split(split):
            if sample.label == 1 or sample.source.startswith(PAIRED_SOURCE):
                continue
            photo = sample.path.relative_to(data.root).as_posix()
            missing = tuple(name for name in names if (name, split, photo) not in present)
            tasks.append(_Task(sample.path, photo, sample.source, split, missing))
    if not tasks:
        raise DatasetError(f"{data.root}: no photo to resynthesise (looked for class nature or 0_real)")
    return tasks


class _Maker:
    """Makes and writes the pairs of one photo after the other; each worker process has one."""

    def __init__(self, out: Path, side: int, names: Sequence[str], weights: Path | None, threads: int = 1) -> None:
        self.settings = (out, side, names, weights)
        self.out, self.side = out, side
        self.resynthesisers = {name: load_resynthesiser(name, weights, threads) for name in names}

    def __call__(self, task: _Task) -> list[Row] | str:
        """Return the rows of the pairs made, or why there are none."""
        try:
            image = read_image(task.path)
            digest = hashlib.sha256(task.path.read_bytes()).hexdigest()
        except InputError as error:
            return str(error)
        height, width = (min(self.side, length) // STRIDE * STRIDE for length in image.shape[:2])
        if min(height, width) < MIN_SIDE:
            return f"{task.path}: {image.shape[1]} x {image.shape[0]} pixels, expected sides of at least {MIN_SIDE}"
        rng = np.random.default_rng(int(digest, 16))
        top = int(rng.integers(0, image.shape[0] - height + 1))
        left = int(rng.integers(0, image.shape[1] - width + 1))
        window = np.ascontiguousarray(image[top : top + height, left : left + width])
        photo, rows = _png(window), []
        for name in task.names:
            twin = self.resynthesisers[name].apply(window)
            if np.array_equal(window, twin):
                continue
            folder = Path(PAIRED_SOURCE + name, task.split)
            file = f"{task.source}_{digest[:16]}.png"
            write_whole(self.out / folder / "nature" / file, photo)
            write_whole(self.out / folder / "ai" / file, _png(twin))
            path = (folder / "ai" / file).as_posix()
            place = (self.side, top, left, height, width)
            rows.append(Row(path, name, task.split, task.photo, task.source, digest, *place, _psnr(window, twin)))
        return rows


_maker: _Maker | None = None  # of this worker process


def _start_worker(settings: tuple[Path, int, Sequence[str], Path | None]) -> None:
    global _maker
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the main one ends the run in order
    torch.set_num_threads(1)
    _maker = _Maker(*settings)


def _work(task: _Task) -> list[Row] | str:
    assert _maker is not None
    return _maker(task)


def _outcomes(
    tasks: Sequence[_Task], maker: _Maker, workers: int, stop: threading.Event | None
) -> Iterator[tuple[_Task, list[Row] | str]]:
    """Yield every task with its outcome, in order; `stop` leaves out those not begun."""
    stop = stop or threading.Event()
    if workers == 1:
        for task in tasks:
            if stop.is_set():
                return
            yield task, maker(task)
        return
    context = multiprocessing.get_context("spawn")  # PyTorch's threads do not survive a fork
    with ProcessPoolExecutor(workers, context, _start_worker, (maker.settings,)) as pool:
        futures: list[Future[list[Row] | str]] = [pool.submit(_work, task) for task in tasks]
        try:
            for task, future in zip(tasks, futures, strict=True):
                if stop.is_set():
                    pool.shutdown(wait=False, cancel_futures=True)
                yield task, future.result()
        except CancelledError:
            return
        except BrokenProcessPool:
            raise ConfigurationError(
                f"workers {workers}: a worker process died, perhaps for lack of memory; take fewer, what is made stays"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)  # an error ends the run without making the rest


def _png(image: Image) -> bytes:
    return cv2.imencode(".png", image)[1].tobytes()


def _psnr(first: Image, second: Image) -> float:
    """Peak signal-to-noise ratio of two different images in dB, to two digits."""
    return round(10 * math.log10(255**2 / float(np.mean((first.astype(np.float64) - second) ** 2))), 2)
