"""Engines side by side: each in its own process, calls alternate, and outputs are compared before timing."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_bench.energy import Rapl, joules_per_call
from asr_bench.engines import OURS, Task
from asr_bench.figures import Figure
from asr_bench.naive import export_naive
from asr_bench.placement import node_placement
from asr_bench.process import EngineProcess, cold_start
from asr_bench.quality import Quality, measure_quality
from asr_export.parity_inputs import packaged_images
from asr_export.precision_gate import Images
from asr_models import Checkpoint, multiply_adds
from asr_runtime import Detector, read_image
from asr_runtime.errors import ConfigurationError, GateError
from asr_runtime.machine import package_version, processor_name
from asr_runtime.reports.progress import progress_bar

__all__ = ["Benchmark", "benchmark", "figures"]

_WARM_UP = 5  # calls
_COLD_STARTS = 3
_AGREE = {"fp32": 1e-3, "int8": 0.05}  # of probabilities, before anything is timed
_LOOSE = 0.05  # engines that compute in 16 bits by themselves
_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Benchmark:
    """What was measured.

    Attributes:
        samples: engine -> seconds of every call at batch 1, in the order of the rounds.
        batches: engine -> batch size -> seconds of every call.
        load_s: engine -> seconds from imports to the engine being there.
        cold_s: engine -> seconds from process start to the first score, each time.
        peak_bytes: engine -> largest resident memory of its process.
        file_bytes: engine -> size of what it loads.
        joules: engine -> energy of one call, of the whole processor; None where the machine does not measure it.
        quality: on labelled images; None without.
        placement: of our file's nodes, provider -> operator -> nodes.
        gflop: of one frame; None without a checkpoint.
        matmul_gflops: matrix product peak of this machine at these threads, in GFLOP/s.
        conditions: model, frame, threads, processor, versions, load of the machine.
    """

    samples: Mapping[str, tuple[float, ...]]
    batches: Mapping[str, Mapping[int, tuple[float, ...]]]
    load_s: Mapping[str, float]
    cold_s: Mapping[str, tuple[float, ...]]
    peak_bytes: Mapping[str, int]
    file_bytes: Mapping[str, int]
    joules: Mapping[str, float] | None
    quality: Quality | None
    placement: Mapping[str, Mapping[str, int]]
    gflop: float | None
    matmul_gflops: float
    conditions: Mapping[str, Any]

    def figures(self) -> list[Figure]:
        """Return the latency of every engine and, where there are several, the speed over the first of each round."""
        of = self.conditions["model"]
        first = next(iter(self.samples))
        times = [Figure(f"{of}, {name}", "ms", False, tuple(1e3 * s for s in t)) for name, t in self.samples.items()]
        return times + [
            Figure(
                f"{of}, {name} over {first}",
                "x",
                True,
                tuple(a / b for a, b in zip(self.samples[first], seconds, strict=True)),
            )
            for name, seconds in self.samples.items()
            if name != first
        ]


def benchmark(
    models: Sequence[Path],
    checkpoint_path: Path | None,
    checkpoint: Checkpoint | None,
    engines: Sequence[str],
    threads: int = 1,
    rounds: int = 50,
    batch_sizes: Sequence[int] = (),
    images: Images | None = None,
) -> Benchmark:
    """Time the engines in turn, one frame each per round.

    Args:
        models: the exported file, and others of the same network (its lower precisions) that run in our engine too.
        checkpoint_path: file of the checkpoint; None without one.
        checkpoint: the same, loaded.
        engines: of `asr_bench.engines.ENGINES`.
        threads: of every engine.
        rounds: samples per engine.
        batch_sizes: for throughput.
        images: labelled ones, to say what each engine's speed costs; None for none.

    Raises:
        ConfigurationError: an engine that cannot be loaded, or two files of one name.
        GateError: engines that do not agree, so their times mean nothing.
    """
    frames = read_image(sorted(packaged_images().iterdir())[0])[None]
    model = models[0]
    cards = [Detector(path, device="cpu", threads=threads).card for path in models]
    if len({path.name for path in models}) < len(models):
        raise ConfigurationError(f"{', '.join(map(str, models))}: expected files of different names")
    card = cards[0]
    # Further files are compared with the largest tolerance of all precisions.
    loosest = max((c.precision for c in cards), key=lambda precision: _AGREE[precision])
    with ExitStack() as stack:
        naive = None
        if checkpoint is not None and "naive onnxruntime" in engines:
            folder = stack.enter_context(tempfile.TemporaryDirectory())
            naive = export_naive(checkpoint, Path(folder, "naive.onnx"))
        tasks = {name: Task(name, model, checkpoint_path, naive, threads) for name in engines}
        tasks |= {f"{OURS} {path.name}": Task(OURS, path, None, None, threads) for path in models[1:]}
        running = {name: stack.enter_context(EngineProcess(task)) for name, task in tasks.items()}
        _agree(running, frames, loosest, card.preprocess.mode)
        samples = _in_turns(running, frames, rounds, "latency")
        batches: dict[str, dict[int, tuple[float, ...]]] = {name: {} for name in tasks}
        for size in batch_sizes:
            several = np.repeat(frames, size, axis=0)
            for name, seconds in _in_turns(running, several, max(3, rounds // size), f"batches of {size}").items():
                batches[name][size] = seconds
        joules, rapl = None, Rapl()
        if rapl.readable:
            joules = {name: joules_per_call(rapl, partial(e.score, frames)) for name, e in running.items()}
        quality = measure_quality(running, images, card.decision) if images is not None else None
        peaks = {name: engine.peak_bytes() for name, engine in running.items()}
        loads = {name: engine.load_s for name, engine in running.items()}
        sizes = {name: _file(task).stat().st_size for name, task in tasks.items()}
        for engine in running.values():
            engine.close()
        image = str(sorted(packaged_images().iterdir())[0])
        steps = progress_bar([name for _ in range(_COLD_STARTS) for name in tasks], "cold starts")
        cold: dict[str, tuple[float, ...]] = dict.fromkeys(tasks, ())
        for name in steps:
            cold[name] += (cold_start(tasks[name], image),)
    return Benchmark(
        samples=samples,
        batches=batches,
        load_s=loads,
        cold_s=cold,
        peak_bytes=peaks,
        file_bytes=sizes,
        joules=joules,
        quality=quality,
        placement=node_placement(model, frames),
        gflop=None if checkpoint is None else 2 * multiply_adds(checkpoint) / 1e9,
        matmul_gflops=_matmul_peak(threads),
        conditions={
            "model": f"{card.name} {card.precision}",
            "frame": f"{frames.shape[2]} x {frames.shape[1]}",
            "threads": threads,
            "rounds": rounds,
            "processor": processor_name(),
            "load": round(os.getloadavg()[0], 1),
            **{name: package_version(name) or "none" for name in ("torch", "onnxruntime", "openvino")},
        },
    )


def figures(measured: Benchmark) -> dict[str, dict[str, float | None]]:
    """Return what a reader wants to know of each engine.

    Returns:
        engine -> `p50_ms`, `p95_ms`, `p99_ms`, `speedup` (of the median, over the first engine), `gflops`,
        `of_peak`, `load_s`, `cold_s` (median), `peak_mb`, `file_mb`; `joules`, `auroc` and `verdicts_changed` where
        they were measured.
    """
    first = float(np.median(next(iter(measured.samples.values()))))
    table = {}
    for name, seconds in measured.samples.items():
        median = float(np.median(seconds))
        rate = None if measured.gflop is None else measured.gflop / median
        table[name] = {
            **{f"p{p}_ms": float(np.percentile(seconds, p)) * 1e3 for p in _PERCENTILES},
            "speedup": first / median,
            "gflops": rate,
            "of_peak": None if rate is None else rate / measured.matmul_gflops,
            "load_s": measured.load_s[name],
            "cold_s": float(np.median(measured.cold_s[name])),
            "peak_mb": measured.peak_bytes[name] / 1e6,
            "file_mb": measured.file_bytes[name] / 1e6,
        }
        if measured.joules is not None:
            table[name]["joules"] = measured.joules[name]
        if measured.quality is not None:
            table[name]["auroc"] = measured.quality.auroc[name]
            table[name]["verdicts_changed"] = measured.quality.changed[name]
    return table


def _agree(running: Mapping[str, EngineProcess], frames: NDArray[np.uint8], precision: str, mode: str) -> None:
    """Compare all engines with the first before anything is timed; this is their first call, too."""
    answers = {name: float(engine.score(frames)[0]) for name, engine in running.items()}
    reference, expected = next(iter(answers.items()))
    for name, probability in answers.items():
        # PIL resizes to whole levels, the graph does not.
        loose = name.endswith("bf16") or (name.startswith("naive") and mode != "crop")
        allowed = max(_AGREE[precision], _LOOSE if loose else 0.0)
        if not abs(probability - expected) <= allowed:
            raise GateError(
                f"not timed: {name} gives probability {probability:.5f} where {reference} gives {expected:.5f}; the "
                "file is not what the checkpoint computes (asr-parity tells where they part)"
            )


def _in_turns(
    running: Mapping[str, EngineProcess], frames: NDArray[np.uint8], rounds: int, title: str
) -> dict[str, tuple[float, ...]]:
    """Call every engine once per round, so that disturbances of the machine affect all engines alike."""
    for engine in running.values():
        engine.time(frames, _WARM_UP)
    samples: dict[str, tuple[float, ...]] = dict.fromkeys(running, ())
    for _ in progress_bar(range(rounds), title):
        for name, engine in running.items():
            samples[name] += engine.time(frames, 1)
    return samples


def _file(task: Task) -> Path:
    """Return what an engine loads."""
    if task.engine == "naive onnxruntime" and task.naive is not None:
        return task.naive.path
    return task.checkpoint if task.engine.startswith("torch") and task.checkpoint is not None else task.model


def _matmul_peak(threads: int, side: int = 1024, seconds: float = 0.5) -> float:
    """Measure the fastest float32 product of two square matrices, in GFLOP/s."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    a, b = torch.rand(side, side), torch.rand(side, side)
    best, end = np.inf, time.perf_counter() + seconds
    while time.perf_counter() < end:
        started = time.perf_counter()
        a @ b
        best = min(best, time.perf_counter() - started)
    torch.set_num_threads(before)
    return 2 * side**3 / best / 1e9
