"""Measures what a lower precision costs, on images that had no part in making the file, and says whether it may."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from asr_runtime.contract import Decision, ModelCard
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.media.image import IMAGE_SUFFIXES, read_image
from asr_runtime.reports.progress import progress_bar
from asr_runtime.sources.walk import files_below

__all__ = [
    "Float32",
    "Images",
    "PrecisionGate",
    "auroc",
    "calibration_images",
    "float32_scores",
    "gate",
    "gate_bf16",
    "jpeg_copy",
    "judged",
    "scores",
]

_AUROC_DROP = 0.003
_LARGEST_JPEG = 65_500  # pixels of a side
_COPY_QUALITY = 96  # of the JPEG copies: the difference is invisible
_FEWEST = 40
_MOST = 600  # of each half: seconds, not minutes
_CLASSES = {"nature": 0, "0_real": 0, "real": 0, "ai": 1, "1_fake": 1, "fake": 1}


@dataclass(frozen=True)
class Images:
    """Images with their labels: 0 real, 1 AI-generated."""

    paths: tuple[Path, ...]
    labels: NDArray[np.int64]


@dataclass(frozen=True)
class Float32:
    """Scores of the graph in float32, which a lower precision is compared with.

    Attributes:
        margins: (n,), logit_ai - logit_real of each image.
        probabilities: (n,).
        of_copies: (n,), probabilities of the images re-encoded at JPEG 96.
    """

    margins: NDArray[np.float64]
    probabilities: NDArray[np.float64]
    of_copies: NDArray[np.float64]


@dataclass(frozen=True)
class PrecisionGate:
    """A lower precision compared with float32 on the hold-out half of the calibration images.

    A file is written if AUROC falls by at most 0.003, no image goes from `real` to `ai` or back on which float32 and
    its verdict on a JPEG 96 copy agree, and verdicts change no more often than between an image and its JPEG 96 copy.

    Attributes:
        precision: `int8` or `bf16`.
        images: number of images.
        auroc: in this precision.
        auroc_float32: of the same graph in float32.
        changed: share of images whose verdict differs from float32's.
        changed_by_jpeg_96: share of images whose float32 verdict differs between the image and its JPEG 96 copy.
        reversed: images that go from `real` to `ai` or back, though float32 calls image and copy the same.
        probability: mean absolute difference.
        how: which layers have the lower precision.
    """

    precision: str
    images: int
    auroc: float
    auroc_float32: float
    changed: float
    changed_by_jpeg_96: float
    reversed: int
    probability: float
    how: str

    @property
    def passed(self) -> bool:
        """Whether all three conditions hold."""
        ranked = self.auroc >= self.auroc_float32 - _AUROC_DROP
        return ranked and not self.reversed and self.changed <= self.changed_by_jpeg_96

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "auroc_drop_allowed": _AUROC_DROP, "passed": self.passed}

    def __str__(self) -> str:
        return (
            f"{self.how}: AUROC {self.auroc:.4f} (float32 {self.auroc_float32:.4f}, may fall by {_AUROC_DROP}), "
            f"verdicts changed {self.changed:.2%} (JPEG 96 changes {self.changed_by_jpeg_96:.2%}), from real to ai or "
            f"back {self.reversed} (allowed 0), on {self.images} images"
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
    for path in (Path(name) for name in files_below(str(folder))):
        if path.suffix.lower() not in IMAGE_SUFFIXES:
            continue
        inside = path.relative_to(folder)
        known = [_CLASSES[part] for part in inside.parts[:-1] if part in _CLASSES]
        if known:
            halves[hashlib.sha256(inside.as_posix().encode()).digest()[0] % 2].append((path, known[-1]))
    for label, name in ((0, "real (nature, 0_real, real)"), (1, "AI-generated (ai, 1_fake, fake)")):
        count = sum(given == label for half in halves for _, given in half)
        if count < _FEWEST:
            raise ConfigurationError(f"{folder}: {count} {name} images, expected at least {_FEWEST} of each class")
    first, second = (half[:: -(-len(half) // _MOST)] for half in halves)
    return _images(first), _images(second)


def scores(
    model: onnx.ModelProto, paths: Sequence[Path], title: str
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Run a graph on image files: margins (n,) and probabilities (n,), float64."""
    return _scores(open_session(model.SerializeToString(), "cpu"), paths, title)


