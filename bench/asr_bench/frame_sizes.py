"""What larger frames cost one exported file: resizing inside the graph reads every pixel that it needs.

python -m asr_bench.frame_sizes X.onnx [BEFORE.onnx]
"""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import numpy as np

from asr_bench.figures import Figure, figures_option, write_figures
from asr_runtime.command import command
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.reports.progress import progress_bar

__all__ = ["SIZES", "FrameSizes", "frame_sizes"]

SIZES = ((384, 384), (1080, 1920), (2160, 3840))
"""Height and width of the frames; the first is what the others are compared with."""

_WARM_UP = 2


@dataclass(frozen=True)
class FrameSizes:
    """One file at several frame sizes.

    Attributes:
        model: name of the file.
        threads: of inference.
        seconds: `HEIGHTxWIDTH` -> processor seconds of every call, of all threads; other programs do not count.
        added_ms: `HEIGHTxWIDTH` -> median milliseconds more than at the first size.
    """

    model: str
    threads: int
    seconds: dict[str, tuple[float, ...]]
    added_ms: dict[str, float]

    def figures(self) -> list[Figure]:
        """Return the time of each frame size, and what the larger ones add, paired call by call."""
        (first, reference), *larger = self.seconds.items()
        ms = Figure(f"{self.model}, frame of {first}", "ms", False, tuple(1e3 * s for s in reference))
        added = [
            Figure(
                f"{self.model}, frame of {name}: more than {first}",
                "ms",
                False,
                tuple(1e3 * (more - less) for more, less in zip(seconds, reference, strict=True)),
            )
            for name, seconds in larger
        ]
        return [ms, *added]


def frame_sizes(models: Sequence[Path], threads: int = 1, rounds: int = 20) -> list[FrameSizes]:
    """Run files at every size of `SIZES`, one call each in turn.

    Args:
        models: exported files.
        threads: of inference.
        rounds: calls of each file at each size.

    Raises:
        ModelError: onnxruntime refuses a file.
    """
    sessions = [open_session(path.read_bytes(), "cpu", threads) for path in models]
    noise = np.random.default_rng(0)
    frames = {
        f"{height}x{width}": noise.integers(0, 256, (1, height, width, 3), dtype=np.uint8) for height, width in SIZES
    }
    samples_by_model: list[dict[str, list[float]]] = [{name: [] for name in frames} for _ in models]
    for _ in progress_bar(range(_WARM_UP + rounds), "frame sizes"):
        for name, frame in frames.items():
            for session, samples in zip(sessions, samples_by_model, strict=True):
                started = time.process_time()
                session.run(None, {"frames": frame})
                samples[name].append(time.process_time() - started)
    costs = []
    for path, samples in zip(models, samples_by_model, strict=True):
        seconds = {name: tuple(values[_WARM_UP:]) for name, values in samples.items()}
        medians = {name: float(np.median(values)) * 1e3 for name, values in seconds.items()}
        first = next(iter(medians.values()))
        costs.append(FrameSizes(path.name, threads, seconds, {name: ms - first for name, ms in medians.items()}))
    return costs


@command("python -m asr_bench.frame_sizes")
@click.argument("models", nargs=-1, required=True, type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--threads", type=click.IntRange(min=1), default=1, show_default=True)
@click.option("--rounds", type=click.IntRange(min=1), default=20, show_default=True)
@figures_option
def _command(models: tuple[Path, ...], threads: int, rounds: int, output: Path | None) -> None:
    """Time MODELS at 384 x 384, 1080p and 4K and print JSON, a line for each."""
    measured = frame_sizes(models, threads, rounds)
    for costs in measured:
        click.echo(json.dumps(asdict(costs)))
    if output is not None:
        write_figures(measured, output)


if __name__ == "__main__":
    _command()
