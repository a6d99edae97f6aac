"""Random degradations and geometry that both classes share, so that neither file history nor pose gives the label away.

Everything here works on one uint8 BGR image (H, W, 3) with OpenCV and one numpy random generator.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError
from asr_train.data.edits import edited

__all__ = ["Augment", "equalise", "mirrored_window", "reencode"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Augment:
    """Which augmentations run, with which probability per image.

    Attributes:
        flip: mirror left-right, half of the images.
        rotation: `quarter` by a random multiple of 90 degrees (exact); `free` by up to 180 degrees, corners black
            (published ASRNet); `none`.
        reencode: probability of a JPEG (3 in 4) or WebP re-encoding. Below 1 the untouched rest shows its history.
        quality: lowest and highest quality of the re-encoding.
        resize: probability of a change of resolution before the crop.
        resize_range: lowest and highest scale of the resizing; halving is as likely as doubling.
        history: probability of an earlier life: one more re-encoding, of the same qualities, before the change of
            resolution, as a picture has that a site or a messenger shrank and saved again.
        edit: probability of one random edit that people make (`asr_train.data.edits`).
        blur: probability of a Gaussian blur of sigma 0.3 to 1.5 px.
        noise: probability of Gaussian noise of sigma 1 to 6 levels.
        patch_mask: probability of blackening patches.
        patch: side of a masked patch in pixels.
        mask_ratio: highest share of masked patches.
    """

    flip: bool = True
    rotation: Literal["quarter", "free", "none"] = "quarter"
    reencode: float = 1.0
    quality: tuple[int, int] = (60, 98)
    resize: float = 0.2
    resize_range: tuple[float, float] = (0.6, 1.4)
    history: float = 0.0
    edit: float = 0.0
    blur: float = 0.1
    noise: float = 0.1
    patch_mask: float = 0.5
    patch: int = 16
    mask_ratio: float = 0.5

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ConfigurationError: names the value.
        """
        for name in ("reencode", "resize", "history", "edit", "blur", "noise", "patch_mask", "mask_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise ConfigurationError(f"augmentation {name} {getattr(self, name)}: expected a number from 0 to 1")
        if not 1 <= self.quality[0] <= self.quality[1] <= 100:
            raise ConfigurationError(f"augmentation quality {self.quality}: expected 1 <= lowest <= highest <= 100")

    def degrade(self, image: Image, rng: np.random.Generator) -> Image:
        """Edit, blur, noise and re-encode: what happens to pictures between camera or generator and viewer."""
        if rng.random() < self.edit:
            image = edited(image, rng)
        if rng.random() < self.blur:
            image = _uint8(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.3, 1.5)))
        if rng.random() < self.noise:
            noisy = image + rng.normal(0.0, rng.uniform(1.0, 6.0), image.shape)
            image = _uint8(np.clip(np.rint(noisy), 0, 255))
        return self._reencoded(image, rng) if rng.random() < self.reencode else image

    def live(self, image: Image, rng: np.random.Generator) -> Image:
        """Give a picture its earlier life; it happens before `scale` is applied and before `degrade`."""
        # Without histories nothing is drawn, so that other augmentations stay what they were.
        return self._reencoded(image, rng) if self.history and rng.random() < self.history else image

    def scale(self, rng: np.random.Generator) -> float:
        """Draw a resize factor; 1.0 for most images."""
        low, high = np.log(self.resize_range)
        return float(np.exp(rng.uniform(low, high))) if rng.random() < self.resize else 1.0

    def pose(self, image: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
        """Flip, rotate and mask a square (S, S, 3) crop of any dtype."""
        if self.flip and rng.random() < 0.5:
            image = image[:, ::-1]
        if self.rotation == "quarter":
            image = np.rot90(image, int(rng.integers(4)))
        elif self.rotation == "free":
            side = image.shape[0]
            turn = cv2.getRotationMatrix2D(((side - 1) / 2, (side - 1) / 2), rng.uniform(-180, 180), 1.0)
            image = np.asarray(cv2.warpAffine(np.ascontiguousarray(image), turn, (side, side)))
        image = np.ascontiguousarray(image)
        if rng.random() < self.patch_mask:
            image = self._mask(image, rng)
        return image

    def _reencoded(self, image: Image, rng: np.random.Generator) -> Image:
        suffix = ".jpg" if rng.random() < 0.75 else ".webp"
        return reencode(image, suffix, int(rng.integers(self.quality[0], self.quality[1] + 1)))

    def _mask(self, image: NDArray[np.generic], rng: np.random.Generator) -> NDArray[np.generic]:
        rows, columns = -(-image.shape[0] // self.patch), -(-image.shape[1] // self.patch)
        masked = rng.random((rows, columns)) < rng.uniform(0.0, self.mask_ratio)
        pixels = masked.repeat(self.patch, 0).repeat(self.patch, 1)[: image.shape[0], : image.shape[1]]
        return np.asarray(image * ~pixels[:, :, None])


_LARGEST_SIDE = {".jpg": 65_500, ".webp": 16_383}  # pixels; what a file can hold


def equalise(image: Image, quality: int) -> Image:
    """Give an image the same compression history as all others: one JPEG encoding of `quality` (1 to 100)."""
    return reencode(image, ".jpg", quality)


def mirrored_window(image: Image, top: int, left: int, height: int, width: int) -> Image:
    """Cut a window; outside the image it is mirrored, edge pixel repeated (as `InputTransform` continues an image)."""
    if 0 <= top <= image.shape[0] - height and 0 <= left <= image.shape[1] - width:
        return image[top : top + height, left : left + width].copy()
    rows = _mirrored(np.arange(top, top + height), image.shape[0])
    columns = _mirrored(np.arange(left, left + width), image.shape[1])
    # The axis that leaves fewer pixels first; both at once is several times slower.
    if height * image.shape[1] <= width * image.shape[0]:
        return image.take(rows, 0).take(columns, 1)
    return image.take(columns, 1).take(rows, 0)


def _mirrored(position: NDArray[np.int_], length: int) -> NDArray[np.int_]:
    position = position % (2 * length)
    return np.minimum(position, 2 * length - 1 - position)


def reencode(image: Image, suffix: str, quality: int) -> Image:
    """Encode and decode an image; suffix `.jpg` or `.webp`, quality 1 to 100.

    An image that is larger than a file of the format can be is encoded in parts, cut between blocks of 16 pixels.
    """
    most = _LARGEST_SIDE[suffix] // 16 * 16
    for axis in (0, 1):
        if image.shape[axis] > _LARGEST_SIDE[suffix]:
            parts = np.split(image, range(most, image.shape[axis], most), axis)
            return np.concatenate([reencode(part, suffix, quality) for part in parts], axis)
    flag = cv2.IMWRITE_JPEG_QUALITY if suffix == ".jpg" else cv2.IMWRITE_WEBP_QUALITY
    _, data = cv2.imencode(suffix, image, [flag, quality])
    return _uint8(cv2.imdecode(data, cv2.IMREAD_COLOR))


def _uint8(image: object) -> Image:
    return np.asarray(image).astype(np.uint8, copy=False)
