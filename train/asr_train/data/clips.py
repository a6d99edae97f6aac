"""Short H.264 clips made of stills: what a picture looks like as a frame of a video.

There are few labelled videos, and those of one generator share its resolution and length. A still that is panned over
and encoded gives both classes the same motion and the same codec, so that what is left of a trace in a video can be
measured, and verdicts on whole videos calibrated, with the pictures at hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import TypeVar

import av
import cv2
import numpy as np
import torch
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray
from torch.utils.data import Dataset

from asr_models import InputTransform
from asr_runtime.errors import InputError
from asr_train.data.augment import equalise, mirrored_window
from asr_train.data.batches import Item
from asr_train.data.layouts import Sample
from asr_train.data.windows import CENTRE, Place, equalised_window

__all__ = ["CLIP_FRAMES", "ClipImages", "clip", "h264", "thinned"]

Image = NDArray[np.uint8]
Float = TypeVar("Float", np.float32, np.float64)

CLIP_FRAMES = (0, 5, 10)
"""Which frames of a clip are looked at: the first is coded by itself, the others are predicted."""

_AT_MOST = 600  # clips of a split
_CRF = (18, 30)
_SIDE = 320  # only the middle of larger pictures is encoded
_SIDE_OF_ALL = 480  # where the whole picture is looked at
_LEAST_ROOM = 8  # px beside a window, so that all windows differ


class ClipImages(Dataset[Item]):
    """The frames `CLIP_FRAMES` of each picture's clip, one after the other, as the deployed graph sees them.

    A clip is a slow pan over the picture, encoded by x264 at a CRF that is the picture's own.

    Args:
        samples: the pictures.
        preprocess: of the network.
        quality: JPEG quality that every picture is re-encoded with before, so that its history is equal; None:
            it is taken as it is.
        places: windows of each frame (`asr_train.data.windows`), one after the other. With more than one, pictures
            without room for all of them are problems, and more of large pictures is encoded.
    """

    def __init__(
        self,
        samples: Sequence[Sample],
        preprocess: InputTransform,
        quality: int | None,
        places: Sequence[Place] = (CENTRE,),
    ) -> None:
        self.samples, self.preprocess, self.quality, self.places = samples, preprocess, quality, tuple(places)
        self._last: tuple[int, list[Image]] = (-1, [])

    def __len__(self) -> int:
        """Count the windows of all clips."""
        return len(self.samples) * self._of_each

    @property
    def _of_each(self) -> int:
        return len(CLIP_FRAMES) * len(self.places)

    def __getitem__(self, position: int) -> Item:
        """Encode a clip, unless the window before was of the same one, and cut one window of one frame."""
        index, rest = divmod(position, self._of_each)
        frame, place = divmod(rest, len(self.places))
        sample = self.samples[index]
        try:
            if self._last[0] != index:
                self._last = index, self._clip(sample.read())
        except InputError as error:
            return Item(position, sample.label, None, str(error))
        pixels = self._last[1][frame]
        if len(self.places) == 1:
            return Item(position, sample.label, self.preprocess.geometry(torch.from_numpy(pixels)[None])[0])
        window = equalised_window(pixels, self.places[place], self.preprocess.size, None)
        return Item(position, sample.label, torch.from_numpy(window))

    def _clip(self, image: Image) -> list[Image]:
        several = len(self.places) > 1
        if several and min(image.shape[:2]) < self.preprocess.size + _LEAST_ROOM:
            height, width = image.shape[:2]
            raise InputError(f"{width} x {height} px have no room for windows of {self.preprocess.size} px")
        image = image if self.quality is None else equalise(image, self.quality)
        return clip(image, max(_SIDE_OF_ALL, 2 * self.preprocess.size) if several else _SIDE)

    def per_clip(
        self, values: NDArray[Float], problems: Iterable[tuple[int, str]]
    ) -> tuple[NDArray[np.int64], NDArray[Float]]:
        """Return which clips could be made (n,), and the means (n, ...) over the windows of each of `values`."""
        bad = {position // self._of_each for position, _ in problems}
        good = np.array([i for i in range(len(self.samples)) if i not in bad], np.int64)
        windows = values.reshape(len(good), self._of_each, *values.shape[1:])
        return good, windows.mean(axis=1, dtype=values.dtype)


def clip(image: Image, longest: int = _SIDE) -> list[Image]:
    """Pan over an image (of a large one the middle), encode and decode it; returns the frames `CLIP_FRAMES`.

    Args:
        image: uint8 BGR (H, W, 3).
        longest: side of the middle in pixels.

    Raises:
        InputError: the codec refuses an image of this size.
    """
    height, width = (min(longest, side) for side in image.shape[:2])
    top, left = ((whole - side) // 2 for whole, side in zip(image.shape[:2], (height, width), strict=True))
    rng = np.random.default_rng(zlib.crc32(image.tobytes()))
    down, right = rng.integers(-1, 2, 2).tolist()
    steps = range(-(CLIP_FRAMES[-1] // 2), CLIP_FRAMES[-1] // 2 + 1)
    frames = [mirrored_window(image, top + down * s, left + right * s, height, width) for s in steps]
    decoded = h264(frames, int(rng.integers(_CRF[0], _CRF[1] + 1)))
    return [np.ascontiguousarray(decoded[index]) for index in CLIP_FRAMES]


def thinned(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Return every n-th sample, so that a large data folder does not become a large number of clips."""
    return samples[:: max(1, -(-len(samples) // _AT_MOST))]


def h264(frames: Sequence[Image], crf: int) -> list[Image]:
    """Encode with x264 and decode again.

    Args:
        frames: (H, W, 3) BGR, all of one size.
        crf: constant rate factor, 0 (lossless) to 51.

    Raises:
        InputError: the codec refuses frames of this size.
    """
    height, width = frames[0].shape[:2]
    # 4:2:0 needs even sides.
    padded = [cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE) for frame in frames]
    try:
        decoded = _h264([np.asarray(cv2.cvtColor(frame, cv2.COLOR_BGR2YUV_I420), np.uint8) for frame in padded], crf)
    except FFmpegError as error:
        raise InputError(f"H.264: cannot encode frames of {width} x {height} px ({error})") from None
    coloured = [cv2.cvtColor(frame, cv2.COLOR_YUV2BGR_I420) for frame in decoded]
    return [np.asarray(frame, np.uint8)[:height, :width] for frame in coloured]


def _h264(frames: Sequence[Image], crf: int) -> list[Image]:
    """Encode and decode frames in I420: (H * 3 / 2, W)."""
    encoder = VideoCodecContext.create("libx264", "w")
    encoder.height, encoder.width = frames[0].shape[0] * 2 // 3, frames[0].shape[1]
    encoder.pix_fmt, encoder.time_base = "yuv420p", Fraction(1, 25)
    # Without the macroblock tree: with it x264's AVX-512 code gives another stream now and then.
    encoder.options = {"crf": str(crf), "preset": "medium", "threads": "1", "x264-params": "mbtree=0"}
    decoder = VideoCodecContext.create("h264", "r")
    decoder.thread_count = 1
    packets = []
    for index, pixels in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(pixels, format="yuv420p")
        frame.pts = index
        packets += encoder.encode(frame)
    packets += encoder.encode(None)
    decoded = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    return [np.asarray(frame.to_ndarray(format="yuv420p"), np.uint8) for frame in decoded]
