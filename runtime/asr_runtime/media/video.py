"""Frames of a video file, in order, with their times; reads on after damage and says what was lost."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import SourceError
from asr_runtime.media.capture import open_ffmpeg
from asr_runtime.media.container import is_avi, missing_bytes
from asr_runtime.media.formats import VIDEO_SUFFIXES
from asr_runtime.media.integrity import broken_at
from asr_runtime.media.regular_file import check_regular_file

__all__ = ["MAX_FRAME_PIXELS", "VIDEO_SUFFIXES", "VideoFile", "VideoFrame"]

MAX_FRAME_PIXELS = 2**26
"""Largest frame that is decoded, twice that of 8K video; one of it takes 200 MB, and FFmpeg holds several."""

# A file is decoded by what it holds, not by its name: without this a "video" that is really a playlist reads
# other files, or the network. A raw stream of JPEGs is known by its name alone: it begins like a picture.
_FILES_ONLY = (
    "protocol_whitelist;file|format_whitelist;"
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,mjpeg,"
    "mxf,ivf,yuv4mpegpipe,dv,dhav,m4v,obu,rm,wtv,nut,gxf"
)
_MJPEG_SUFFIXES = (".mjpeg", ".mjpg")
# With no decoder allowed FFmpeg tells the size of the frames from the headers and allocates none of them.
_HEADERS_ONLY = "|codec_whitelist;none"
_LONGEST_REORDERING = 16  # frames; the limit of H.264 and HEVC
_END_AFTER = 1000  # failed reads in a row; after damage some tens fail and the video goes on, a true end costs 12 ms


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
        max_seconds: of video that are read; the rest is left out, and `damage` says so.
        name: what error messages call it, and whose suffix counts; None: the path.

    Attributes:
        skipped: frames that were passed over because of `fps`, so far.
        failed: reads that failed and were followed by more frames, so far.
        missing: bytes that the file lacks by its container's own account.

    Raises:
        SourceError: from the constructor when no video can be opened or its frames have more than
            `MAX_FRAME_PIXELS` pixels, from the iteration when it has no frame.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        fps: float | None = None,
        *,
        max_seconds: float = 86400.0,
        name: str | None = None,
    ) -> None:
        self.path = os.fspath(path)
        self.name = self.path if name is None else name
        self.fps = fps
        self.max_seconds = max_seconds
        self.skipped = self.failed = 0
        self._stopped = False
        check_regular_file(self.path, self.name)
        try:
            self.missing = missing_bytes(self.path)
            self._is_avi = is_avi(self.path)
        except OSError as error:
            raise SourceError(f"{self.name}: cannot be read ({error.strerror})") from None
        headers = self._opened(_HEADERS_ONLY)
        codec = (int(headers.get(cv2.CAP_PROP_FOURCC)) & 0xFFFFFFFF).to_bytes(4, "little").lower()
        headers.release()
        # With several threads dav1d loses whole frames around damaged ones, and is no faster on few cores.
        threads = [cv2.CAP_PROP_N_THREADS, 1] if codec == b"av01" else []
        # The headers of the container may lie: what the coded stream says itself is known once this is open.
        self._capture = self._opened("", threads)

    def _opened(self, options: str, parameters: Sequence[int] = ()) -> cv2.VideoCapture:
        raw_jpegs = ",jpeg_pipe" if self.name.lower().endswith(_MJPEG_SUFFIXES) else ""
        capture = open_ffmpeg("file:" + self.path, _FILES_ONLY + raw_jpegs + options, parameters)
        if not capture.isOpened():
            raise SourceError(f"{self.name}: no video of a known format could be opened")
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_FRAME_PIXELS:
            raise SourceError(
                f"{self.name}: frames of {width} x {height} pixels, expected at most {MAX_FRAME_PIXELS}; "
                "scale the video down"
            )
        return capture

    def damage(self) -> str | None:
        """Say in a few words what was lost, once all frames have been read; None for a whole file.

        Damage that changes only pixels, or makes a single packet look like no picture, is hidden by the decoder and
        cannot be told.
        """
        lost = []
        if self.failed:
            lost.append(f"{self.failed} reads failed in damaged data")
        if self.missing:
            lost.append(f"the file is cut short by {self.missing} bytes")
        elif (at := self._broken_at()) is not None:
            lost.append(f"the container is broken at byte {at}")
        if self._stopped:
            lost.append(f"only the first {self.max_seconds:g} s were read")
        return " and ".join(lost) or None

    def _broken_at(self) -> int | None:
        try:
            return broken_at(self.path)
        except OSError:
            return None  # it was readable when it was opened: gone since then, with nothing left to look at

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            yield from self._frames()
        finally:
            self._capture.release()

    def _frames(self) -> Iterator[VideoFrame]:
        sampler = _Sampler(self.fps)
        clock = _Clock(self._capture, self._is_avi, self.max_seconds)
        index, decoded = -1, 0
        while self._grab():
            index += 1
            time = clock.time()
            if time > self.max_seconds:
                self._stopped = True
                break
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
            raise SourceError(f"{self.name}: the video opened but no frame of it can be decoded")

    def _grab(self) -> bool:
        """Advance to the next frame, over damage; False at the end."""
        for failures in range(_END_AFTER):
            if self._capture.grab():
                self.failed += failures
                return True
        return False


class _Clock:
    """Presentation times of the frames grabbed, in seconds from the start of the stream; they increase."""

    def __init__(self, capture: cv2.VideoCapture, is_avi: bool, latest: float) -> None:
        self._capture = capture
        self._step = 1.0 / _frame_rate(capture)
        self._is_avi = is_avi
        self._latest = latest
        self._late = 0.0
        self._time: float | None = None

    def time(self) -> float:
        """Return the time of the frame grabbed last; call it once for each."""
        stamp = self._capture.get(cv2.CAP_PROP_POS_MSEC) / 1000.0
        if self._time is None:
            # Of a frame in an AVI only the time of its decoding is known, later by the frames it waited for.
            if self._is_avi and stamp <= _LONGEST_REORDERING * self._step:
                self._late = stamp
            self._time = max(0.0, stamp - self._late)
        elif self._time < stamp - self._late <= self._latest:
            self._time = stamp - self._late
        else:
            # No time (raw streams: always 0), one out of order, or the nonsense of damaged data.
            self._time += self._step
        return self._time


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


def _frame_rate(capture: cv2.VideoCapture) -> float:
    rate = capture.get(cv2.CAP_PROP_FPS)
    return rate if math.isfinite(rate) and 0 < rate <= 1000 else 25.0
