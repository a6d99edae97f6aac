"""Probabilities of images, from a checkpoint or from an exported file."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from asr_models import Checkpoint, Deployed
from asr_runtime import Detector
from asr_runtime.errors import DeviceError, InputError
from asr_runtime.reports.progress import progress_bar
from asr_runtime.windows import LookKind
from asr_train.data.augment import equalise as reencoded
from asr_train.data.batches import Batch, EvaluationImages, Item, collate, prepare_worker
from asr_train.data.clips import ClipImages, thinned
from asr_train.data.layouts import Sample

__all__ = ["Scored", "score_checkpoint", "score_clips", "score_exported", "torch_device"]


@dataclass(frozen=True)
class Scored:
    """What a model says of a split; unreadable files are left out and named.

    Attributes:
        samples: the n scored ones.
        labels: int64 (n,).
        probability: float64 (n,).
        margins: float64 (n,), logit_ai - logit_real.
        unreadable: path -> why.
        content: float64 (n,), content-only scores (`ContentProbe.score`); None where no probe could be fitted.
    """

    samples: tuple[Sample, ...]
    labels: NDArray[np.int64]
    probability: NDArray[np.float64]
    margins: NDArray[np.float64]
    unreadable: Mapping[str, str]
    content: NDArray[np.float64] | None = None


def score_checkpoint(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    quality: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "cpu",
    transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
) -> Scored:
    """Score with PyTorch: the deployed chain, its geometry run by the reading processes.

    Args:
        checkpoint: network, preprocessing and calibration.
        samples: what to score.
        quality: JPEG quality that every image is re-encoded with first; None leaves them as they are.
        batch_size: images per forward pass.
        workers: reading processes.
        device: a torch device.
        transform: what else happens to every image, before the re-encoding; see `asr_train.data.degradations`.
    """
    deployed = checkpoint.deployed().to(device)
    images = EvaluationImages(samples, deployed.preprocess, quality, transform)
    values, readable, problems = _run(deployed, images, batch_size, workers)
    unreadable = {str(samples[index].path): why for index, why in problems}
    return _scored(samples, readable, [values], unreadable)


def score_clips(
    checkpoint: Checkpoint,
    samples: Sequence[Sample],
    quality: int | None = None,
    batch_size: int = 32,
    workers: int = 0,
    device: str = "cpu",
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Score clips made of pictures (`asr_train.data.clips`). Arguments as for `score_checkpoint`.

    Returns:
        Labels (n,) and the mean margin (n,) of each clip's frames.
    """
    deployed = checkpoint.deployed().to(device)
    images = ClipImages(thinned(samples), deployed.preprocess, quality)
    values, _, problems = _run(deployed, images, batch_size, workers)
    good, margins = images.per_clip(values[:, 1], problems)
    return np.array([images.samples[i].label for i in good], dtype=np.int64), margins


@torch.inference_mode()
def _run(
    deployed: Deployed, images: Dataset[Item], batch_size: int, workers: int
) -> tuple[NDArray[np.float64], list[int], list[tuple[int, str]]]:
    """Return probability and margin (n, 2) of the images that can be read, where these stand, and why others cannot."""
    device = next(deployed.parameters()).device
    loader: DataLoader[Batch] = DataLoader(
        images,  # type: ignore[arg-type]
        batch_size=batch_size,
        collate_fn=collate,
        num_workers=workers,
        worker_init_fn=prepare_worker,
    )
    readable: list[int] = []
    rows: list[NDArray[np.float64]] = [np.empty((0, 2))]
    problems: list[tuple[int, str]] = []
    for batch in progress_bar(loader, "scoring", total=len(loader)):
        problems += list(batch.problems)
        if len(batch.labels):
            logits = deployed.network(deployed.preprocess.normalise(batch.frames.to(device)))
            values = torch.stack([deployed.probability(logits), logits[:, 1] - logits[:, 0]], dim=1)
            rows.append(values.double().cpu().numpy())
            readable += batch.indices.tolist()
    return np.concatenate(rows), readable, problems


def score_exported(
    detector: Detector,
    samples: Sequence[Sample],
    quality: int | None = None,
    transform: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] | None = None,
    look: LookKind = "centre",
) -> Scored:
    """Score with an exported file, image by image, as a device does. Arguments as for `score_checkpoint`.

    `look` says what each image is scored from: its centre, or windows all over it.
    """
    readable: list[int] = []
    rows: list[NDArray[np.float64]] = []
    unreadable: dict[str, str] = {}
    for index, sample in enumerate(progress_bar(samples, "scoring")):
        try:
            image = sample.read()
            if transform is not None:
                image = transform(image)
        except InputError as error:
            unreadable[str(sample.path)] = str(error)
            continue
        seen = detector.look(image if quality is None else reencoded(image, quality), look)
        rows.append(np.array([[seen.probability, seen.margin]]))
        readable.append(index)
    return _scored(samples, readable, rows, unreadable)


def torch_device(device: str) -> str:
    """Turn `auto`, `cpu` or `cuda` into a torch device.

    Raises:
        DeviceError: CUDA was asked for and is not there.
    """
    if device == "cuda" and not torch.cuda.is_available():
        raise DeviceError("device cuda: PyTorch finds no usable GPU here; use --device cpu")
    return ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device


def _scored(
    samples: Sequence[Sample], readable: list[int], rows: list[NDArray[np.float64]], unreadable: dict[str, str]
) -> Scored:
    values = np.concatenate(rows) if rows else np.empty((0, 2))
    chosen = tuple(samples[i] for i in readable)
    labels = np.array([s.label for s in chosen], dtype=np.int64)
    return Scored(chosen, labels, values[:, 0], values[:, 1], unreadable)
