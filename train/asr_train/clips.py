"""Short H.264 clips made of stills: what a picture looks like as a frame of a video.

There are few labelled videos, and those of one generator share its resolution and length. A still that is panned over
and encoded gives both classes the same motion and the same codec, so that what is left of a trace in a video can be
measured, and verdicts on whole videos calibrated, with the pictures at hand.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import av
import cv2
import numpy as np
from av.error import FFmpegError
from av.video.codeccontext import VideoCodecContext
from numpy.typing import NDArray

from asr_runtime.errors import InputError
from asr_train.augment import equalise, mirrored_window
from asr_train.layouts import Sample

__all__ = ["CLIP_FRAMES", "ClipFrame", "h264", "thinned"]

Image = NDArray[np.uint8]

CLIP_FRAMES = (0, 5, 10)
"""Which frames of a clip are looked at: the first is coded by itself, the others are predicted."""

_AT_MOST = 3000  # clips of a split
_CRF = (18, 30)
_SIDE = 320  # only the middle of larger pictures is encoded


@dataclass(frozen=True)
class ClipFrame:
    """Turns a picture into one frame of its clip: a slow pan, encoded by x264 at a CRF that is the picture's own.

    Attributes:
        index: of the frame, 0 to `CLIP_FRAMES[-1]`.
        quality: JPEG quality that every picture is re-encoded with before, so that its history tells nothing; None:
            it is taken as it is.
    """

    index: int
    quality: int | None = None

    def __call__(self, image: Image) -> Image:
        """Encode and decode.

        Raises:
            InputError: the codec refuses an image of this size.
        """
        if self.quality is not None:
            image = equalise(image, self.quality)
        height, width = (min(_SIDE, side) for side in image.shape[:2])
        top, left = ((whole - side) // 2 for whole, side in zip(image.shape[:2], (height, width), strict=True))
        rng = np.random.default_rng(zlib.crc32(image.tobytes()))
        down, right = rng.integers(-1, 2, 2).tolist()
        steps = range(-(CLIP_FRAMES[-1] // 2), CLIP_FRAMES[-1] // 2 + 1)
        frames = [mirrored_window(image, top + down * s, left + right * s, height, width) for s in steps]
        return h264(frames, int(rng.integers(_CRF[0], _CRF[1] + 1)))[self.index]


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
