"""Evaluation: probabilities of a data split, from a checkpoint or from an exported file, and what they amount to."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch.utils.data import DataLoader

from asr_models import Checkpoint, load_checkpoint
from asr_runtime import Detector
from asr_runtime.decode import read_image
from asr_runtime.errors import ConfigurationError, DatasetError, DeviceError, InputError
from asr_train.augment import equalise as reencoded
from asr_train.data import EvaluationImages, collate
from asr_train.layouts import Sample, find_data
from asr_train.metrics import binary_metrics, metrics_by_source

__all__ = ["Evaluation", "Scored", "evaluate", "evaluate_model", "score_checkpoint", "score_exported"]


@dataclass(frozen=True)
class Scored:
    """What a model says of a split; unreadable files are left out and named.

    Attributes:
        samples: the n scored ones.
        labels: int64 (n,).
        probability: float64 (n,).
        margins: float64 (n,), logit_ai - logit_real.
        unreadable: path -> why.
    """

    samples: tuple[Sample, ...]
    labels: NDArray[np.int64]
    probability: NDArray[np.float64]
    margins: NDArray[np.float64]
    unreadable: Mapping[str, str]


@dataclass(frozen=True)
class Evaluation:
    """Figures of a split: `overall` and `by_source` are plain JSON data, `protocol` says how they came about."""

    protocol: Mapping[str, Any]
    overall: Mapping[str, Any]
    by_source: Mapping[str, Mapping[str, Any]]
    scored: Scored


@torch.inference_mode()
def score_checkpoint(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    quality: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "cpu",
) -> Scored:
    """Score with PyTorch: the deployed chain, its geometry run by the reading processes.

    Args:
        checkpoint: network, preprocessing and calibration.
        samples: what to score.
        quality: JPEG quality that every image is re-encoded with first; None leaves them as they are.
        batch_size: images per forward pass.
        workers: reading processes.
        device: a torch device.
    """
    deployed = checkpoint.deployed().to(device)
    images = EvaluationImages(samples, deployed.preprocess, quality)
    loader = DataLoader(images, batch_size=batch_size, collate_fn=collate, num_workers=workers)
    kept: list[int] = []
    rows: list[NDArray[np.float64]] = []
    unreadable: dict[str, str] = {}
    for batch in _shown(loader, len(loader)):
        unreadable |= {str(samples[index].path): why for index, why in batch.problems}
        if len(batch.labels):
            logits = deployed.network(deployed.preprocess.normalise(batch.frames.to(device)))
            values = torch.stack([deployed.probability(logits), logits[:, 1] - logits[:, 0]], dim=1)
            rows.append(values.double().cpu().numpy())
            kept += batch.indices.tolist()
    return _scored(samples, kept, rows, unreadable)


def score_exported(detector: Detector, samples: Sequence[Sample], quality: int | None = None) -> Scored:
    """Score with an exported file, image by image, as a device does. Arguments as for `score_checkpoint`."""
    kept: list[int] = []
    rows: list[NDArray[np.float64]] = []
    unreadable: dict[str, str] = {}
    for index, sample in enumerate(_shown(samples, len(samples))):
        try:
            image = read_image(sample.path)
        except InputError as error:
            unreadable[str(sample.path)] = str(error)
            continue
        scores = detector(image if quality is None else reencoded(image, quality))
        margin = scores.logits[:, 1] - scores.logits[:, 0]
        rows.append(np.stack([scores.probability, margin], axis=1).astype(np.float64))
        kept.append(index)
    return _scored(samples, kept, rows, unreadable)


def evaluate_model(
    model: str | None,
    checkpoint: Path | None,
    data: Path,
    layout: str | None = None,
    split: str | None = None,
    leave_out: Sequence[str] = (),
    equalise: int | None = None,
    spectrum: str | None = None,
    device: str = "auto",
    batch_size: int = 32,
    workers: int = 0,
) -> Evaluation:
    """Evaluate a checkpoint, or an exported file, on a split of a data folder.

    Args:
        model: an exported file (`X.onnx`) or built-in model; beside a checkpoint, the registry name of what it holds.
        checkpoint: a checkpoint; None if `model` is exported.
        data: the data folder.
        layout: of the data folder; None finds out.
        split: `train`, `val` or `test`; None takes test if there is one, else val.
        leave_out: sources to leave out.
        equalise: JPEG quality that every image is re-encoded with first; None leaves the files as they are.
        spectrum: of a published Lightning checkpoint, which does not tell.
        device: `auto`, `cpu` or `cuda`.
        batch_size: images per forward pass of a checkpoint; an exported file gets one at a time.
        workers: reading processes.

    Raises:
        ConfigurationError: neither or both of checkpoint and exported file.
        DatasetError: the data folder does not fit.
        DeviceError: CUDA was asked for and is not there.
    """
    names_a_file = model is not None and model.endswith(".onnx")
    if (checkpoint is None and model is None) or (checkpoint is not None and names_a_file):
        raise ConfigurationError("expected either --checkpoint X.pth or --model X.onnx")
    folder = find_data(data, layout).without(leave_out)
    split = split or ("test" if folder.test else "val")
    samples = folder.split(split)
    if checkpoint is None:
        scored = score_exported(Detector(model, device=device), samples, equalise)
    else:
        loaded = load_checkpoint(checkpoint, model, {"spectrum": spectrum} if spectrum else None)
        scored = score_checkpoint(loaded, samples, equalise, batch_size, workers, _torch_device(device))
    if not len(scored.labels):
        raise DatasetError(f"{data}: none of the {len(samples)} images of the split {split} could be read")
    protocol = {
        "model": Path(checkpoint or str(model)).name,
        "data": folder.root.name,
        "split": split,
        "re-encoding": f"every image at JPEG {equalise}" if equalise else "none, files as they are",
        "left out": list(leave_out),
        "notes": list(folder.notes),
    }
    return evaluate(scored, protocol)


def evaluate(scored: Scored, protocol: Mapping[str, Any]) -> Evaluation:
    """Compute all figures of scored images; `protocol` (data, split, re-encoding, model) is kept beside them."""
    sources = [sample.source for sample in scored.samples]
    overall = binary_metrics(scored.labels, scored.probability)
    by_source = metrics_by_source(scored.labels, scored.probability, sources)
    unreadable = sorted(Path(path).name for path in scored.unreadable)
    return Evaluation({**protocol, "unreadable": unreadable}, overall, by_source, scored)


def _torch_device(device: str) -> str:
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda: PyTorch finds no usable GPU here; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _scored(
    samples: Sequence[Sample], kept: list[int], rows: list[NDArray[np.float64]], unreadable: dict[str, str]
) -> Scored:
    values = np.concatenate(rows) if rows else np.empty((0, 2))
    chosen = tuple(samples[i] for i in kept)
    labels = np.array([s.label for s in chosen], dtype=np.int64)
    return Scored(chosen, labels, values[:, 0], values[:, 1], unreadable)


def _shown(items: Iterable[Any], total: int) -> Iterable[Any]:
    """Show a progress bar on stderr, where that is a terminal."""
    console = Console(stderr=True)
    return track(items, "scoring", total=total, console=console, transient=True, disable=not console.is_terminal)
