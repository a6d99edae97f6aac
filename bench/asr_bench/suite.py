"""All benchmarks of speed in one command: `asr-bench --suite`.

Every part is a command of its own that writes `Figure`s. The parts take turns, a round each, so that a disturbance of
the machine does not fall on one part alone. A part whose equipment is missing says so and is left out.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from asr_bench.energy import Rapl
from asr_bench.figures import Figure, read_figures
from asr_runtime.errors import ConfigurationError
from asr_runtime.machine import package_version, processor_fingerprint, usable_cores
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import write_whole

__all__ = ["PARTS", "Part", "PartResult", "Suite", "earlier_suite", "machine_kind", "read_suite", "run_suite"]

_PATIENCE = 900.0  # seconds for one round of one part
_PACKAGES = ("asrnet-edge", "torch", "onnxruntime", "openvino", "opencv-python", "numpy")
_EXAMPLES = Path(__file__).parents[2] / "runtime" / "examples"
_DEMO = Path(__file__).parents[2] / "build" / "browser-demo"


@dataclass(frozen=True)
class Part:
    """One benchmark of the suite.

    Attributes:
        says: what it measures, in words.
        command: one round; it runs in a folder with `photos`, `dataset`, `asrnet.pth`, `asrnet.onnx` and
            `fft-resnet34.onnx`. `DEMO` stands for the built browser demo, if there is one.
        quick: the same with as little work as possible: shows that it runs, gives no figure worth quoting.
        figures: file with its figures, in that folder.
        needs: programs that must be installed.
    """

    says: str
    command: str
    quick: str
    figures: str = "figures.json"
    needs: tuple[str, ...] = ()


_TO = " -o figures.json"
_FOLDER = "python -m asr_bench.folder photos --rounds 1 --keep made"
PARTS: dict[str, Part] = {
    "folders": Part(
        "asr-screen on a folder of 384 x 384 JPEGs, beside its bound and beside plain loops",
        f"{_FOLDER} --count 80{_TO}",
        f"{_FOLDER} --count 8 --model asrnet-lite-tiny{_TO}",
    ),
    "large-folders": Part(
        "the same with JPEGs of 12 megapixels",
        f"{_FOLDER} --count 30 --size 4000 3000{_TO}",
        f"{_FOLDER} --count 2 --size 4000 3000 --model asrnet-lite-tiny{_TO}",
    ),
    "frame-sizes": Part(
        "one frame of 384 x 384, 1080p and 4K in a network that resizes",
        f"python -m asr_bench.frame_sizes fft-resnet34.onnx --rounds 5{_TO}",
        f"python -m asr_bench.frame_sizes asrnet.onnx --rounds 1{_TO}",
    ),
    "engines": Part(
        "one frame in each engine, ASRNet in float32",
        "asr-bench asrnet.onnx --checkpoint asrnet.pth --engine 'torch eager' --engine 'naive onnxruntime' "
        "--engine asrnet-edge --engine 'openvino f32' --rounds 10 -o engines",
        "asr-bench asrnet.onnx --checkpoint asrnet.pth --engine 'torch eager' --engine asrnet-edge --rounds 2 "
        "-o engines",
        "engines/figures.json",
    ),
    "start": Part(
        "from the start of asr-screen to its first verdict",
        f"python -m asr_bench.start --rounds 5{_TO}",
        f"python -m asr_bench.start --rounds 1{_TO}",
    ),
    "costs": Part(
        "decoding and looks on one core",
        f"python -m asr_bench.cost{_TO}",
        f"python -m asr_bench.cost{_TO}",
    ),
    "batching": Part(
        "pictures in one inference",
        f"python -m asr_bench.batching --rounds 3{_TO}",
        f"python -m asr_bench.batching --model asrnet-lite-tiny --rounds 1{_TO}",
    ),
    "cameras": Part(
        "16 RTSP cameras of 1080p at one look a second",
        f"python -m asr_bench.cameras --cameras 16 --fps 1 --seconds 15 --key-frames{_TO}",
        f"python -m asr_bench.cameras --cameras 1 --fps 2 --seconds 2 --key-frames{_TO}",
        needs=("ffmpeg",),
    ),
    "server": Part(
        "eight clients of asr-serve",
        f"python -m asr_bench.serve_load --clients 8 --seconds 10{_TO}",
        f"python -m asr_bench.serve_load --model asrnet-lite-tiny --clients 2 --seconds 1{_TO}",
    ),
    "browser": Part(
        "from opening the browser demo to its first verdict",
        f"python -m asr_bench.browser_start DEMO --rounds 1{_TO}",
        f"python -m asr_bench.browser_start DEMO --rounds 1{_TO}",
        needs=("chromium",),
    ),
    "loader": Part(
        "pictures on their way to a training",
        "asr-bench --loader dataset -o loader",
        "asr-bench --loader dataset --workers 1 -o loader",
        "loader/loader.json",
    ),
    "training": Part(
        "steps of training ASRNet",
        f"python -m asr_bench.training --way float32 --way bf16 --rounds 3{_TO}",
        f"python -m asr_bench.training --way float32 --batch 2 --rounds 1{_TO}",
    ),
    "training-fft-resnet34": Part(
        "steps of training FFT-ResNet-34",
        f"python -m asr_bench.training --model fft-resnet34 --way float32 --way bf16 --rounds 3{_TO}",
        f"python -m asr_bench.training --model fft-resnet34 --way float32 --batch 2 --rounds 1{_TO}",
    ),
}
"""The parts by name, in the order in which they run."""


@dataclass(frozen=True)
class PartResult:
    """What one part gave.

    Attributes:
        says: what it measures, in words.
        command: one round.
        date: of the last round, UTC.
        versions: of the packages that decide.
        load: of the machine when each round began, over one minute.
        seconds: of each round.
        joules: of the whole processor in each round; None where the machine does not measure energy.
        figures: with the samples of all rounds.
        problem: why it has no figures; empty if it has.
    """

    says: str
    command: str
    date: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    load: tuple[float, ...] = ()
    seconds: tuple[float, ...] = ()
    joules: tuple[float, ...] | None = None
    figures: tuple[Figure, ...] = ()
    problem: str = ""


@dataclass(frozen=True)
class Suite:
    """The results of one kind of machine.

    Attributes:
        machine: processor, a hash of its features, and cores.
        parts: name -> result.
    """

    machine: str
    parts: Mapping[str, PartResult]

    def write(self, folder: Path) -> Path:
        """Write `KIND.json`; the parts that a file of the same machine has and this suite lacks stay in it.

        Returns:
            The path of the file.

        Raises:
            OutputError: it cannot be written.
        """
        path = folder / f"{machine_kind(self.machine)}.json"
        parts = dict(self.parts)
        if path.exists():
            parts = {**read_suite(path).parts, **parts}
        content = {
            "machine": self.machine,
            "parts": {name: asdict(parts[name]) for name in sorted(parts, key=list(PARTS).index)},
        }
        write_whole(path, json.dumps(content, indent=1) + "\n", what="results")
        return path


def machine_kind(machine: str = "") -> str:
    """Return the name of a kind of machine as a file name; without an argument that of this one."""
    return re.sub(r"\W+", "-", machine or _machine()).strip("-").lower()


def read_suite(path: Path) -> Suite:
    """Read the results of an earlier suite.

    Raises:
        ConfigurationError: it is no such file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        return Suite(content["machine"], {name: _result(part) for name, part in content["parts"].items()})
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path}: expected a file that asr-bench --suite -o DIR wrote") from None


