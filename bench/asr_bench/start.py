"""What a start costs: process start to first verdict on one picture, and what storing the optimised graph would save.

python -m asr_bench.start
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

from asr_bench.figures import Figure, figures_option, write_figures
from asr_export.parity_inputs import packaged_images
from asr_runtime.command import command
from asr_runtime.inference.builtin import BUILTIN, builtin_path
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime
from asr_runtime.machine import usable_cores
from asr_runtime.reports.progress import progress_bar

__all__ = ["GraphCost", "StartCost", "graph_costs", "start_costs"]

_COMMAND = "from asr_runtime.cli import screen_command; screen_command()"


@dataclass(frozen=True)
class StartCost:
    """Starts of asr-screen with one picture, every sample kept.

    Attributes:
        model: name of a built-in model.
        first_verdict: seconds from the start of the process to its first record.
        processor: seconds of all cores, to the end of the process.
        peak_bytes: largest resident memory of the process.
    """

    model: str
    first_verdict: tuple[float, ...]
    processor: tuple[float, ...]
    peak_bytes: tuple[int, ...]

    def figures(self) -> list[Figure]:
        """Return time, processor time and memory of a start."""
        of = f"{self.model}, start of asr-screen"
        return [
            Figure(f"{of}: first verdict", "s", False, self.first_verdict),
            Figure(f"{of}: processor time", "s", False, self.processor),
            Figure(f"{of}: memory", "MB", False, tuple(peak / 1e6 for peak in self.peak_bytes)),
        ]


@dataclass(frozen=True)
class GraphCost:
    """Loading a model, processor seconds, every sample kept.

    Attributes:
        model: name of a built-in model.
        as_shipped: optimising the graph of the file.
        optimised: a graph that was optimised before, without optimising it again.
        hashing: SHA-256 of the optimised graph, without which it could not be trusted.
    """

    model: str
    as_shipped: tuple[float, ...]
    optimised: tuple[float, ...]
    hashing: tuple[float, ...]

    def figures(self) -> list[Figure]:
        """Return the processor time of loading."""
        return [
            Figure(f"{self.model}: loading as shipped", "ms", False, tuple(1e3 * s for s in self.as_shipped)),
            Figure(f"{self.model}: loading an optimised graph", "ms", False, tuple(1e3 * s for s in self.optimised)),
        ]


def start_costs(models: tuple[str, ...] = tuple(BUILTIN), rounds: int = 15) -> list[StartCost]:
    """Start asr-screen with one picture, the models in turn (Linux).

    Python's compiled modules are written in a first start that is not counted, as installing a package does.
    """
    picture = str(sorted(packaged_images().iterdir())[0])
    starts: dict[str, list[tuple[float, float, int]]] = {model: [] for model in models}
    with tempfile.TemporaryDirectory() as compiled:
        variables = {**os.environ, "PYTHONPYCACHEPREFIX": compiled}
        variables.pop("PYTHONDONTWRITEBYTECODE", None)
        _start(picture, models[0], variables)
        for _ in progress_bar(range(rounds), "starts"):
            for model in models:
                starts[model].append(_start(picture, model, variables))
    return [StartCost(model, *map(tuple, zip(*samples, strict=True))) for model, samples in starts.items()]


def _start(picture: str, model: str, variables: dict[str, str]) -> tuple[float, float, int]:
    started = time.perf_counter()
    with subprocess.Popen(
        [sys.executable, "-c", _COMMAND, picture, "--model", model, "--device", "cpu", "--format", "jsonl"],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        env=variables,
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        seconds = time.perf_counter() - started
        process.stdout.read()
        _, status, usage = os.wait4(process.pid, 0)
        process.returncode = os.waitstatus_to_exitcode(status)
    return seconds, usage.ru_utime + usage.ru_stime, usage.ru_maxrss * 1024


def graph_costs(models: tuple[str, ...] = tuple(BUILTIN), rounds: int = 9) -> list[GraphCost]:
    """Load each model as it is shipped and as onnxruntime would store it after optimising, in turn."""
    ort = import_onnxruntime()
    full, none = ort.GraphOptimizationLevel.ORT_ENABLE_ALL, ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    costs = []
    for model in models:
        shipped = builtin_path(model).read_bytes()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "optimised.onnx")
            ort.InferenceSession(shipped, _options(ort, full, path), providers=["CPUExecutionProvider"])
            stored = path.read_bytes()

        samples = [(_load(shipped, full), _load(stored, none), _hash(stored)) for _ in range(rounds)]
        costs.append(GraphCost(model, *map(tuple, zip(*samples, strict=True))))
    return costs


def _options(ort: Any, level: Any, store: Path | None = None) -> Any:
    options = ort.SessionOptions()
    options.graph_optimization_level = level
    options.intra_op_num_threads = usable_cores()
    options.log_severity_level = 4
    if store is not None:
        options.optimized_model_filepath = str(store)
    return options


def _load(data: bytes, level: Any) -> float:
    ort = import_onnxruntime()
    options, started = _options(ort, level), time.process_time()
    ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    return time.process_time() - started


def _hash(data: bytes) -> float:
    started = time.process_time()
    hashlib.sha256(data).digest()
    return time.process_time() - started


@command("python -m asr_bench.start")
@click.option("--rounds", type=click.IntRange(min=1), default=15, show_default=True)
@figures_option
def _command(rounds: int, output: Path | None) -> None:
    """Time starts of asr-screen with one picture and print JSON, a line for each model."""
    costs: list[StartCost | GraphCost] = [*start_costs(rounds=rounds), *graph_costs()]
    for cost in costs:
        samples = {name: value for name, value in asdict(cost).items() if name != "model"}
        medians = {f"median_{name}": float(np.median(value)) for name, value in samples.items()}
        click.echo(json.dumps({**asdict(cost), **medians}))
    if output is not None:
        write_figures(costs, output)


if __name__ == "__main__":
    _command()
