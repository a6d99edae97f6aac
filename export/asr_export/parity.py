"""Does the exported file compute what PyTorch computes? Measured on real images, never assumed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from asr_models import Deployed
from asr_runtime import Detector
from asr_runtime.decode import IMAGE_SUFFIXES, read_image
from asr_runtime.errors import ConfigurationError

__all__ = ["Parity", "compare", "packaged_images", "parity_batches", "tolerance"]

_SIZES = ((240, 320), (333, 251), (97, 203), (31, 45))  # (H, W): larger and smaller than a crop, odd sides
_BATCHES = (1, 3)


@dataclass(frozen=True)
class Parity:
    """Largest differences between the exported file and eager float32 PyTorch.

    Attributes:
        frames: how many were compared.
        logits_relative: largest difference of a logit, divided by the largest logit or by 1, whichever is larger: a
            probability depends on differences of logits, so below 1 the absolute difference is what counts.
        logits_absolute: the same, not divided.
        probability_absolute: largest difference of a probability.
        verdict_flips: frames whose verdict differs.
        tolerance: of `logits_relative`.
    """

    frames: int
    logits_relative: float
    logits_absolute: float
    probability_absolute: float
    verdict_flips: int
    tolerance: float

    @property
    def passed(self) -> bool:
        """Whether the differences are within the tolerance and no verdict differs."""
        return self.logits_relative <= self.tolerance and self.verdict_flips == 0

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return {**asdict(self), "passed": self.passed, "reference": "PyTorch eager float32, CPU"}

    def __str__(self) -> str:
        return (
            f"{self.frames} frames: logits differ by {self.logits_relative:.1e} of their scale (allowed "
            f"{self.tolerance:.0e}), probabilities by {self.probability_absolute:.1e}, "
            f"verdict flips {self.verdict_flips}"
        )


def tolerance(name: str) -> float:
    """Allowed relative difference of the logits: 1e-5 for the published ASRNet, 5e-5 for deeper networks."""
    return 1e-5 if name == "asrnet" else 5e-5


def packaged_images() -> Path:
    """Folder of the real images inside this package."""
    return Path(__file__).with_name("images")


def parity_batches(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Yield uint8 (N, H, W, 3) batches cut from the images of a folder: whole images, then several sizes and batches.

    Raises:
        ConfigurationError: the folder holds no image.
        DecodeError: an image is damaged.
    """
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not paths:
        raise ConfigurationError(f"{folder}: no image to compare on; give a folder of images with --images")
    images = [read_image(path) for path in paths]
    yield from (image[None] for image in images)
    for height, width in _SIZES:
        windows = [_window(image, height, width) for image in images]
        for batch in _BATCHES:
            yield np.stack([windows[i % len(windows)] for i in range(batch)])


@torch.inference_mode()
def compare(deployed: Deployed, detector: Detector, batches: Sequence[NDArray[np.uint8]], allowed: float) -> Parity:
    """Run both on the same frames.

    Args:
        deployed: the PyTorch twin, eager, on the CPU.
        detector: the exported file.
        batches: uint8 (N, H, W, 3) each.
        allowed: tolerance of the relative difference of the logits.
    """
    deployed = deployed.eval()
    logit_error, logit_scale, probability_error, flips = 0.0, 0.0, 0.0, 0
    for frames in batches:
        probability, logits = (t.numpy() for t in deployed(torch.from_numpy(frames)))
        scores = detector(frames)
        logit_error = max(logit_error, float(np.abs(scores.logits - logits).max()))
        logit_scale = max(logit_scale, float(np.abs(logits).max()))
        probability_error = max(probability_error, float(np.abs(scores.probability - probability).max()))
        expected = tuple(detector.card.decision.verdict(float(p)) for p in probability)
        flips += sum(a != b for a, b in zip(expected, scores.verdicts, strict=True))
    return Parity(
        frames=sum(len(frames) for frames in batches),
        logits_relative=logit_error / max(logit_scale, 1.0),
        logits_absolute=logit_error,
        probability_absolute=probability_error,
        verdict_flips=flips,
        tolerance=allowed,
    )


def _window(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut or repeat an image to a size."""
    repeats = (-(-height // image.shape[0]), -(-width // image.shape[1]), 1)
    return np.ascontiguousarray(np.tile(image, repeats)[:height, :width])
