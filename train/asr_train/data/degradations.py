"""What may happen to a picture between its origin and the person who checks it, as named, repeatable steps.

Every step takes one uint8 BGR image (H, W, 3) of any size and returns another. The same image gives the same result:
nothing is drawn from a shared random generator.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, InputError
from asr_train.data.augment import mirrored_window, reencode
from asr_train.data.clips import h264
from asr_train.data.edits import EDITS, Family
from asr_train.data.histories import HISTORIES, screenshot

__all__ = ["FAMILIES", "Degradation", "Family", "degradation", "degradations"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Degradation:
    """A family at one strength; call it with an image."""

    family: str
    strength: float

    @property
    def name(self) -> str:
        """Family and strength, for example `jpeg 75`."""
        return f"{self.family} {self.strength:g}"

    def quality_after(self, quality: int | None) -> int | None:
        """JPEG quality of the re-encoding that makes two classes equal after it; none after one that ends in a JPEG."""
        return None if FAMILIES[self.family].ends_in_jpeg else quality

    def __call__(self, image: Image) -> Image:
        """Degrade one image.

        Raises:
            InputError: the codec refuses an image of this size.
        """
        try:
            return np.ascontiguousarray(FAMILIES[self.family].apply(image, self.strength))
        except cv2.error as error:
            height, width = image.shape[:2]
            raise InputError(f"{self.name}: cannot be done to an image of {width} x {height} px ({error})") from None


def degradations(families: Iterable[str] | None = None) -> tuple[Degradation, ...]:
    """All strengths of some families, or of all, mildest first.

    Raises:
        ConfigurationError: no such family.
    """
    names = tuple(FAMILIES if families is None else families)
    if unknown := [name for name in names if name not in FAMILIES]:
        raise ConfigurationError(f"degradation {unknown[0]!r}: expected one of {', '.join(FAMILIES)}")
    return tuple(Degradation(name, strength) for name in names for strength in FAMILIES[name].strengths)


def degradation(family: str, strength: float) -> Degradation:
    """One strength of one family.

    Raises:
        ConfigurationError: no such family, or not one of its strengths.
    """
    known = [one.strength for one in degradations([family])]
    if strength not in known:
        raise ConfigurationError(
            f"degradation {family} {strength:g}: expected one of {', '.join(f'{s:g}' for s in known)}"
        )
    return Degradation(family, strength)


def _jpeg(image: Image, quality: float) -> Image:
    return reencode(image, ".jpg", int(quality))


def _webp(image: Image, quality: float) -> Image:
    return reencode(image, ".webp", int(quality))


def _resize(image: Image, scale: float) -> Image:
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    # Averaging over the area is OpenCV's only antialiased reduction.
    return _uint8(cv2.resize(image, (width, height), interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC))


def _blur(image: Image, sigma: float) -> Image:
    return _uint8(cv2.GaussianBlur(image, (0, 0), sigma))


def _noise(image: Image, sigma: float) -> Image:
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    return _uint8(np.clip(np.rint(image + rng.normal(0.0, sigma, image.shape)), 0, 255))


def _crop(image: Image, share: float) -> Image:
    """Keep the centre, `share` of each side, off the 8 px grid of an earlier JPEG as 63 crops in 64 are."""
    sides = [max(1, round(side * share)) for side in image.shape[:2]]
    corner = [(whole - side) // 2 for whole, side in zip(image.shape[:2], sides, strict=True)]
    top, left = (start - 1 if start and start % 8 == 0 else start for start in corner)
    return image[top : top + sides[0], left : left + sides[1]]


def _twice(image: Image, quality: float) -> Image:
    """Save as JPEG, cut 3 px off (the second block grid lies across the first), save at JPEG 90."""
    first = _jpeg(image, quality)
    top, left = (3 if side > 3 else 0 for side in first.shape[:2])
    return _jpeg(np.ascontiguousarray(first[top:, left:]), 90)


def _h264(image: Image, crf: float) -> Image:
    """Encode three frames, each moved by one pixel, with x264 and return the image out of the last, a predicted one."""
    height, width = image.shape[:2]
    frames = [mirrored_window(image, -step, -step, height, width) for step in (2, 1, 0)]
    return h264(frames, int(crf))[-1]


def _uint8(image: object) -> Image:
    return np.asarray(image).astype(np.uint8, copy=False)


FAMILIES: dict[str, Family] = {
    "jpeg": Family("JPEG", "quality", (95, 90, 75, 60, 50, 40, 30), _jpeg, ends_in_jpeg=True),
    "webp": Family("WebP", "quality", (90, 75, 50), _webp),
    "resize": Family("Resize", "scale", (0.5, 0.75, 1.25, 1.5, 2), _resize),
    "blur": Family("Gaussian blur", "sigma, px", (0.5, 1, 1.5, 2), _blur),
    "noise": Family("Gaussian noise", "sigma, levels of 255", (2, 4, 8), _noise),
    "crop": Family("Crop", "share of each side kept", (0.75, 0.5), _crop),
    "screenshot": Family("Screenshot", "width on the screen, px", (360, 720, 1080), screenshot),
    "twice": Family("Two JPEGs", "quality of the first", (90, 75, 50), _twice, ends_in_jpeg=True),
    "h264": Family("H.264 video", "CRF", (18, 23, 28, 34, 40), _h264),
    **HISTORIES,
    **EDITS,
}
"""Name -> family; the names are those of metrics.json."""
