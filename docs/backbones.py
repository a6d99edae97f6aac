"""One epoch of each backbone behind both spectra, exported and compared: prints the table of docs/backbones.md.

    python docs/backbones.py DATA OUT

Everything is run by the project's own commands; a network whose file exists is not trained again.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from asr_models import load_checkpoint
from asr_models.cost import multiply_adds
from asr_runtime import Detector

BACKBONES = ("mobilenet_v3_small", "efficientnet_b0", "resnet34", "resnet50", "convnext_tiny", "swin_t")
SPECTRA = ("global", "patch")
SIDE = 96
OPTIONS = ("--weights", "none", "--epochs", 1, "--batch-size", 16, "--preprocess", "crop", "--crop-size", SIDE)
PART = ("--per-source", 3, 2, "--workers", 0, "--threads", 1)
ROUNDS = 15


def run(command: str, *arguments: object) -> None:
    """Run one of the project's commands."""
    subprocess.run([str(Path(sys.executable).parent / command), *map(str, arguments)], check=True, stdout=sys.stderr)


def trained(data: Path, folder: Path, backbone: str, spectrum: str) -> tuple[Path, Path]:
    """Train and export one network, unless its file exists; return its run folder and its file."""
    file = folder / f"{backbone}-{spectrum}.onnx"
    runs = folder / f"{backbone}-{spectrum}"
    if not file.is_file():
        network = ("--model", f"fft-{backbone}", "--spectrum", spectrum)
        run("asr-train", *network, *OPTIONS, *PART, "--data", data, "--runs", runs)
        checkpoint = sorted(runs.glob("run-*/checkpoint_*.pth"))[-1]
        run("asr-export", checkpoint, "-o", file)
    return sorted(runs.glob("run-*"))[-1], file


def latencies(files: list[Path]) -> list[float]:
    """Return the median milliseconds of one frame on one thread; the networks take turns."""
    detectors = [Detector(file, device="cpu", threads=1) for file in files]
    frame = np.random.default_rng(0).integers(0, 256, (1, SIDE, SIDE, 3), dtype=np.uint8)
    times: list[list[float]] = [[] for _ in files]
    for _ in range(ROUNDS + 2):
        for detector, own in zip(detectors, times, strict=True):
            begun = time.perf_counter()
            detector(frame)
            own.append(1000 * (time.perf_counter() - begun))
    return [statistics.median(own[2:]) for own in times]


def main() -> None:
    """Train what is missing, measure, print the table."""
    data, folder = Path(sys.argv[1]), Path(sys.argv[2])
    names = [(backbone, spectrum) for backbone in BACKBONES for spectrum in SPECTRA]
    made = [trained(data, folder, *name) for name in names]
    print("| backbone | spectrum | parameters | multiply-adds | ms | largest logit difference | loss | AUROC |")
    print("|---|---|---|---|---|---|---|---|")
    for (backbone, spectrum), (runs, file), ms in zip(names, made, latencies([file for _, file in made]), strict=True):
        summary = json.loads((runs / "summary.json").read_text())
        card = Detector(file, device="cpu").card
        macs = multiply_adds(load_checkpoint(next(runs.glob("checkpoint_*.pth"))))
        last = summary["history"][-1]
        print(
            f"| {backbone} | {spectrum} | {summary['parameters'] / 1e6:.1f} M | {macs / 1e9:.2f} G | {ms:.1f} "
            f"| {card.parity['logits_relative']:.0e} | {last['train/loss']:.2f} | {last['val/auroc']:.2f} |"
        )


if __name__ == "__main__":
    main()