def _result(part: dict[str, Any]) -> PartResult:
    lists = {name: tuple(part[name]) for name in ("load", "seconds")}
    joules = None if part["joules"] is None else tuple(part["joules"])
    figures = tuple(Figure(**{**figure, "samples": tuple(figure["samples"])}) for figure in part["figures"])
    return PartResult(**{**part, **lists, "joules": joules, "figures": figures})


def earlier_suite(path: Path) -> Suite:
    """Read the results to compare with: a file, or a folder with one for this kind of machine.

    Raises:
        ConfigurationError: there is none of this kind of machine.
    """
    file = path / f"{machine_kind()}.json" if path.is_dir() else path
    if path.is_dir() and not file.exists():
        raise ConfigurationError(f"{path}: no result of this kind of machine; expected {file.name}; write it with -o")
    earlier = read_suite(file)
    if earlier.machine != _machine():
        raise ConfigurationError(
            f"{file}: measured on {earlier.machine}, and this is {_machine()}; milliseconds do not travel between "
            "machines: expected a result of the same kind"
        )
    return earlier


def run_suite(
    names: Sequence[str] = (), rounds: int = 3, *, quick: bool = False, keep: Callable[[Suite], object] | None = None
) -> Suite:
    """Run parts in turn, `rounds` times.

    Args:
        names: of `PARTS`; none: all.
        rounds: how often each part runs.
        quick: as little work as possible.
        keep: gets the results after every step, so that a run that is stopped loses nothing.

    Raises:
        ConfigurationError: not in a checkout of the repository.

    Returns:
        The results; a part that failed or lacks its equipment has a `problem`.
    """
    commands = {name: PARTS[name].quick if quick else PARTS[name].command for name in names or PARTS}
    results = {name: PartResult(PARTS[name].says, command) for name, command in commands.items()}
    with _workshop(list(commands)) as work:
        steps = [(number, name) for number in range(1, rounds + 1) for name in results]
        for number, name in progress_bar(steps, "suite"):
            if not results[name].problem:
                click.echo(f"round {number} of {rounds}: {commands[name]}", err=True)
                results[name] = _round(results[name], PARTS[name], work)
                if keep is not None:
                    keep(Suite(_machine(), {done: part for done, part in results.items() if part.date or part.problem}))
    return Suite(_machine(), results)


