"""What two implementations are compared on: real images, video frames, and inputs made to be awkward."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError
from asr_runtime.media.image import IMAGE_SUFFIXES, read_image
from asr_runtime.media.video import VIDEO_SUFFIXES, VideoFile
from asr_runtime.sources.walk import files_below

__all__ = ["Frames", "adversarial_frames", "packaged_images", "real_frames"]

_SIZES = ((240, 320), (333, 251), (97, 203), (31, 45))  # (H, W): larger and smaller than a crop, odd sides
_BATCHES = (1, 2, 5)
_PER_SECOND = 1.0  # video frames
_TINY = ((1, 1), (1, 7), (2, 3), (8, 5))


class Frames(NamedTuple):
    """A named batch, uint8 (N, H, W, 3), BGR; `real` if cut from photos, generated pictures or videos."""

    name: str
    frames: NDArray[np.uint8]
    real: bool = True


def packaged_images() -> Path:
    """Folder of the real images inside this package."""
    return Path(__file__).with_name("images")


def real_frames(folder: Path) -> Iterator[Frames]:
    """Yield images and video frames of a folder, one by one, then windows of the images in several sizes and batches.

    Raises:
        ConfigurationError: the folder holds no image.
        InputError: an image or video is damaged.
    """
    files = [Path(name) for name in files_below(str(folder))]
    paths = [p for p in files if p.suffix.lower() in IMAGE_SUFFIXES]
    if not paths:
        raise ConfigurationError(f"{folder}: no image to compare on; give a folder of images with --images")
    images = [read_image(path) for path in paths]
    for path, image in zip(paths, images, strict=True):
        yield Frames(path.name, image[None])
    for path in (p for p in files if p.suffix.lower() in VIDEO_SUFFIXES):
        yield from _video_frames(path)
    for height, width in _SIZES:
        windows = [_window(image, height, width) for image in images]
        for batch in _BATCHES:
            stacked = np.stack([windows[i % len(windows)] for i in range(batch)])
            yield Frames(f"{batch} x {height} x {width}", stacked)


def adversarial_frames(size: int) -> Iterator[Frames]:
    """Yield frames in which arithmetic fails first: equal pixels, noise, and frames of a few pixels.

    Args:
        size: S, side of the network's input; frames are S x S and tiny.
    """
    flat = np.zeros((size, size, 3), np.uint8)
    rows, columns = np.arange(size)[:, None, None], np.arange(size)[None, :, None]
    noise = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    patterns = {
        "black": flat,
        "white": flat + np.uint8(255),
        "grey": flat + np.uint8(128),
        "one red": flat + np.array([0, 0, 255], np.uint8),
        "noise": noise,
        "black and white noise": np.where(noise[..., :1] < 128, np.uint8(0), np.uint8(255)) + flat,
        "rows of one pixel": (255 * (rows % 2) + flat).astype(np.uint8),
        "columns of one pixel": (255 * (columns % 2) + flat).astype(np.uint8),
        "checkerboard of one pixel": (255 * ((rows + columns) % 2) + flat).astype(np.uint8),
        "one white pixel": _dot(flat),
        "grey but for one level": _dot(flat + np.uint8(128), 129),
        "ramp": (columns * 255 // max(size - 1, 1) + flat).astype(np.uint8),
    }
    for name, pattern in patterns.items():
        yield Frames(name, pattern[None], real=False)
    for height, width in _TINY:
        yield Frames(f"noise of {height} x {width}", noise[None, :height, :width].copy(), real=False)


def _video_frames(path: Path) -> Iterator[Frames]:
    for number, _, image in VideoFile(path, fps=_PER_SECOND):
        yield Frames(f"{path.name}, frame {number}", image[None])


def _dot(frame: NDArray[np.uint8], level: int = 255) -> NDArray[np.uint8]:
    marked = frame.copy()
    marked[frame.shape[0] // 2, frame.shape[1] // 2] = level
    return marked


def _window(image: NDArray[np.uint8], height: int, width: int) -> NDArray[np.uint8]:
    """Cut or repeat an image to a size."""
    repeats = (-(-height // image.shape[0]), -(-width // image.shape[1]), 1)
    return np.ascontiguousarray(np.tile(image, repeats)[:height, :width])
