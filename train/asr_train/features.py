"""Features of a frozen trunk, extracted once per picture and view and kept, so that heads are fitted in seconds.

A picture is seen in several augmented views (for fitting) and once as evaluation sees it. What is drawn for a view
depends on the seed, the picture's path and the view alone: leaving sources out changes nothing for the others.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from asr_models import ASRNetLite, Preprocess
from asr_runtime.errors import DatasetError
from asr_train.config import TrainConfig
from asr_train.data import Batch, EvaluationImages, Item, TrainingImages, collate
from asr_train.layouts import DataFolder, Sample
from asr_train.pairs import content_matched_pairs
from asr_train.scoring import torch_device

__all__ = ["FeatureTable", "PairTable", "feature_table", "pair_table"]

log = logging.getLogger("asr_train")
_WORTH_COMPILING = 1000  # images


@dataclass(frozen=True)
class FeatureTable:
    """Features of the readable pictures of a data folder.

    Attributes:
        samples: the n pictures, training split first.
        plain: float32 (n, F), as evaluation sees them.
        views: float32 (V, n_train, F), augmented, of the training split.
        unreadable: path -> why.
    """

    samples: tuple[Sample, ...]
    plain: NDArray[np.float32]
    views: NDArray[np.float32]
    unreadable: dict[str, str]

    def rows(self, samples: Sequence[Sample]) -> NDArray[np.int_]:
        """Where these pictures stand; those that could not be read are left out."""
        index = {sample.path: row for row, sample in enumerate(self.samples)}
        return np.array([index[s.path] for s in samples if s.path in index], dtype=np.int64)


def feature_table(network: ASRNetLite, config: TrainConfig, data: DataFolder, folder: Path) -> FeatureTable:
    """Extract the features of a data folder's training and validation split, or read what was extracted before.

    Args:
        network: its trunk is frozen; the head is not used.
        config: `preprocess`, `augment`, `views`, `seed`, `quality`, `batch_size` and `workers` are used.
        data: the pictures.
        folder: `features-<key>.npz` is kept here; the key covers the trunk's weights, the data and the configuration.
    """
    path = folder / f"features-{_key(network, config, data)}.npz"
    if path.is_file():
        log.info("features: read from %s", path)
        return _read(path, data)
    preprocess = Preprocess(**config.preprocess)
    trained = TrainingImages(data.train, preprocess, config.augment)
    seen = EvaluationImages((*data.train, *data.val), preprocess, config.quality)
    # (N, 3, S, S) channels last: the faster layout on CPUs too.
    frozen = network.eval().to(torch_device("auto")).to(memory_format=torch.channels_last)
    plain, problems = _extract(frozen, preprocess, seen, config, "features")
    bad = {index for index, _ in problems}
    good_train = [i for i in range(len(data.train)) if i not in bad]
    views = []
    for view in range(config.views):
        names = (data.train[i].path.relative_to(data.root).as_posix() for i in good_train)
        draws = [(i, _draw(config.seed, view, name)) for i, name in zip(good_train, names, strict=True)]
        views.append(_extract(frozen, preprocess, _Keyed(trained, draws), config, f"view {view + 1}")[0])
    good = [i for i in range(len(seen)) if i not in bad]
    samples = tuple(seen.samples[i] for i in good)
    unreadable = {str(seen.samples[i].path): why for i, why in problems}
    table = FeatureTable(samples, plain, np.stack(views), unreadable)
    _keep(path, plain=table.plain, views=table.views, good=np.array(good), unreadable=np.array(json.dumps(unreadable)))
    return table


@dataclass(frozen=True)
class PairTable:
    """Features of content-matched pairs.

    Attributes:
        differences: float32 (P, F), half of (twin - photo), of the training split. Both got the same crop and the same
            degradations, so subject matter cancels out and what a neural network left in its twin stays.
        sources: str (P, 2), the source of the pair's photo, and the one of the pair (`resynthesised_...`).
        samples: the m pictures of the validation split's pairs.
        plain: float32 (m, F), as evaluation sees them.
    """

    differences: NDArray[np.float32]
    sources: NDArray[np.str_]
    samples: tuple[Sample, ...]
    plain: NDArray[np.float32]


def pair_table(network: ASRNetLite, config: TrainConfig, data: DataFolder, folder: Path) -> PairTable:
    """Extract the features of a folder that asr-resynthesise made, or read what was extracted before.

    Args:
        network: as for `feature_table`.
        config: as for `feature_table`; one view is used.
        data: the pairs.
        folder: `pairs-<key>.npz` is kept here.

    Raises:
        DatasetError: no pair in the training split, or a picture that cannot be read.
    """
    pairs = content_matched_pairs(data.train)
    if not pairs:
        raise DatasetError(f"{data.root}: no pairs of a photo and its twin; expected a folder of asr-resynthesise")
    judged = tuple(sample for pair in content_matched_pairs(data.val) for sample in pair)
    sources = np.array([(_photo_source(photo), photo.source) for photo, _ in pairs])
    path = folder / f"pairs-{_key(network, config, data)}.npz"
    if path.is_file():
        content = np.load(path)
        return PairTable(content["differences"], sources, judged, content["plain"])
    preprocess = Preprocess(**config.preprocess)
    images = TrainingImages([sample for pair in pairs for sample in pair], preprocess, config.augment)
    draws = [(i, _draw(config.seed, 0, pairs[i // 2][1].path.name)) for i in range(2 * len(pairs))]
    seen = EvaluationImages(judged, preprocess, config.quality)
    frozen = network.eval().to(torch_device("auto")).to(memory_format=torch.channels_last)
    found = []
    for part, samples, title in (
        (_Keyed(images, draws), images.samples, "pairs"),
        (seen, judged, "validation pairs"),
    ):
        features, problems = _extract(frozen, preprocess, part, config, title)
        if problems:
            index, why = problems[0]
            raise DatasetError(f"{samples[index].path}: a picture of a pair cannot be read ({why})")
        found.append(features)
    table = PairTable((found[0][1::2] - found[0][::2]) / np.float32(2), sources, judged, found[1])
    _keep(path, differences=table.differences, plain=table.plain)
    return table


def _photo_source(sample: Sample) -> str:
    """Return the source that asr-resynthesise puts before the file's hash."""
    return sample.path.stem.rpartition("_")[0]


