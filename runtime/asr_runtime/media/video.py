"""Frames of a video file, in order, with their times. Reading goes on after damage, and the loss is reported."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import SourceError
from asr_runtime.media.capture import open_ffmpeg
from asr_runtime.media.clock import Clock, Sampler
from asr_runtime.media.container import is_avi, missing_bytes
from asr_runtime.media.contents import contents
from asr_runtime.media.formats import VIDEO_SUFFIXES
from asr_runtime.media.integrity import broken_at
from asr_runtime.media.own_size import OwnSizes
from asr_runtime.media.regular_file import check_regular_file
from asr_runtime.media.stale import FRAMES, packets_change

__all__ = ["MAX_FRAME_PIXELS", "VIDEO_SUFFIXES", "VideoFile", "VideoFrame"]

MAX_FRAME_PIXELS = 2**26
"""Largest frame that is decoded, in pixels: twice 8K video. One frame takes 200 MB, and FFmpeg needs several."""

# The content of a file decides how it is decoded, not its name. Without this list, a "video" that is really a
# playlist could read other files, or the network. Only the name of a raw stream of JPEGs tells it from a picture.
_FILES_ONLY = (
    "protocol_whitelist;file|format_whitelist;"
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,asf,ogg,h264,hevc,mjpeg,"
    "mxf,ivf,yuv4mpegpipe,dv,dhav,m4v,obu,rm,wtv,nut,gxf"
)
_MJPEG_SUFFIXES = (".mjpeg", ".mjpg")
# With no decoder allowed, FFmpeg reads the frame size from the headers and allocates no frame.
_HEADERS_ONLY = "|codec_whitelist;none"
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
        max_seconds: longest part of the video that is read; `damage` reports that the rest was left out.
        name: what error messages call it, and whose suffix counts; None: the path.

    Attributes:
        skipped: frames so far that were not decoded because of `fps`.
        failed: reads so far that failed before further frames followed.
        missing: bytes that the file lacks, by the sizes in its container.

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
        self._withheld = 0
        self._is_read = False
        check_regular_file(self.path, self.name)
        try:
            self.missing = missing_bytes(self.path)
            with Path(self.path).open("rb") as file:
                self._contents = contents(file)
                self._is_empty = file.seek(0, os.SEEK_END) == 0
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
        again = functools.partial(self._opened, "")
        self._sizes = OwnSizes(again, self._capture, self._contents, MAX_FRAME_PIXELS)
        self._clock = Clock(self._capture, self._is_avi, self._contents.seconds, max_seconds)

    def _opened(self, options: str, parameters: Sequence[int] = ()) -> cv2.VideoCapture:
        raw_jpegs = ",jpeg_pipe" if self.name.lower().endswith(_MJPEG_SUFFIXES) else ""
        capture = open_ffmpeg("file:" + self.path, _FILES_ONLY + raw_jpegs + options, parameters)
        if not capture.isOpened():
            raise SourceError(f"{self.name}: {self._why_not_opened()}")
        width, height = (int(capture.get(p)) for p in (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT))
        if width * height > MAX_FRAME_PIXELS:
            raise SourceError(
                f"{self.name}: frames of {width} x {height} pixels, expected at most {MAX_FRAME_PIXELS}; "
                "scale the video down"
            )
        return capture

    def _why_not_opened(self) -> str:
        if self._is_empty:
            return "the file is empty, expected a video"
        if not self._contents.lacks_index or self._contents.is_playable:
            return "no video of a known format could be opened"
        if self.missing:
            return f"the file is cut short by {self.missing} bytes and has lost its index (moov); copy it again"
        return (
            "the recording was never finished: it has no index (moov), without which its frames cannot be read; "
            "stop the recorder before the file is copied, or repair the file with a recovery tool"
        )

    def notes(self) -> str | None:
        """Return remarkable facts in a few words, once all frames have been read; None: there are none.

        No frame was lost by them: several tracks, several sizes, a clock that was set, a missing index.
        """
        notes = []
        if (count := self._contents.tracks) > 1:
            notes.append(f"the first of {count} video tracks was scored")
        sizes = [f"{width} x {height}" for width, height in self._sizes.shown_sizes()]
        if len(sizes) > 1:
            notes.append(f"the frames change their size: {', '.join(sizes[:4])}{', ...' if sizes[4:] else ''}")
        if self._clock.jump:
            seconds, at = self._clock.jump
            notes.append(f"its clock jumps by {seconds:,.0f} s at {at:.2f} s; later times go on from there")
        if self._contents.lacks_index:
            notes.append("it has no index: the recording was never finished, or was streamed")
        return "; ".join(notes) or None

    def damage(self) -> str | None:
        """Return the known losses in a few words, once all frames have been read; None for a complete file.

        The decoder hides damage that changes only pixels, or that makes a single packet look like no picture. Such
        damage is not reported.
        """
        lost = []
        if self.failed:
            lost.append(f"{self.failed} reads failed in damaged data")
        if count := self._withheld:
            lost.append(f"the decoder left out {count} frames, damaged ones or those that need them")
        if self._ends_early:
            lost.append(f"the frames end at {self._clock.latest:.1f} s of {self._contents.seconds:.1f} s")
        if self.missing:
            lost.append(f"the file is cut short by {self.missing} bytes")
        elif (at := self._broken_at()) is not None:
            never = "the recording was never finished and " if self._contents.lacks_index else ""
            lost.append(f"{never}the container is broken at byte {at}")
        if self._sizes.scaled:
            lost.append(f"{self._sizes.scaled} frames of another size were scaled to that of the first")
        if self._stopped:
            lost.append(f"only the first {self.max_seconds:g} s were read")
        return " and ".join(lost) or None

    @property
    def _ends_early(self) -> bool:
        """Whether the frames end before the duration in the container, by more than one long last frame explains."""
        seconds = self._contents.seconds
        if seconds is None or not self._contents.is_alone or self._stopped or not self._is_read:
            return False
        missing = seconds - max(0.0, self._clock.start) - self._clock.latest
        return missing > max(2.0, 0.2 * seconds, 5 * self._clock.longest)

    def _broken_at(self) -> int | None:
        try:
            return broken_at(self.path)
        except OSError:
            return None  # the file was readable when it was opened and has been removed since

    def __iter__(self) -> Iterator[VideoFrame]:
        try:
            yield from self._frames()
        finally:
            self._capture.release()
            self._sizes.close()

    def _frames(self) -> Iterator[VideoFrame]:
        """Give the frames; at the beginning, equal ones only when they are known to be no picture from memory."""
        waiting: list[VideoFrame] = []
        is_checked = False
        for frame in self._decoded():
            if not is_checked and (not waiting or np.array_equal(frame.image, waiting[0].image)):
                waiting.append(frame._replace(image=waiting[0].image) if waiting else frame)
                if len(waiting) < FRAMES:
                    continue
                self._check_not_stale(waiting)
                frame = waiting.pop()
            is_checked = True
            yield from waiting
            waiting.clear()
            yield frame
        self._check_not_stale(waiting)
        yield from waiting

    def _check_not_stale(self, frames: Sequence[VideoFrame]) -> None:
        """Refuse a video that has begun with these equal frames, although its packets change."""
        if len(frames) > 1 and packets_change(self._opened("")):
            raise SourceError(
                f"{self.name}: interlaced, and OpenCV {cv2.__version__} converts no interlaced frames; make a "
                "progressive copy: ffmpeg -i VIDEO -vf bwdif=send_frame -crf 16 COPY.mp4"
            )

    def _decoded(self) -> Iterator[VideoFrame]:
        sampler = Sampler(self.fps)
        clock = self._clock
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
            yield VideoFrame(index, time, self._sizes.picture(image.astype(np.uint8, copy=False)))
        if not self._stopped:
            self._withheld = self._sizes.withheld()
            self._is_read = decoded > 1
        if not decoded:
            raise SourceError(f"{self.name}: the video opened but no frame of it can be decoded")

    def _grab(self) -> bool:
        """Advance to the next frame, over damage; False at the end."""
        for failures in range(_END_AFTER):
            if self._capture.grab():
                self.failed += failures
                self._sizes.grabbed(failures)
                return True
        return False