def float32_scores(model: onnx.ModelProto, paths: Sequence[Path]) -> Float32:
    """Run a float32 graph on image files and on their JPEG 96 copies."""
    session = open_session(model.SerializeToString(), "cpu")
    margins, probabilities = _scores(session, paths, "float32")
    return Float32(margins, probabilities, _scores(session, paths, "float32, JPEG 96", jpeg_copy)[1])


def gate(model: onnx.ModelProto, float32: Float32, images: Images, card: ModelCard, how: str) -> PrecisionGate:
    """Judge a graph of lower precision.

    Args:
        model: the graph.
        float32: of the same graph in float32, on the same n images.
        images: the n images.
        card: its thresholds decide the verdicts; its precision is the graph's.
        how: which layers have the lower precision.
    """
    _, probabilities = scores(model, images.paths, f"judging {card.precision}")
    return judged(card.precision, probabilities, float32, images, card.decision, how)


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
    from asr_runtime.inference.openvino_engine import OpenVinoSession, has_native_bf16, openvino_version

    how = f"all up to the last product in bf16, by OpenVINO {openvino_version()}"
    if not has_native_bf16():
        how += ", emulated"
    _, probabilities = _scores(OpenVinoSession(model.SerializeToString(), "bf16"), images.paths, "judging bf16")
    return judged("bf16", probabilities, float32_scores(model, images.paths), images, decision, how)


def judged(
    precision: str,
    probabilities: NDArray[np.float64],
    float32: Float32,
    images: Images,
    decision: Decision,
    how: str,
) -> PrecisionGate:
    """Judge probabilities (n,) of a lower precision, given those of float32 (n,) on the same n images."""
    lower, exact, copies = (
        np.array([decision.verdict(float(p)) for p in values])
        for values in (probabilities, float32.probabilities, float32.of_copies)
    )
    turned = ((lower == "real") & (exact == "ai")) | ((lower == "ai") & (exact == "real"))
    return PrecisionGate(
        precision=precision,
        images=len(lower),
        auroc=auroc(images.labels, probabilities),
        auroc_float32=auroc(images.labels, float32.probabilities),
        changed=float(np.mean(lower != exact)),
        changed_by_jpeg_96=float(np.mean(copies != exact)),
        reversed=int((turned & (copies == exact)).sum()),
        probability=float(np.abs(probabilities - float32.probabilities).mean()),
        how=how,
    )


def _scores(
    session: Any,
    paths: Sequence[Path],
    title: str,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda image: image,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    margins, probabilities = [], []
    for path in progress_bar(paths, title):
        probability, logits = session.run(["probability", "logits"], {"frames": change(read_image(path))[None]})
        margins.append(float(logits[0, 1]) - float(logits[0, 0]))
        probabilities.append(float(probability[0]))
    return np.array(margins), np.array(probabilities)


def jpeg_copy(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return an image, uint8 BGR (H, W, 3), re-encoded at JPEG 96; itself if it is larger than a JPEG can be."""
    if max(image.shape) > _LARGEST_JPEG:
        return image
    _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _COPY_QUALITY])
    copy = cv2.imdecode(data, cv2.IMREAD_COLOR)
    assert copy is not None
    return copy.astype(np.uint8, copy=False)


def _images(labelled: Sequence[tuple[Path, int]]) -> Images:
    return Images(tuple(path for path, _ in labelled), np.array([label for _, label in labelled], np.int64))


def auroc(labels: NDArray[np.int64], values: NDArray[np.float64]) -> float:
    """Share of (real, AI-generated) pairs in the right order, ties half."""
    real, fake = np.sort(values[labels == 0]), values[labels == 1]
    below, up_to = np.searchsorted(real, fake, "left"), np.searchsorted(real, fake, "right")
    return float(((below + up_to) / 2).sum() / (len(real) * len(fake)))