class _Keyed(Dataset[Item]):
    """Training images under fixed (index, draw) keys."""

    def __init__(self, images: TrainingImages, keys: Sequence[tuple[int, int]]) -> None:
        self.images, self.keys = images, keys

    def __len__(self) -> int:
        return len(self.keys)

    def __getitem__(self, position: int) -> Item:
        return self.images[self.keys[position]]


@torch.inference_mode()
def _extract(
    network: ASRNetLite, preprocess: Preprocess, images: Dataset[Item], config: TrainConfig, title: str
) -> tuple[NDArray[np.float32], list[tuple[int, str]]]:
    features = _fast(network, len(images))  # type: ignore[arg-type]
    loader: DataLoader[Batch] = DataLoader(images, config.batch_size, collate_fn=collate, num_workers=config.workers)  # type: ignore[arg-type]
    device = next(network.parameters()).device
    rows: list[NDArray[np.float32]] = []
    problems: list[tuple[int, str]] = []
    console = Console(stderr=True)
    for batch in track(loader, title, console=console, transient=True, disable=not console.is_terminal):
        problems += list(batch.problems)
        if len(batch.labels):
            x = preprocess.normalise(batch.frames).to(device)
            count = len(x)
            if count < config.batch_size:  # another batch size would be compiled anew
                x = torch.cat([x, x.new_zeros(config.batch_size - count, *x.shape[1:])])
            x = x.contiguous(memory_format=torch.channels_last)
            rows.append(features(x)[:count].float().cpu().numpy())
    empty = np.empty((0, network.features_out), np.float32)
    return (np.concatenate(rows).astype(np.float32, copy=False) if rows else empty), problems


def _fast(network: ASRNetLite, images: int) -> Callable[[Tensor], Tensor]:
    """Compile the features, batch normalisation folded in: 2.4 times faster on a CPU.

    Compiling takes half a minute and a C++ compiler, so small folders and machines without one go without.
    """
    if images < _WORTH_COMPILING or not (shutil.which("g++") or shutil.which("c++") or torch.cuda.is_available()):
        return network.features
    compiled: Callable[[Tensor], Tensor] = torch.compile(network.features, options={"freezing": True})
    return compiled


def _draw(seed: int, view: int, name: str) -> int:
    """Return a number that is the same for the same seed, view and name on every machine."""
    return int.from_bytes(hashlib.sha256(f"{seed} {view} {name}".encode()).digest()[:7], "big")


def _key(network: ASRNetLite, config: TrainConfig, data: DataFolder) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(network.trunk.state_dict().items()):
        digest.update(name.encode() + tensor.cpu().numpy().tobytes())
    used = ("options", "preprocess", "augment", "views", "seed", "equalise")
    facts = {name: config.to_dict()[name] for name in used}
    facts["fingerprint"] = data.summary()["fingerprint"]
    digest.update(json.dumps(facts, sort_keys=True).encode())
    return digest.hexdigest()[:12]


def _keep(path: Path, **arrays: NDArray[Any]) -> None:
    """Write a file that appears whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part.npz")
    np.savez(part, **arrays)  # type: ignore[arg-type]
    part.replace(path)


def _read(path: Path, data: DataFolder) -> FeatureTable:
    content = np.load(path)
    everything = (*data.train, *data.val)
    samples = tuple(everything[i] for i in content["good"])
    return FeatureTable(samples, content["plain"], content["views"], json.loads(str(content["unreadable"])))
