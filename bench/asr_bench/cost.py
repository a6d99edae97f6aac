"""The cost of screening: processor seconds per picture and per frame of a camera, and how many a machine can do.

    python -m asr_bench.cost

Times one core: decoding, and looking, at pictures of three sizes and at frames of a video. Processor time is counted,
so other programs on the machine do not matter much. The second and third table are multiplications of the first.
"""

from __future__ import annotations

import functools
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from asr_bench.figures import Figure, figures_option, write_figures
from asr_export.parity_inputs import packaged_images
from asr_runtime import Detector, read_image
from asr_runtime.command import command
from asr_runtime.heap import keep_freed_memory
from asr_runtime.media.video import VideoFile
from asr_runtime.reports.progress import progress_bar

__all__ = ["Costs", "measure_costs"]

_ROUNDS = 5
_PICTURES = {"0.15 MP JPEG": (384, 384), "2 MP JPEG": (1080, 1920), "12 MP JPEG": (3000, 4000)}
_FRAME = (1080, 1920)
_CAMERA_RATE = 25  # frames per second that a camera sends, all of which are decoded
_ARCHIVE = 100_000_000
_MODELS = ("asrnet-lite", "asrnet-lite-tiny")


@dataclass(frozen=True)
class Costs:
    """Processor seconds on one core, medians.

    Attributes:
        bytes_of: of one file, by kind of picture.
        decode: of one picture, by kind of picture.
        decode_frame: of one 1080p frame of H.264, colour conversion included.
        looks: model -> look -> seconds of one look; it does not depend on the size of the picture.
    """

    bytes_of: Mapping[str, int]
    decode: Mapping[str, float]
    decode_frame: float
    looks: Mapping[str, Mapping[str, float]]

    def figures(self) -> list[Figure]:
        """Return the steps, one median each."""
        steps = {f"decode {kind}": seconds for kind, seconds in self.decode.items()}
        steps["decode a 1080p frame of H.264"] = self.decode_frame
        steps |= {f"{model}, {look}": s for model, looks in self.looks.items() for look, s in looks.items()}
        return [Figure(f"{name}: one core", "ms", False, (1e3 * seconds,)) for name, seconds in steps.items()]

    def to_markdown(self) -> str:
        """Return the three tables of the cost model."""
        steps = [
            f"| decode {kind} ({self.bytes_of[kind] / 1e6:.2f} MB) | {s * 1e3:.1f} |" for kind, s in self.decode.items()
        ]
        steps.append(f"| decode a 1080p frame of H.264 | {self.decode_frame * 1e3:.1f} |")
        rows = [(model, look, seconds) for model, looks in self.looks.items() for look, seconds in looks.items()]
        steps += [f"| `{model}`, {look} | {seconds * 1e3:.1f} |" for model, look, seconds in rows]
        archive, cameras = [], []
        for model, look, seconds in rows:
            for kind, decoding in self.decode.items():
                each = decoding + seconds
                hours, size = _ARCHIVE * each / 3600, _ARCHIVE * self.bytes_of[kind] / 1e12
                archive.append(
                    f"| `{model}`, {look} | {kind} | {1 / each:.1f} | {hours:,.0f} | "
                    f"{hours / 24:,.0f} | {size:.0f} TB | "
                    f"{decoding / each:.0%} |"
                )
            loads = [_CAMERA_RATE * self.decode_frame + rate * seconds for rate in (1, 5, _CAMERA_RATE)]
            cameras.append(f"| `{model}`, {look} | " + " | ".join(f"{load:.2f}" for load in loads) + " |")
        return "\n".join(
            [
                "| step | processor ms on one core |",
                "|---|---|",
                *steps,
                "",
                f"| {_ARCHIVE:,} pictures | of | pictures/s per core | core hours | cores for one day | bytes read | "
                "decoding's share |",
                "|---|---|---|---|---|---|---|",
                *archive,
                "",
                "| one 1080p camera, cores | 1 look a second | 5 | every frame |",
                "|---|---|---|---|",
                *cameras,
                "",
            ]
        )


def measure_costs(models: tuple[str, ...] = _MODELS) -> Costs:
    """Time decoding and looks on one core, in turns.

    Args:
        models: exported files or built-in names.

    Raises:
        ModelError: a file is refused.
    """
    keep_freed_memory()  # as asr-screen does
    picture = read_image(sorted(packaged_images().iterdir())[0])
    with tempfile.TemporaryDirectory() as folder:
        files = {kind: _jpeg(Path(folder), picture, *sides) for kind, sides in _PICTURES.items()}
        clip = _clip(Path(folder) / "clip.mp4", _sized(picture, *_FRAME))
        steps: dict[str, Callable[[], float]] = {
            kind: _timed(functools.partial(read_image, path)) for kind, path in files.items()
        }
        steps["frame"] = lambda: _seconds_of_a_frame(clip)
        large = _sized(picture, *_FRAME)
        for model in models:
            detector = Detector(model, device="cpu", threads=1)
            for look in ("centre", "whole") if detector.card.whole is not None else ("centre",):
                steps[f"{model} {look}"] = _timed(functools.partial(detector.look, large, look))
        times: dict[str, list[float]] = {name: [] for name in steps}
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for _ in progress_bar(range(_ROUNDS), "costs"):
                for name, step in steps.items():
                    times[name].append(step())
        finally:
            cv2.setNumThreads(threads)
        medians = {name: float(np.median(values)) for name, values in times.items()}
        return Costs(
            bytes_of={kind: path.stat().st_size for kind, path in files.items()},
            decode={kind: medians[kind] for kind in files},
            decode_frame=medians["frame"],
            looks={
                model: {
                    look: medians[f"{model} {look}"] for look in ("centre", "whole") if f"{model} {look}" in medians
                }
                for model in models
            },
        )


def _timed(step: Callable[[], object]) -> Callable[[], float]:
    def seconds() -> float:
        started = time.process_time()
        step()
        return time.process_time() - started

    return seconds


def _sized(picture: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Repeat a picture until it fills a size, so that its detail per pixel stays that of a photo."""
    times = (-(-height // picture.shape[0]), -(-width // picture.shape[1]), 1)
    return np.ascontiguousarray(np.tile(picture, times)[:height, :width])


def _jpeg(folder: Path, picture: NDArray[np.uint8], height: int, width: int) -> Path:
    path = folder / f"{height}.jpg"
    cv2.imwrite(str(path), _sized(picture, height, width), [cv2.IMWRITE_JPEG_QUALITY, 90])
    return path


def _clip(path: Path, frame: NDArray[np.uint8], frames: int = 50) -> Path:
    """Write a clip that pans over a picture, as H.264 at a quality that cameras use."""
    import av

    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=_CAMERA_RATE, options={"crf": "23", "preset": "veryfast"})
        stream.height, stream.width = frame.shape[:2]
        stream.pix_fmt = "yuv420p"
        for number in range(frames):
            moved = np.ascontiguousarray(np.roll(frame, 2 * number, axis=1))
            container.mux(stream.encode(av.VideoFrame.from_ndarray(moved, format="bgr24")))
        container.mux(stream.encode())
    return path


def _seconds_of_a_frame(clip: Path) -> float:
    started, frames = time.process_time(), 0
    for _ in VideoFile(str(clip)):
        frames += 1
    return (time.process_time() - started) / frames


@command("python -m asr_bench.cost")
@figures_option
def main(output: Path | None) -> None:
    """Measure what screening costs on one core of this machine, and print the cost model."""
    costs = measure_costs()
    if output is not None:
        write_figures([costs], output)
    click.echo(costs.to_markdown())


if __name__ == "__main__":
    main()
