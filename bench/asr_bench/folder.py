"""Folders of pictures on all cores: asr-screen beside its bound and beside the loop that a user writes first.

python -m asr_bench.folder PHOTOS --count 200 --size 4000 3000
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from asr_bench.figures import Figure, figures_option, write_figures
from asr_runtime import Detector, decode_image
from asr_runtime.command import command
from asr_runtime.errors import ConfigurationError
from asr_runtime.heap import keep_freed_memory
from asr_runtime.inference.builtin import builtin_path
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime
from asr_runtime.machine import usable_cores
from asr_runtime.reports.progress import progress_bar

__all__ = ["FolderSpeed", "folder_speed", "loop", "write_pictures"]

_QUALITY = 92
_ALONE = 24  # pictures that each step alone is timed on, in each round


@dataclass(frozen=True)
class FolderSpeed:
    """Speed of one folder, with every sample of every round.

    Attributes:
        model: name of a built-in model.
        pictures: how many, JPEG.
        width: of each, in pixels.
        height: of each, in pixels.
        jobs: of asr-screen, and cores of the bound.
        decode: processor seconds of one picture, one thread; other programs on the machine do not count.
        inference: processor seconds of one picture, as the model looks at pictures, one thread.
        screen: pictures per second of asr-screen, from its first file to its summary.
        process: the same from the start of the process to its end.
        processor: processor seconds of asr-screen for one picture, of all cores, its start included.
        opencv: pictures per second of a loop over cv2.imread, cv2.resize and onnxruntime with its default options.
        pillow: the same with Pillow.
    """

    model: str
    pictures: int
    width: int
    height: int
    jobs: int
    decode: tuple[float, ...]
    inference: tuple[float, ...]
    screen: tuple[float, ...]
    process: tuple[float, ...]
    processor: tuple[float, ...]
    opencv: tuple[float, ...]
    pillow: tuple[float, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the samples, and from their medians what follows.

        `bound` is in pictures per second, `of_bound` the share of it that asr-screen reached, `of_work` the share of
        its processor time that decoding and inference alone take, `over_loop` its speed over the OpenCV loop.
        """
        names = ("decode", "inference", "screen", "processor", "opencv")
        median = {name: float(np.median(getattr(self, name))) for name in names}
        alone = median["decode"] + median["inference"]
        return {
            **asdict(self),
            "bound": self.jobs / alone,
            "of_bound": median["screen"] * alone / self.jobs,
            "of_work": alone / median["processor"],
            "over_loop": median["screen"] / median["opencv"],
        }

    def figures(self) -> list[Figure]:
        """Return the speeds, and the shares of the bound and over the OpenCV loop of each round."""
        of = f"{self.model}, JPEG of {self.width} x {self.height}"
        alone = [decode + inference for decode, inference in zip(self.decode, self.inference, strict=True)]
        of_bound = tuple(100 * rate * each / self.jobs for rate, each in zip(self.screen, alone, strict=True))
        of_work = tuple(100 * each / used for each, used in zip(alone, self.processor, strict=True))
        over_loop = tuple(rate / loop for rate, loop in zip(self.screen, self.opencv, strict=True))
        return [
            Figure(f"{of}: asr-screen", "pictures/s", True, self.screen),
            Figure(f"{of}: share of cores / (decoding + inference)", "%", True, of_bound),
            Figure(f"{of}: share of its processor time in decoding and inference", "%", True, of_work),
            Figure(f"{of}: loop of OpenCV and onnxruntime", "pictures/s", True, self.opencv),
            Figure(f"{of}: loop of Pillow and onnxruntime", "pictures/s", True, self.pillow),
            Figure(f"{of}: asr-screen over the OpenCV loop", "x", True, over_loop),
        ]


