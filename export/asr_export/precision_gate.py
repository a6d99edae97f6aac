"""Measures what a lower precision costs, on images that had no part in making the file, and says whether it may.

Images are judged as asr-screen does by default: as a whole where the card says that this is better, by their centre
otherwise.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import onnx
from numpy.typing import NDArray

from asr_runtime.contract import ModelCard, Verdict
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.detector import Scores
from asr_runtime.inference.flatness import judged_window, nothing_to_judge
from asr_runtime.inference.looking import Look, chosen_look, look_at
from asr_runtime.inference.onnxruntime_engine import open_session
from asr_runtime.media.image import IMAGE_SUFFIXES, read_image
from asr_runtime.reports.progress import progress_bar
from asr_runtime.sources.walk import files_below

__all__ = [
    "Float32",
    "Images",
    "PrecisionGate",
    "auroc",
    "calibrated",
    "float32_scores",
    "gate_bf16",
    "jpeg_copy",
    "judged",
    "labelled_halves",
    "looks",
    "margins",
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
    """Looks of the graph in float32, which a lower precision is compared with.

    Attributes:
        looks: n, one of each image.
        of_copies: n, of the images re-encoded at JPEG 96.
    """

    looks: Sequence[Look]
    of_copies: Sequence[Look]


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
        look: what was judged of each image, `whole` or `centre`.
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
    look: str

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
            f"back {self.reversed} (allowed 0), on {self.images} images (look {self.look})"
        )


def labelled_halves(folder: Path) -> tuple[Images, Images]:
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


def looks(
    model: onnx.ModelProto,
    card: ModelCard,
    paths: Sequence[Path],
    title: str,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda image: image,
) -> list[Look]:
    """Look at image files as asr-screen does by default, with a graph in onnxruntime.

    Args:
        model: the graph.
        card: its calibration, windows and thresholds.
        paths: of the n images.
        title: of the progress bar.
        change: what is done to each image first.
    """
    return _looks(open_session(model.SerializeToString(), "cpu"), card, paths, title, change)


def calibrated(looks: Sequence[Look], card: ModelCard) -> list[Look]:
    """Return looks with the probabilities and verdicts that another card gives their margins."""

    def judge(look: Look) -> Look:
        rule = card.whole if look.kind == "whole" and card.whole is not None else card
        probability = rule.calibration.probability(look.margin)
        verdict: Verdict = "unsure" if look.reason else rule.decision.verdict(probability)
        return replace(look, probability=probability, verdict=verdict)

    return [judge(look) for look in looks]


def margins(looks: Sequence[Look]) -> NDArray[np.float64]:
    """Return logit_ai - logit_real of each image, (n,)."""
    return np.array([look.margin for look in looks])


def float32_scores(model: onnx.ModelProto, card: ModelCard, paths: Sequence[Path]) -> Float32:
    """Look at image files and at their JPEG 96 copies, with a float32 graph."""
    return Float32(looks(model, card, paths, "float32"), looks(model, card, paths, "float32, JPEG 96", jpeg_copy))


def gate_bf16(model: onnx.ModelProto, images: Images, card: ModelCard) -> PrecisionGate:
    """Judge a float32 graph that OpenVINO computes in bf16, as the runtime's `bf16` does.

    Args:
        model: the graph.
        images: to judge it by.
        card: of the graph.

    Raises:
        DependencyError: OpenVINO is not installed.
        DeviceError: this processor can neither compute nor emulate bf16.
    """
    from asr_runtime.inference.openvino_engine import OpenVinoSession, has_native_bf16, openvino_version

    how = f"all up to the last product in bf16, by OpenVINO {openvino_version()}"
    if not has_native_bf16():
        how += ", emulated"
    lower = _looks(OpenVinoSession(model.SerializeToString(), "bf16"), card, images.paths, "judging bf16")
    return judged("bf16", lower, float32_scores(model, card, images.paths), images, how)


def judged(precision: str, lower: Sequence[Look], float32: Float32, images: Images, how: str) -> PrecisionGate:
    """Judge n looks of a lower precision, given those of float32 at the same n images."""
    verdicts, exact, copies = (
        np.array([look.verdict for look in given]) for given in (lower, float32.looks, float32.of_copies)
    )
    probabilities, before = (np.array([look.probability for look in given]) for given in (lower, float32.looks))
    turned = ((verdicts == "real") & (exact == "ai")) | ((verdicts == "ai") & (exact == "real"))
    return PrecisionGate(
        precision=precision,
        images=len(lower),
        auroc=auroc(images.labels, probabilities),
        auroc_float32=auroc(images.labels, before),
        changed=float(np.mean(verdicts != exact)),
        changed_by_jpeg_96=float(np.mean(copies != exact)),
        reversed=int((turned & (copies == exact)).sum()),
        probability=float(np.abs(probabilities - before).mean()),
        how=how,
        look="whole" if any(look.kind == "whole" for look in lower) else "centre",
    )


def _looks(
    session: Any,
    card: ModelCard,
    paths: Sequence[Path],
    title: str,
    change: Callable[[NDArray[np.uint8]], NDArray[np.uint8]] = lambda image: image,
) -> list[Look]:
    def score(image: NDArray[np.uint8]) -> Scores:
        frames = np.ascontiguousarray(image)[None]
        probability, logits = session.run(["probability", "logits"], {"frames": frames})
        reason = nothing_to_judge(judged_window(image, card.preprocess))
        verdict: Verdict = "unsure" if reason else card.decision.verdict(float(probability[0]))
        return Scores(probability, logits, (verdict,), (reason,))

    kind = chosen_look(card, "auto")
    return [look_at(score, card, change(read_image(path)), kind) for path in progress_bar(paths, title)]


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
