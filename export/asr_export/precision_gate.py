"""What a lower precision costs, measured on images that had no part in making the file, and how much it may."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_runtime.contract import Decision, ModelCard
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.inference.openvino_engine import OpenVinoSession, has_native_bf16, openvino_version
from asr_runtime.media.image import IMAGE_SUFFIXES, read_image
from asr_runtime.reports.progress import shown

__all__ = [
    "FLIPS_ALLOWED",
    "Images",
    "PrecisionGate",
    "auroc",
    "calibration_images",
    "gate",
    "gate_bf16",
    "judged",
    "scores",
]

FLIPS_ALLOWED = 0.005
"""Share of verdicts that may differ below float32."""

_AUROC_DROP = 0.003
_FEWEST = 40
_MOST = 600  # of each half: seconds, not minutes
_CLASSES = {"nature": 0, "0_real": 0, "real": 0, "ai": 1, "1_fake": 1, "fake": 1}


@dataclass(frozen=True)
class Images:
    """Images with their labels: 0 real, 1 AI-generated."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class PrecisionGate:
    """A lower precision held against float32 on the hold-out half of the calibration images.

    Attributes:
        precision: `int8`, `fp16` or `bf16`.
        images: how many.
        auroc: of the file.
        auroc_float32: of the same graph in float32.
        flips: share of images whose verdict differs.
        probability: mean absolute difference.
        how: which layers have the lower precision.
    """

    precision: str
    images: int
    auroc: float
    auroc_float32: float
    flips: float
    probability: float
    how: str

    @property
    def passed(self) -> bool:
        """AUROC falls by no more than 0.003 and verdicts flip for no more than 0.5% of the images."""
        return self.auroc >= self.auroc_float32 - _AUROC_DROP and self.flips <= FLIPS_ALLOWED

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        allowed = {"auroc_drop_allowed": _AUROC_DROP, "flips_allowed": FLIPS_ALLOWED}
        return {**asdict(self), **allowed, "passed": self.passed}

    def __str__(self) -> str:
        return (
            f"{self.how}: AUROC {self.auroc:.4f} (float32 {self.auroc_float32:.4f}, may fall by {_AUROC_DROP}), "
            f"verdicts flipped {self.flips:.2%} (allowed {FLIPS_ALLOWED:.1%}) on {self.images} images"
        )


def calibration_images(folder: Path) -> tuple[Images, Images]:
    """Find labelled images and split them in two halves, by the SHA-256 of their names.

    The label is the name of a folder above the file: `nature`, `0_real` or `real`, and `ai`, `1_fake` or `fake`.

    Returns:
        What ranges are measured on; what the result is judged by. At most 600 images each, evenly chosen.

    Raises:
        ConfigurationError: fewer than 40 images of a class.
    """
    halves: tuple[list[tuple[Path, int]], list[tuple[Path, int]]] = ([], [])
    for path in sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES):
        inside = path.relative_to(folder)
        known = [_CLASSES[part] for part in inside.parts[:-1] if part in _CLASSES]
        if known:
            halves[hashlib.sha256(inside.as_posix().encode()).digest()[0] % 2].append((path, known[-1]))
    for label, name in ((0, "real (nature, 0_real, real)"), (1, "AI-generated (ai, 1_fake, fake)")):
        count = sum(found == label for half in halves for _, found in half)
        if count < _FEWEST:
            raise ConfigurationError(f"{folder}: {count} {name} images, expected at least {_FEWEST} of each class")
    first, second = (half[:: -(-len(half) // _MOST)] for half in halves)
    return _images(first), _images(second)


def scores(
    model: onnx.ModelProto, paths: Sequence[Path], title: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a graph on image files: margins (n,) and probabilities (n,), float64."""
    return _scores(open_session(model.SerializeToString(), "cpu"), paths, title)


def gate(
    model: onnx.ModelProto, exact: NDArray[np.float64], images: Images, card: ModelCard, how: str
) -> PrecisionGate:
    """Judge a graph of lower precision.

    Args:
        model: the graph.
        exact: float64 (n,), the probabilities of the same graph in float32.
        images: the n images.
        card: its thresholds decide the verdicts; its precision is the graph's.
        how: which layers have the lower precision.
    """
    _, found = scores(model, images.paths, f"judging {card.precision}")
    return judged(card.precision, found, exact, images, card.decision, how)


def gate_bf16(model: onnx.ModelProto, images: Images, decision: Decision) -> PrecisionGate:
    """Judge a float32 graph that OpenVINO computes in bf16, as the runtime's `bf16` does.

    Args:
        model: the graph.
        images: to judge it by.
        decision: from probability to verdict.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: this processor can neither compute nor emulate bf16.
    """
    how = f"all up to the last product in bf16, by OpenVINO {openvino_version()}"
    if not has_native_bf16():
        how += ", emulated"
    _, found = _scores(OpenVinoSession(model.SerializeToString(), "bf16"), images.paths, "judging bf16")
    _, exact = scores(model, images.paths, "float32")
    return judged("bf16", found, exact, images, decision, how)


def _scores(session: Any, paths: Sequence[Path], title: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    margins, probabilities = [], []
    for path in shown(paths, title):
        probability, logits = session.run(["probability", "logits"], {"frames": read_image(path)[None]})
        margins.append(float(logits[0, 1]) - float(logits[0, 0]))
        probabilities.append(float(probability[0]))
    return np.array(margins), np.array(probabilities)


def judged(
    precision: str,
    found: NDArray[np.float64],
    exact: NDArray[np.float64],
    images: Images,
    decision: Decision,
    how: str,
) -> PrecisionGate:
    """Judge probabilities (n,) of a lower precision, given those of float32 (n,) on the same n images."""
    flips = [decision.verdict(float(a)) != decision.verdict(float(b)) for a, b in zip(found, exact, strict=True)]
    return PrecisionGate(
        precision=precision,
        images=len(found),
        auroc=auroc(images.labels, found),
        auroc_float32=auroc(images.labels, exact),
        flips=float(np.mean(flips)),
        probability=float(np.abs(found - exact).mean()),
        how=how,
    )


def _images(found: Sequence[tuple[Path, int]]) -> Images:
    return Images(tuple(path for path, _ in found), np.array([label for _, label in found], np.int64))


def auroc(labels: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Share of (real, AI-generated) pairs in the right order, ties half."""
    real, fake = np.sort(values[labels == 0]), values[labels == 1]
    below, up_to = np.searchsorted(real, fake, "left"), np.searchsorted(real, fake, "right")
    return float(((below + up_to) / 2).sum() / (len(real) * len(fake)))
