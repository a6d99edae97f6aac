"""Edits that people make of their pictures: colours, filters, noise reduction, sharpening, captions, collages.

Training draws them for both classes alike (`Augment.edit`), and `asr-evaluate --robustness` measures each of them, so
that an edited photograph is not taken for a generated picture. Every edit takes one uint8 BGR image (H, W, 3) of any
size and returns one of the same size. The same image gives the same result.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = ["EDITS", "Family", "edited"]

Image = NDArray[np.uint8]


@dataclass(frozen=True)
class Family:
    """One way of changing a picture.

    Attributes:
        title: for people.
        axis: what the strength is, with its unit.
        strengths: mildest first.
        apply: (image, strength) -> image.
        ends_in_jpeg: the last step is a JPEG encoding, so none is added to make the two classes equal.
    """

    title: str
    axis: str
    strengths: tuple[float, ...]
    apply: Callable[[Image, float], Image]
    ends_in_jpeg: bool = False


def edited(image: Image, rng: np.random.Generator) -> Image:
    """Make one random edit, its strength between the mildest and the strongest of its family."""
    family = EDITS[tuple(EDITS)[int(rng.integers(len(EDITS)))]]
    return family.apply(image, float(rng.uniform(min(family.strengths), max(family.strengths))))


def _grey(image: Image, share: float) -> Image:
    grey = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR)
    return _blend(image, grey, share)


def _sepia(image: Image, share: float) -> Image:
    to_sepia = np.array([[0.131, 0.534, 0.272], [0.168, 0.686, 0.349], [0.189, 0.769, 0.393]])  # BGR
    return _blend(image, cv2.transform(image, to_sepia), share)


def _night_light(image: Image, warmth: float) -> Image:
    """Take blue, and half as much green, away, as screens do in the evening."""
    return _uint8(image * np.array([1 - warmth, 1 - warmth / 2, 1.0]))


def _cast(image: Image, levels: float) -> Image:
    """Shift two colour channels against each other; which ones, the image decides."""
    shift = np.roll([levels, -levels, 0.0], _number_of(image) % 3)
    return _uint8(image + shift)


def _equalise_histogram(image: Image, share: float) -> Image:
    luma = cv2.cvtColor(image, cv2.COLOR_BGR2YCrCb)
    luma[..., 0] = cv2.equalizeHist(luma[..., 0])
    return _blend(image, cv2.cvtColor(luma, cv2.COLOR_YCrCb2BGR), share)


def _gamma(image: Image, stops: float) -> Image:
    """Brighten (above 0) or darken the middle tones."""
    table = 255 * (np.arange(256) / 255) ** (2.0**-stops)
    return np.asarray(cv2.LUT(image, _uint8(table)), np.uint8)


def _contrast(image: Image, gain: float) -> Image:
    return _uint8((image.astype(np.float32) - 128) * gain + 128)


def _saturation(image: Image, gain: float) -> Image:
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)[..., None].astype(np.float32)
    return _uint8(grey + (image - grey) * gain)


def _denoise(image: Image, strength: float) -> Image:
    """Non-local means (Buades, Coll and Morel 2005)."""
    return np.asarray(cv2.fastNlMeansDenoisingColored(image, None, strength, strength, 5, 11), np.uint8)


def _smooth_skin(image: Image, levels: float) -> Image:
    """Smooth surfaces and keep edges, as beauty filters do."""
    return np.asarray(cv2.bilateralFilter(image, 7, levels, 3.0), np.uint8)


def _sharpen(image: Image, amount: float) -> Image:
    soft = cv2.GaussianBlur(image, (0, 0), 1.0).astype(np.float32)
    return _uint8(image + amount * (image - soft))


def _enlarge(image: Image, factor: float) -> Image:
    """Enlarge a small copy again: a thumbnail that is shown large."""
    height, width = image.shape[:2]
    small = (max(1, round(width / factor)), max(1, round(height / factor)))
    thumbnail = cv2.resize(image, small, interpolation=cv2.INTER_AREA)
    return np.asarray(cv2.resize(thumbnail, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def _caption(image: Image, lines: float) -> Image:
    """Write white text with a dark outline over the picture, one line for every part of its height."""
    image = image.copy()
    height, width = image.shape[:2]
    count = max(1, round(lines))
    size = max(0.3, min(height, width) / 300)
    rng = np.random.default_rng(_number_of(image))
    for line in range(count):
        text = "".join(chr(c) for c in rng.integers(ord("A"), ord("Z") + 1, 14))
        corner = (round(width * 0.05), round(height * (line + 0.5 + rng.uniform(-0.2, 0.3)) / count))
        for colour, thickness in (((0, 0, 0), 4), ((255, 255, 255), 1)):
            thick = max(1, round(thickness * size))
            cv2.putText(image, text, corner, cv2.FONT_HERSHEY_DUPLEX, size, colour, thick, cv2.LINE_AA)
    return image


def _collage(image: Image, tiles: float) -> Image:
    """Cut the picture into tiles, change their order, separate them by white bars."""
    count = max(2, round(tiles))
    height, width = image.shape[:2]
    if min(height, width) < 8 * count:
        return image
    rows, columns = height // count, width // count
    result = np.full_like(image, 255)
    bar = max(1, min(rows, columns) // 24)
    order = np.random.default_rng(_number_of(image)).permutation(count * count)
    for place, tile in enumerate(order.tolist()):
        (top, left), (row, column) = divmod(place, count), divmod(tile, count)
        part = image[row * rows : (row + 1) * rows - bar, column * columns : (column + 1) * columns - bar]
        result[top * rows : (top + 1) * rows - bar, left * columns : (left + 1) * columns - bar] = part
    return result


def _blend(image: Image, changed: object, share: float) -> Image:
    return np.asarray(cv2.addWeighted(image, 1 - share, np.asarray(changed, np.uint8), share, 0), np.uint8)


def _number_of(image: Image) -> int:
    return zlib.crc32(np.ascontiguousarray(image).tobytes())


def _uint8(image: object) -> Image:
    return np.asarray(np.clip(np.rint(np.asarray(image)), 0, 255), np.uint8)


EDITS: dict[str, Family] = {
    "grey": Family("Greyscale", "share of colour taken away", (0.5, 1), _grey),
    "sepia": Family("Sepia", "share of the filter", (0.5, 1), _sepia),
    "night-light": Family("Night light", "share of blue taken away", (0.2, 0.5), _night_light),
    "cast": Family("Colour cast", "levels of 255", (10, 30), _cast),
    "equalised": Family("Histogram equalised", "share of the filter", (0.5, 1), _equalise_histogram),
    "gamma": Family("Brightness", "stops in the middle tones", (-0.5, 0.5, -1, 1), _gamma),
    "contrast": Family("Contrast", "gain", (0.7, 1.3, 1.7), _contrast),
    "saturation": Family("Saturation", "gain", (1.4, 2), _saturation),
    "denoise": Family("Noise reduction", "strength of non-local means", (3, 8), _denoise),
    "beauty": Family("Beauty filter", "levels that are smoothed", (15, 40), _smooth_skin),
    "sharpen": Family("Sharpening", "amount of the unsharp mask", (0.5, 1, 2), _sharpen),
    "enlarge": Family("Thumbnail enlarged", "factor", (1.5, 2, 3), _enlarge),
    "caption": Family("Caption", "lines of text", (1, 4), _caption),
    "collage": Family("Collage", "tiles along each side", (2, 3), _collage),
}
"""Name -> family; the names are those of metrics.json."""