def _round(before: PartResult, part: Part, work: Path) -> PartResult:
    """Run a part once and add its samples."""
    if missing := [program for program in part.needs if shutil.which(program) is None]:
        return replace(before, problem=f"left out: {missing[0]} is not installed")
    if "DEMO" in before.command and not _DEMO.is_dir():
        return replace(before, problem="left out: there is no build/browser-demo; make browser-demo builds it")
    file = work / part.figures
    file.unlink(missing_ok=True)
    load, rapl, started = os.getloadavg()[0], Rapl(), time.perf_counter()
    joules = rapl.start()
    try:
        done = subprocess.run(
            _arguments(before.command), cwd=work, capture_output=True, text=True, timeout=_PATIENCE, check=False
        )
    except subprocess.TimeoutExpired:
        return replace(before, problem=f"failed: not done after {_PATIENCE:.0f} s")
    spent, seconds = joules(), time.perf_counter() - started
    if done.returncode or not file.exists():
        last = (done.stderr.strip().splitlines() or [f"exit code {done.returncode}"])[-1]
        return replace(before, problem=f"failed: {last}")
    return replace(
        before,
        date=datetime.now(UTC).strftime("%Y-%m-%d %H:%M"),
        versions=_versions(),
        load=(*before.load, round(load, 1)),
        seconds=(*before.seconds, seconds),
        joules=(*(before.joules or ()), spent) if rapl.readable else None,
        figures=_joined(before.figures, read_figures(file)),
    )


def _joined(before: Sequence[Figure], new: Sequence[Figure]) -> tuple[Figure, ...]:
    samples = {figure.name: figure.samples for figure in before}
    return tuple(replace(figure, samples=samples.get(figure.name, ()) + figure.samples) for figure in new)


def _arguments(command: str) -> list[str]:
    """Return how a command of the table starts with this Python, wherever its scripts lie."""
    program, *rest = shlex.split(command)
    rest = [str(_DEMO) if word == "DEMO" else word for word in rest]
    if program == "python":
        return [sys.executable, *rest]
    return [
        sys.executable,
        "-c",
        "from asr_bench.cli import bench_command; bench_command(prog_name='asr-bench')",
        *rest,
    ]


@contextmanager
def _workshop(names: Sequence[str]) -> Iterator[Path]:
    """Make the folder in which the commands run, with what they read.

    Raises:
        ConfigurationError: there are no examples, as in an installed wheel.
    """
    if not _EXAMPLES.is_dir():
        raise ConfigurationError(f"{_EXAMPLES}: no examples; the suite runs in a checkout of the repository")
    with tempfile.TemporaryDirectory() as made:
        work = Path(made)
        shutil.copytree(_EXAMPLES / "real", work / "photos")
        for split in ("train", "val"):
            for label, source in (("nature", "real"), ("ai", "ai")):
                shutil.copytree(_EXAMPLES / source, work / "dataset" / source / split / label)
        words = " ".join(PARTS[name].command + PARTS[name].quick for name in names)
        for network in ("asrnet", "fft-resnet34"):
            if f"{network}.onnx" in words:
                from asr_bench.random_weights import random_checkpoint  # torch, which most parts do without
                from asr_export.onnx_file import export

                export(random_checkpoint(network, work / f"{network}.pth"), work / f"{network}.onnx")
        yield work


def _machine() -> str:
    return f"{processor_fingerprint()}, {usable_cores()} cores"


def _versions() -> dict[str, str]:
    python = {"Python": ".".join(map(str, sys.version_info[:3]))}
    return python | {name: package_version(name) or "none" for name in _PACKAGES}
