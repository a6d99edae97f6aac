"""Pictures inside a report, as data URIs: what a model saw, what is left without the subject, and its spectrum."""

from __future__ import annotations

import base64
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import InputError
from asr_train.data.augment import equalise, mirrored_window
from asr_train.data.layouts import Sample

__all__ = ["Traces", "residual", "spectrum", "thumbnail", "traces"]

Image = NDArray[np.uint8]

_CROP = 128  # px, shown enlarged
_THUMBNAIL = 176  # px, longer side
_AMPLIFIED = 12


@dataclass(frozen=True)
class Traces:
    """The central crop of one picture, its residual and the spectrum of that, as data URIs."""

    crop: str
    residual: str
    spectrum: str


def traces(sample: Sample, quality: int | None) -> Traces | None:
    """Show the central crop as it was scored; None if the file cannot be read any more.

    Args:
        sample: the picture.
        quality: JPEG quality that it was re-encoded with; None if it was not.
    """
    try:
        image = sample.read()
    except InputError:
        return None
    image = image if quality is None else equalise(image, quality)
    top, left = ((side - _CROP) // 2 for side in image.shape[:2])
    crop = mirrored_window(image, top, left, _CROP, _CROP)
    left_over = residual(crop)
    shown = np.clip(128 + _AMPLIFIED * left_over, 0, 255).astype(np.uint8)
    return Traces(_uri(crop, ".png"), _uri(shown, ".png"), _uri(spectrum(left_over), ".png"))


def residual(image: Image) -> NDArray[np.float32]:
    """Return what a 3x3 median does not explain of the luminance: (H, W), about 0."""
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    return grey.astype(np.float32) - cv2.medianBlur(grey, 3)


def spectrum(left_over: NDArray[np.float32]) -> Image:
    """Return the log magnitude of the 2-D Fourier transform, lowest frequency in the middle, stretched to 0..255."""
    height, width = left_over.shape
    window = np.hanning(height)[:, None] * np.hanning(width)
    magnitude = np.log1p(np.abs(np.fft.fftshift(np.fft.fft2(left_over * window))))
    low, high = np.percentile(magnitude, [1, 99.8])
    return np.asarray(np.clip((magnitude - low) / max(high - low, 1e-6), 0, 1) * 255, np.uint8)


def thumbnail(sample: Sample) -> str | None:
    """Return a small JPEG of the whole picture; None if the file cannot be read any more."""
    try:
        image = sample.read()
    except InputError:
        return None
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    width, height = (max(1, round(side * scale)) for side in (image.shape[1], image.shape[0]))
    small = cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA)
    return _uri(np.asarray(small, np.uint8), ".jpg")


def _uri(image: Image, suffix: str) -> str:
    options = [cv2.IMWRITE_JPEG_QUALITY, 82] if suffix == ".jpg" else [cv2.IMWRITE_PNG_COMPRESSION, 9]
    _, data = cv2.imencode(suffix, image, options)
    kind = "jpeg" if suffix == ".jpg" else "png"
    return f"data:image/{kind};base64,{base64.b64encode(data.tobytes()).decode()}"
