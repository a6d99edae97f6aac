"""Frames of a video file, in order, with their times; reads on after damage and says what was lost."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Iterator
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.container import missing_bytes
from asr_runtime.decode import check_regular_file
from asr_runtime.errors import SourceError

__all__ = ["VIDEO_SUFFIXES", "VideoFile", "VideoFrame"]

VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".3gp", ".mkv", ".webm", ".avi", ".ts", ".mts", ".m2ts", ".mpg", ".mpeg"}
    | {".flv", ".wmv", ".asf", ".ogv", ".h264", ".264", ".h265", ".hevc", ".mjpeg", ".mjpg"}
)

# A file is decoded by what it holds, not by its name: without this a "video" that is really a playlist reads
# other files, or the network.
_FILES_ONLY = (
    "protocol_whitelist;file|format_whitelist;"
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,mjpeg"
)
_END_AFTER = 1000  # failed reads in a row; after damage some tens fail and the video goes on, a true end costs 12 ms
_OPENING = threading.Lock()


class VideoFrame(NamedTuple):
    """One decoded frame.

    Attributes:
        number: position among all frames that could be read, from 0; skipped ones count.
        time: presentation time in seconds, from the container; increases.
        image: uint8 `(H, W, 3)`, BGR, the rotation of the container applied.
    """

    number: int
    time: float
    image: NDArray[np.uint8]


class VideoFile:
    """Iterates once over the frames of a video file.

    Args:
        path: a regular file.
        fps: frames wanted per second of video; the others are only grabbed. None: every frame.

    Attributes:
        skipped: frames that were passed over because of `fps`, so far.
        failed: reads that failed and were followed by more frames, so far.
        missing: bytes that the file lacks by its container's own account.

    Raises:
        SourceError: from the constructor when no video can be opened, from the iteration when it has no
            frame.
    """

    def __init__(self, path: str | os.PathLike[str], fps: float | None = None) -> None:
        self.path = os.fspath(path)
        self.fps = fps
        self.skipped = self.failed = 0
        check_regular_file(self.path)
        try:
            self.missing = missing_bytes(self.path)
        except OSError as error:
            raise SourceError(f"{self.path}: cannot be read ({error.strerror})") from None
        self._capture = _open(self.path)
        if not self._capture.isOpened():
            raise SourceError(f"{self.path}: no video of a known format could be opened")

    def damage(self) -> str | None:
        """Say in a few words what was lost, once all frames have been read; None for a whole file."""
        lost = []
        if self.failed:
            lost.append(f"{self.failed} reads failed in damaged data")
        if self.missing:
            lost.append(f"the file is cut short by {self.missing} bytes")
        return " and ".join(lost) or None

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            yield from self._frames()
        finally:
            self._capture.release()

    def _frames(self) -> Iterator[VideoFrame]:
        sampler = _Sampler(self.fps)
        index, time, decoded = -1, 0.0, 0
        step = 1.0 / _frame_rate(self._capture)
        while self._grab():
            index += 1
            stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
            # Raw streams carry no times (always 0): the nominal rate is all there is.
            time = stamp if index == 0 or stamp > time else time + step
            if not sampler.wants(time):
                self.skipped += 1
                continue
            ok, image = self._capture.retrieve()
            if not ok or image is None:
                self.failed += 1
                continue
            decoded += 1
            yield VideoFrame(index, time, image.astype(np.uint8, copy=False))
        if not decoded:
            raise SourceError(f"{self.path}: the video opened but no frame of it can be decoded")

    def _grab(self) -> bool:
        """Advance to the next frame, over damage; False at the end."""
        for failures in range(_END_AFTER):
            if self._capture.grab():
                self.failed += failures
                return True
        return False


class _Sampler:
    """Picks the first frame of each interval of 1/fps seconds; steady under variable frame rates."""

    def __init__(self, fps: float | None) -> None:
        self._fps = fps
        self._slot = -math.inf

    def wants(self, time: float) -> bool:
        if self._fps is None:
            return True
        slot = math.floor(time * self._fps + 1e-6)
        wanted = slot > self._slot
        self._slot = max(slot, self._slot)
        return wanted


def _open(path: str) -> cv2.VideoCapture:
    """Open `path` with FFmpeg, restricted to video containers read from files.

    OpenCV takes these options from the environment, for every capture of the process: they are there only
    while ours is opened.
    """
    key = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
    with _OPENING:
        before = os.environ.get(key)
        os.environ[key] = _FILES_ONLY
        try:
            # "file:" keeps FFmpeg from taking a name such as "concat:a" for a protocol, and OpenCV from
            # taking "%" or digits for an image sequence.
            return cv2.VideoCapture("file:" + path, cv2.CAP_FFMPEG)
        finally:
            if before is None:
                del os.environ[key]
            else:
                os.environ[key] = before


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else 25.0