def write_pictures(photos: Path, folder: Path, count: int, width: int, height: int) -> None:
    """Write JPEGs of one size, made of real pictures: a smaller one is continued by mirroring, a larger one is cut.

    Args:
        photos: folder of pictures that OpenCV reads.
        folder: where they go.
        count: how many; pictures are used again, mirrored, where there are too few.
        width: of each, in pixels.
        height: of each, in pixels.

    Raises:
        ConfigurationError: there is no picture.
    """
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".webp"))
    if not files:
        raise ConfigurationError(f"{photos}: no picture; expected a folder of JPEG, PNG or WebP files")
    step = max(1, len(files) // count)
    for number in progress_bar(range(count), f"JPEGs of {width} x {height}"):
        image = np.asarray(cv2.imread(str(files[number * step % len(files)])), np.uint8)
        if number * step >= len(files):
            image = image[:, ::-1]
        across = [image, image[:, ::-1]] * (-(-width // (2 * image.shape[1])))
        row = np.concatenate(across, axis=1)[:, :width]
        down = np.concatenate([row, row[::-1]] * (-(-height // (2 * image.shape[0]))), axis=0)[:height]
        cv2.imwrite(str(folder / f"{number:05}.jpg"), down, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])


def folder_speed(folder: Path, model: str, jobs: int, rounds: int = 3) -> FolderSpeed:
    """Time a folder of JPEGs of one size; every round times everything once, in turn.

    Args:
        folder: of `write_pictures`.
        model: name of a built-in model.
        jobs: of asr-screen.
        rounds: how often.
    """
    keep_freed_memory()  # as asr-screen does
    paths = sorted(folder.iterdir())
    sample = [path.read_bytes() for path in paths[:: max(1, len(paths) // _ALONE)][:_ALONE]]
    images = [decode_image(data, "a picture") for data in sample]
    detector = Detector(model, device="cpu", threads=1)
    detector.look(images[0])
    measured: dict[str, list[float]] = {
        name: [] for name in ("decode", "inference", "screen", "process", "processor", "opencv", "pillow")
    }
    for _ in progress_bar(range(rounds), f"{len(paths)} pictures, {model}"):
        measured["decode"].append(_processor_seconds(lambda data: decode_image(data, "a picture"), sample))
        measured["inference"].append(_processor_seconds(detector.look, images))
        screened, whole, processor = _screen(folder, model, jobs)
        measured["processor"].append(processor / len(paths))
        measured["screen"].append(len(paths) / screened)
        measured["process"].append(len(paths) / whole)
        for library in ("opencv", "pillow"):
            seconds = float(_python("loop", str(folder), model, library))
            measured[library].append(len(paths) / seconds)
    height, width = images[0].shape[:2]
    samples = {name: tuple(values) for name, values in measured.items()}
    return FolderSpeed(model, len(paths), width, height, jobs, **samples)


def loop(folder: str, model: str, library: str) -> float:
    """Score a folder as its first user would: read, resize to 224 x 224, run, one picture after the other.

    Returns:
        Seconds without imports and loading.
    """
    session = import_onnxruntime().InferenceSession(str(builtin_path(model)), providers=["CPUExecutionProvider"])
    started = time.perf_counter()
    for path in sorted(Path(folder).iterdir()):
        session.run(None, {"frames": _small(path, library)[None]})
    return time.perf_counter() - started


def _small(path: Path, library: str) -> NDArray[np.uint8]:
    if library == "opencv":
        return np.asarray(cv2.resize(np.asarray(cv2.imread(str(path))), (224, 224)), np.uint8)
    from PIL import Image

    with Image.open(path) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB").resize((224, 224)))[:, :, ::-1])


def _processor_seconds(function: Callable[[Any], object], items: list[Any]) -> float:
    started = time.process_time()
    for item in items:
        function(item)
    return (time.process_time() - started) / len(items)


def _screen(folder: Path, model: str, jobs: int) -> tuple[float, float, float]:
    """Run asr-screen; returns the seconds of its summary, those of the whole process, and its processor seconds."""
    command = "from asr_runtime.cli import screen_command; screen_command()"
    options = ["--model", model, "--device", "cpu", "--jobs", str(jobs), "--format", "jsonl"]
    before, started = os.times(), time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", command, str(folder), *options], capture_output=True, text=True, check=True
    )
    whole, after = time.perf_counter() - started, os.times()
    used = after.children_user + after.children_system - before.children_user - before.children_system
    return float(json.loads(done.stdout.splitlines()[-1])["seconds"]), whole, used


def _python(function: str, *arguments: str) -> str:
    code = f"import sys; from asr_bench.folder import {function}; print({function}(*sys.argv[1:]))"
    done = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True)
    return done.stdout.splitlines()[-1]


@command("python -m asr_bench.folder")
@click.argument("photos", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--count", type=click.IntRange(min=1), default=1000, show_default=True, help="Pictures.")
@click.option("--size", type=(int, int), default=(384, 384), show_default=True, help="Width and height of each.")
@click.option("--model", "models", multiple=True, default=("asrnet-lite", "asrnet-lite-tiny"), show_default=True)
@click.option("--jobs", type=click.IntRange(min=1), help="[default: every usable core]")
@click.option("--rounds", type=click.IntRange(min=1), default=3, show_default=True)
@click.option(
    "--keep",
    type=click.Path(file_okay=False, path_type=Path),
    metavar="DIR",
    help="Write the pictures here, and use them again in the next run.",
)
@figures_option
def _command(
    photos: Path,
    count: int,
    size: tuple[int, int],
    models: tuple[str, ...],
    jobs: int | None,
    rounds: int,
    keep: Path | None,
    output: Path | None,
) -> None:
    """Make pictures out of PHOTOS, time them with asr-screen and with plain loops, and print JSON."""
    results = []
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made) if keep is None else keep / f"{count}-of-{size[0]}x{size[1]}"
        if not folder.is_dir() or len(list(folder.iterdir())) < count:
            folder.mkdir(parents=True, exist_ok=True)
            write_pictures(photos, folder, count, *size)
        for model in models:
            results.append(folder_speed(folder, model, jobs or usable_cores(), rounds))
            click.echo(json.dumps(results[-1].to_dict()))
    if output is not None:
        write_figures(results, output)


if __name__ == "__main__":
    _command()
