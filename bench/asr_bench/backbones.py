"""One epoch of each backbone behind both spectra, exported and compared: prints the table of docs/experiments.md.

    python -m asr_bench.backbones --data generators -o backbones

Trains, exports and checks with the project's own commands, from random weights. A network whose file is there is
not trained again, so a stopped run goes on.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import click
import numpy as np

from asr_models import load_checkpoint
from asr_models.cost import multiply_adds
from asr_runtime import Detector
from asr_runtime.command import command
from asr_runtime.errors import InputError

__all__ = ["BACKBONES", "SPECTRA", "latencies", "trained"]

BACKBONES = ("mobilenet_v3_small", "efficientnet_b0", "resnet34", "resnet50", "convnext_tiny", "swin_t")
SPECTRA = ("global", "patch")
_SIDE = 96
_OPTIONS = ("--weights", "none", "--epochs", 1, "--batch-size", 16, "--preprocess", "crop", "--crop-size", _SIDE)
_ROUNDS = 15


def _run(name: str, *arguments: object) -> None:
    line = [str(Path(sys.executable).parent / name), *map(str, arguments)]
    if subprocess.run(line, stdout=sys.stderr, check=False).returncode:
        raise InputError(f"{' '.join(line[:6])} ...: failed; its message is above")


def trained(data: Path, folder: Path, backbone: str, spectrum: str, per_source: Sequence[int]) -> tuple[Path, Path]:
    """Train and export one network, unless its file exists; return its run folder and its file."""
    file, runs = folder / f"{backbone}-{spectrum}.onnx", folder / f"{backbone}-{spectrum}"
    if not file.is_file():
        network = ("--model", f"fft-{backbone}", "--spectrum", spectrum)
        part = ("--per-source", *per_source, "--workers", 0, "--threads", 1)
        _run("asr-train", *network, *_OPTIONS, *part, "--data", data, "--runs", runs)
        checkpoint = sorted(runs.glob("run-*/checkpoint_*.pth"))[-1]
        _run("asr-export", checkpoint, "-o", file)
    return sorted(runs.glob("run-*"))[-1], file


def latencies(files: Sequence[Path]) -> list[float]:
    """Return the median milliseconds of one frame on one thread; the networks take turns."""
    detectors = [Detector(file, device="cpu", threads=1) for file in files]
    frame = np.random.default_rng(0).integers(0, 256, (1, _SIDE, _SIDE, 3), dtype=np.uint8)
    times: list[list[float]] = [[] for _ in files]
    for _ in range(_ROUNDS + 2):
        for detector, own in zip(detectors, times, strict=True):
            begun = time.perf_counter()
            detector(frame)
            own.append(1000 * (time.perf_counter() - begun))
    return [statistics.median(own[2:]) for own in times]


def _row(name: tuple[str, str], runs: Path, file: Path, milliseconds: float) -> str:
    summary = json.loads((runs / "summary.json").read_text())
    macs = multiply_adds(load_checkpoint(next(runs.glob("checkpoint_*.pth"))))
    last = summary["history"][-1]
    parity = Detector(file, device="cpu").card.parity["logits_relative"]
    return (
        f"| {name[0]} | {name[1]} | {summary['parameters'] / 1e6:.1f} M | {macs / 1e9:.2f} G | {milliseconds:.1f} "
        f"| {parity:.0e} | {last['train/loss']:.2f} | {last['val/auroc']:.2f} |"
    )


@command("python -m asr_bench.backbones", refusals=(InputError,))
@click.option("--data", type=click.Path(path_type=Path), required=True, help="Data folder.")
@click.option("-o", "--output", type=click.Path(path_type=Path), required=True, help="Folder for runs and files.")
@click.option("--per-source", type=int, nargs=2, default=(3, 2), help="Training and validation images of a source.")
@click.option("--backbone", "backbones", multiple=True, default=BACKBONES, help="Repeatable.  [default: all]")
def main(data: Path, output: Path, per_source: tuple[int, int], backbones: tuple[str, ...]) -> None:
    """Train, export and compare backbones."""
    output.mkdir(parents=True, exist_ok=True)
    names = [(backbone, spectrum) for backbone in backbones for spectrum in SPECTRA]
    made = [trained(data, output, *name, per_source) for name in names]
    click.echo("| backbone | spectrum | parameters | multiply-adds | ms | largest logit difference | loss | AUROC |")
    click.echo("|---|---|---|---|---|---|---|---|")
    for name, (runs, file), ms in zip(names, made, latencies([file for _, file in made]), strict=True):
        click.echo(_row(name, runs, file, ms))


if __name__ == "__main__":
    main()
