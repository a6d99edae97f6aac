"""Run the benchmarks of speed: `asr-bench --suite`.

The parts take turns, a round each, so that a disturbance of the machine does not fall on one part alone. A part whose
equipment is missing says so and is left out.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import click

from asr_bench.energy import Rapl
from asr_bench.figures import Figure, read_figures
from asr_bench.suite_parts import PARTS, Part
from asr_bench.suite_results import PartResult, Suite, machine_name
from asr_runtime.errors import ConfigurationError
from asr_runtime.machine import package_version
from asr_runtime.reports.progress import progress_bar

__all__ = ["run_suite"]

_PATIENCE = 900.0  # seconds for one round of one part
_PACKAGES = ("asrnet-edge", "torch", "onnxruntime", "openvino", "opencv-python", "numpy")
_EXAMPLES = Path(__file__).parents[2] / "runtime" / "examples"
_DEMO = Path(__file__).parents[2] / "build" / "browser-demo"


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
                    keep(
                        Suite(
                            machine_name(), {done: part for done, part in results.items() if part.date or part.problem}
                        )
                    )
    return Suite(machine_name(), results)


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


def _versions() -> dict[str, str]:
    python = {"Python": ".".join(map(str, sys.version_info[:3]))}
    return python | {name: package_version(name) or "none" for name in _PACKAGES}
