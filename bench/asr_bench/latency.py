"""Latency at batch 1: the exported file against eager PyTorch, in one run, interleaved, every sample kept."""

from __future__ import annotations

import json
import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from asr_export.parity import compare, tolerance
from asr_export.parity_inputs import Frames, packaged_images
from asr_models import Checkpoint
from asr_runtime import Detector, read_image
from asr_runtime.errors import GateError, OutputError

__all__ = ["Latency", "measure_latency", "write_latency"]

Engine = Callable[[NDArray[np.uint8]], object]
_WARM_UP = 5
_PERCENTILES = (50, 95, 99)


@dataclass(frozen=True)
class Latency:
    """Milliseconds from frame to probability.

    Attributes:
        samples: engine -> one value per round, in the order they were taken.
        conditions: threads, frame size, processor, versions.
    """

    samples: Mapping[str, tuple[float, ...]]
    conditions: Mapping[str, Any]

    def figures(self) -> dict[str, dict[str, float]]:
        """Percentiles per engine, and how many times faster than the first engine its median is."""
        first = float(np.median(next(iter(self.samples.values()))))
        found = {}
        for name, values in self.samples.items():
            percentiles = {f"p{p}": float(np.percentile(values, p)) for p in _PERCENTILES}
            found[name] = {**percentiles, "speedup": first / percentiles["p50"]}
        return found

    def to_markdown(self) -> str:
        """Return the figures as a Markdown table, the conditions below it."""
        lines = ["| engine | p50 ms | p95 ms | p99 ms | speed-up |", "|---|---|---|---|---|"]
        for name, f in self.figures().items():
            lines.append(f"| {name} | {f['p50']:.2f} | {f['p95']:.2f} | {f['p99']:.2f} | {f['speedup']:.2f}x |")
        lines += ["", ", ".join(f"{key} {value}" for key, value in self.conditions.items())]
        return "\n".join(lines) + "\n"


def measure_latency(
    exported: Path, checkpoint: Checkpoint | None = None, *, threads: int = 1, rounds: int = 50
) -> Latency:
    """Time the engines in turn, one frame each per round.

    Args:
        exported: the ONNX file.
        checkpoint: what it was made from; adds eager PyTorch, whose numbers are compared before any time counts.
        threads: of every engine.
        rounds: samples per engine.

    Raises:
        GateError: the engines do not agree, so their times mean nothing.
    """
    detector = Detector(exported, device="cpu", threads=threads)
    frame = read_image(sorted(packaged_images().iterdir())[0])[None]
    engines: dict[str, Engine] = {}
    torch.set_num_threads(threads)
    if checkpoint is not None:
        deployed = checkpoint.deployed()
        parity = compare(deployed, detector, [Frames("frame", frame)], tolerance(deployed.network))
        if not parity.passed:
            raise GateError(f"{exported}: not timed, it does not compute what the checkpoint computes: {parity}")
        engines["PyTorch eager"] = torch.inference_mode()(lambda f: deployed(torch.from_numpy(f)))
    engines["exported file, onnxruntime"] = detector
    samples: dict[str, list[float]] = {name: [] for name in engines}
    console = Console(stderr=True)
    steps = range(-_WARM_UP, rounds)
    for step in track(steps, "timing", console=console, transient=True, disable=not console.is_terminal):
        for name, engine in engines.items():
            started = time.perf_counter()
            engine(frame)
            if step >= 0:
                samples[name].append((time.perf_counter() - started) * 1e3)
    return Latency({name: tuple(values) for name, values in samples.items()}, _conditions(detector, frame, threads))


def write_latency(latency: Latency, folder: Path) -> None:
    """Write latency.json (every sample) and latency.md.

    Raises:
        OutputError: the folder cannot be written.
    """
    content = {"conditions": latency.conditions, "figures": latency.figures(), "samples": latency.samples}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "latency.json").write_text(json.dumps(content, indent=2) + "\n")
        (folder / "latency.md").write_text(latency.to_markdown())
    except OSError as error:
        raise OutputError(f"{folder}: cannot be written ({error.strerror})") from None


def _conditions(detector: Detector, frame: NDArray[np.uint8], threads: int) -> dict[str, Any]:
    return {
        "model": f"{detector.card.name} {detector.sha256[:12]}",
        "frame": f"{frame.shape[2]} x {frame.shape[1]}",
        "threads": threads,
        "provider": detector.provider,
        "processor": _processor(),
        "load": round(os.getloadavg()[0], 1),
        "torch": torch.__version__,
    }


def _processor() -> str:
    """Name the processor; /proc says more than the platform module where it exists."""
    info = Path("/proc/cpuinfo")
    if info.is_file():
        names = [line.partition(":")[2].strip() for line in info.read_text().splitlines() if "model name" in line]
        if names:
            return names[0]
    return platform.processor() or platform.machine()
