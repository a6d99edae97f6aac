"""Everything that needs a GPU, in one run and one table: `make gpu`.

    python -m asr_bench.gpu -o bench/results

Each step is skipped with a reason where what it needs is not there; on a machine without CUDA that is every step. The
same steps run on `--device cpu`, which tests them and gives no figure worth quoting.
"""

from __future__ import annotations

import functools
import json
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from asr_bench.placement import node_placement
from asr_bench.random_weights import random_checkpoint
from asr_export.onnx_file import export
from asr_export.parity import compare, tolerance
from asr_export.parity_inputs import packaged_images, real_frames
from asr_models import Checkpoint
from asr_runtime import Detector, read_image
from asr_runtime.command import FOLDER, command
from asr_runtime.errors import AsrError, ConfigurationError
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.machine import package_version
from asr_runtime.reports.progress import progress_bar

__all__ = ["GpuReport", "run_steps"]

_BATCHES = (1, 4, 16, 64)
_ROUNDS = 20
_TRAINING_BATCH, _TRAINING_STEPS = 32, 20
_NETWORKS: Mapping[str, Mapping[str, Any]] = {"asrnet": {}, "fft-resnet34": {}}  # with their options
_PACKAGES = ("torch", "onnxruntime-gpu", "onnxruntime", "nvidia-cudnn-cu12", "nvidia-cudnn-cu13", "tensorrt")


class SkippedError(Exception):
    """A step has nothing to run on; the message says what it needs."""


@dataclass
class GpuReport:
    """What was measured.

    Attributes:
        device: name of the GPU, or of the processor.
        versions: of the packages that decide.
        rows: (step, what, figure) in the order of the run.
    """

    device: str
    versions: dict[str, str]
    rows: list[tuple[str, str, str]] = field(default_factory=list)

    def to_markdown(self) -> str:
        """Return the table."""
        versions = ", ".join(f"{name} {version}" for name, version in self.versions.items())
        lines = [f"{self.device}; {versions}", "", "| step | of | figure |", "|---|---|---|"]
        return "\n".join([*lines, *(f"| {step} | {what} | {figure} |" for step, what, figure in self.rows)]) + "\n"


@dataclass(frozen=True)
class _Setting:
    """What every step gets: where to run, with which files, for how long."""

    device: str  # cuda, or cpu for a test of the steps
    folder: Path
    batches: tuple[int, ...]
    rounds: int

    @property
    def providers(self) -> tuple[str, ...]:
        return ("cuda", "tensorrt") if self.device == "cuda" else ("cpu",)

    def checkpoint(self, name: str) -> Checkpoint:
        """Make a network with random weights, the same at every call."""
        return random_checkpoint(name, self.folder / f"{name}.pth", _NETWORKS[name])

    def exported(self, name: str, fft: Any = "matmul") -> Path:
        path = self.folder / f"{name}-{fft}.onnx"
        if not path.exists():
            export(self.checkpoint(name), path, fft=fft)
        return path


Step = Callable[[_Setting], Iterator[tuple[str, str]]]


def run_steps(device: str, batches: tuple[int, ...] = _BATCHES, rounds: int = _ROUNDS) -> GpuReport:
    """Run every step.

    Args:
        device: `cuda`, or `cpu` to test the steps.
        batches: sizes to time.
        rounds: calls of each.
    """
    on_gpu = device == "cuda" and torch.cuda.is_available()
    name = torch.cuda.get_device_name() if on_gpu else "no CUDA device" if device == "cuda" else "this processor"
    report = GpuReport(name, _versions())
    with tempfile.TemporaryDirectory() as folder:
        setting = _Setting(device, Path(folder), batches, rounds)
        for title, step in progress_bar(list(_STEPS.items()), "steps"):
            try:
                if device == "cuda" and not on_gpu:
                    raise SkippedError("torch finds no CUDA device here")
                report.rows += [(title, what, figure) for what, figure in step(setting)]
            except (SkippedError, AsrError) as reason:
                report.rows.append((title, "", f"skipped: {reason}"))
    return report


def _training(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Time steps of gradient descent, forward, backward and update, on pictures that are there already."""
    for name in _NETWORKS:
        for precision in (torch.float32, torch.bfloat16):
            checkpoint = setting.checkpoint(name)
            network = checkpoint.deployed().network.to(setting.device).train()
            size = checkpoint.preprocess["size"]
            images = torch.rand(_TRAINING_BATCH, 3, size, size, device=setting.device)
            labels = torch.arange(_TRAINING_BATCH, device=setting.device) % 2
            optimizer = torch.optim.AdamW(network.parameters(), lr=2e-4)
            if setting.device == "cuda":
                torch.cuda.reset_peak_memory_stats()

            step = functools.partial(_training_step, network, optimizer, images, labels, precision)
            seconds = statistics.median(_times(step, min(setting.rounds, _TRAINING_STEPS)))
            memory = f", {torch.cuda.max_memory_allocated() / 1e9:.2f} GB" if setting.device == "cuda" else ""
            kind = str(precision).removeprefix("torch.")
            yield f"{name}, batch {_TRAINING_BATCH}, {kind}", f"{_TRAINING_BATCH / seconds:.0f} pictures/s{memory}"


def _training_step(
    network: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, labels: Tensor, precision: torch.dtype
) -> None:
    with torch.autocast(images.device.type, precision, enabled=precision != torch.float32):
        loss = F.cross_entropy(network(images), labels)
    optimizer.zero_grad()
    loss.backward()  # type: ignore[no-untyped-call]
    optimizer.step()
    if images.is_cuda:
        torch.cuda.synchronize()


def _export(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Time writing a file, with its own check against PyTorch on the CPU."""
    for name in _NETWORKS:
        started = time.perf_counter()
        path = setting.exported(name)
        yield name, f"{time.perf_counter() - started:.1f} s, {path.stat().st_size / 1e6:.1f} MB"


def _parity(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Compare each provider with eager float32 PyTorch on the CPU, and say where every node ran."""
    frames = list(real_frames(packaged_images()))
    for name in _NETWORKS:
        deployed = setting.checkpoint(name).deployed()
        for device in setting.providers:
            try:
                detector = Detector(setting.exported(name), device=device)
            except AsrError as error:
                yield f"{name}, {device}", f"skipped: {error}"
                continue
            parity = compare(deployed, detector, frames, tolerance(deployed.network))
            placed = node_placement(setting.exported(name), frames[0].frames, device)
            where = ", ".join(f"{sum(nodes.values())} nodes on {provider}" for provider, nodes in placed.items())
            yield f"{name}, {device}", f"{'passed' if parity.passed else 'FAILED'}: {parity}; {where}"


def _latency(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Time inference with frames from the host, with frames on the device already, and the upload alone."""
    import onnxruntime

    where = setting.device
    picture = read_image(sorted(packaged_images().iterdir())[0])[None]
    for name in _NETWORKS:
        for device in setting.providers:
            try:
                session = open_session(setting.exported(name).read_bytes(), device)
            except AsrError as error:
                yield f"{name}, {device}", f"skipped: {error}"
                continue
            for batch in setting.batches:
                frames = np.repeat(picture, batch, axis=0)
                resident = onnxruntime.OrtValue.ortvalue_from_numpy(frames, where, 0)
                binding = session.io_binding()
                binding.bind_ortvalue_input("frames", resident)
                for output in ("probability", "logits"):
                    binding.bind_output(output, where)

                def on_device(session: Any = session, binding: Any = binding) -> None:
                    session.run_with_iobinding(binding)
                    binding.synchronize_outputs()

                def upload(frames: NDArray[np.uint8] = frames) -> None:
                    onnxruntime.OrtValue.ortvalue_from_numpy(frames, where, 0)
                    _wait(setting)

                def from_host(session: Any = session, frames: NDArray[np.uint8] = frames) -> None:
                    session.run(None, {"frames": frames})

                host, inner, copy = (
                    statistics.median(_times(call, setting.rounds)) for call in (from_host, on_device, upload)
                )
                yield (
                    f"{name}, {device}, batch {batch}",
                    f"{host * 1e3:.2f} ms from the host ({batch / host:.0f} frames/s), {inner * 1e3:.2f} ms with "
                    f"frames on the device ({batch / inner:.0f}/s), upload {copy * 1e3:.2f} ms",
                )


def _fourier(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Time the native Fourier operator against the transform as matrix products."""
    picture = read_image(sorted(packaged_images().iterdir())[0])[None]
    for name in _NETWORKS:
        medians = {}
        for fft in ("matmul", "dft"):
            session = open_session(setting.exported(name, fft).read_bytes(), setting.device)
            medians[fft] = statistics.median(
                _times(lambda s=session: s.run(None, {"frames": picture}), setting.rounds)  # type: ignore[misc]
            )
        yield (
            name,
            f"{medians['matmul'] * 1e3:.2f} ms as matrix products, {medians['dft'] * 1e3:.2f} ms with the operator "
            f"({medians['dft'] / medians['matmul']:.2f}x)",
        )


def _half_precision(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Hold 16 bits against float32 on real frames: no verdict may change. Spectra stay in float32."""
    frames = [torch.from_numpy(batch.frames) for batch in real_frames(packaged_images())]
    for name in _NETWORKS:
        deployed = setting.checkpoint(name).deployed().to(setting.device).eval()
        exact = _probabilities(deployed, frames, torch.float32)
        verdict = Detector(setting.exported(name), device="cpu").card.decision.verdict
        for precision in (torch.float16, torch.bfloat16):
            reduced = _probabilities(deployed, frames, precision)
            changed = sum(verdict(a) != verdict(b) for a, b in zip(exact, reduced, strict=True))
            largest = max(abs(a - b) for a, b in zip(exact, reduced, strict=True))
            kind = str(precision).removeprefix("torch.")
            yield (
                f"{name}, {kind}",
                f"{'passed' if not changed else 'FAILED'}: verdicts changed {changed} of {len(exact)}, "
                f"probabilities by at most {largest:.1e}",
            )


@torch.inference_mode()
def _probabilities(deployed: nn.Module, frames: list[Tensor], precision: torch.dtype) -> list[float]:
    found: list[float] = []
    for batch in frames:
        on_device = batch.to(next(deployed.parameters()).device)
        with torch.autocast(on_device.device.type, precision, enabled=precision != torch.float32):
            found += deployed(on_device)[0].float().tolist()
    return found


def _memory(setting: _Setting) -> Iterator[tuple[str, str]]:
    """Measure what a session takes of the device's memory, from before it is opened until after its largest batch."""
    picture = read_image(sorted(packaged_images().iterdir())[0])[None]
    for name in _NETWORKS:
        for device in setting.providers:
            file = setting.exported(name).read_bytes()
            before = _used(setting)
            try:
                session = open_session(file, device)
            except AsrError as error:
                yield f"{name}, {device}", f"skipped: {error}"
                continue
            for batch in setting.batches:
                session.run(None, {"frames": np.repeat(picture, batch, axis=0)})
                yield f"{name}, {device}, batch {batch}", f"{max(0, _used(setting) - before) / 1e6:.0f} MB"


def _used(setting: _Setting) -> int:
    """Return bytes in use: of the GPU by all processes, or of this process."""
    if setting.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return total - free
    return int(Path("/proc/self/status").read_text().split("VmRSS:")[1].split()[0]) * 1024


_STEPS: dict[str, Step] = {
    "training": _training,
    "export": _export,
    "parity and placement": _parity,
    "latency": _latency,
    "Fourier operator": _fourier,
    "16 bits": _half_precision,
    "memory": _memory,
}


def _times(call: Callable[[], object], rounds: int) -> list[float]:
    """Return the seconds of each call, after two that warm up."""
    seconds = []
    for number in range(rounds + 2):
        started = time.perf_counter()
        call()
        if number >= 2:
            seconds.append(time.perf_counter() - started)
    return seconds


def _wait(setting: _Setting) -> None:
    if setting.device == "cuda":
        torch.cuda.synchronize()


def _versions() -> dict[str, str]:
    versions = {name: version for name in _PACKAGES if (version := package_version(name)) is not None}
    return {**versions, "CUDA": str(torch.version.cuda)}


@command("python -m asr_bench.gpu")
@click.option("--device", type=click.Choice(["cuda", "cpu"]), default="cuda", help="cpu tests the steps.")
@click.option("-o", "--output", type=FOLDER, help="Folder for DEVICE.json.")
def main(device: str, output: Path | None) -> None:
    """Train, export, compare and time on a GPU, and print one table."""
    report = run_steps(device)
    if output is not None and torch.cuda.is_available():
        if not output.is_dir():
            raise ConfigurationError(f"{output}: no such folder")
        name = re.sub(r"\W+", "-", report.device.lower()).strip("-")
        rows = [dict(zip(("step", "of", "figure"), row, strict=True)) for row in report.rows]
        results = {"device": report.device, "versions": report.versions, "rows": rows}
        (output / f"{name}.json").write_text(json.dumps(results, indent=1) + "\n")
    click.echo(report.to_markdown(), nl=False)


if __name__ == "__main__":
    main()
