"""Frames with their verdicts drawn in -> Matroska files, one per source."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, OutputError
from asr_runtime.records import ErrorRecord, FrameRecord, Record, SummaryRecord, VideoRecord
from asr_runtime.reports.clip_writer import ClipWriter, check_writable
from asr_runtime.reports.overlay import Overlay

__all__ = ["AnnotatedVideo"]

_LIVE_RATE = 10.0  # frames per second of the file of a live source
_LONGEST_GAP, _LONGEST_LIVE_GAP = 60.0, 2.0  # seconds that are filled by repeating a frame
_SMALLEST, _LARGEST = (160, 90), 3840  # pixels: width and height; the larger of both


class AnnotatedVideo:
    """Writes every frame record of a run, drawn on its frame, into a Matroska file per source.

    The first source goes to `out.mkv`, the next to `out-2.mkv` and so on. A file lasts as long as its source: frames
    are repeated or dropped to fit a constant rate, which is estimated from the first two frames of a video file and
    is 10 a second for a live source. Pauses over 60 s (live: 2 s) are cut, since filling them takes time. Every
    frame is a JPEG: a file that is cut off by a kill or a power failure plays, without its last 256 KiB.

    Args:
        path: of the first file, `.mkv`; replaced if it is one that an earlier run wrote.
        warn: called with one line that says where the frames of a further source go.

    Raises:
        ConfigurationError: the name does not end in `.mkv`.
        OutputError: the file cannot be written, or is another video.
    """

    def __init__(self, path: str | os.PathLike[str], *, warn: Callable[[str], None]) -> None:
        self._path, self._warn = Path(path), warn
        if self._path.suffix.lower() != ".mkv":
            raise ConfigurationError(
                f"{self._path}: expected a name that ends in .mkv; other formats cannot be played after a kill"
            )
        self._is_new = not self._path.exists()
        check_writable(self._path)
        self._count = 0
        self._clips: dict[str, _Clip] = {}

    def observe(self, record: Record, image: NDArray[np.uint8] | None) -> None:
        """Take one record of the run.

        Args:
            record: those of frames are drawn; the one of a whole video file, or its error, ends its file.
            image: the frame, uint8 BGR, H x W x 3, any size; it is not changed. None where the record has none.

        Raises:
            OutputError: the file cannot be written, or the disk is almost full.
        """
        if isinstance(record, SummaryRecord):
            return
        clip = self._clips.get(record.source)
        if clip is not None and clip.is_ended_by(record):
            self._end(record.source)
            clip = None
        if isinstance(record, FrameRecord) and image is not None:
            (clip or self._begin(record, image)).add(record, image)

    def close(self) -> None:
        """Finish all files.

        Raises:
            OutputError: what was written did not all reach its file.
        """
        with contextlib.ExitStack() as stack:
            for source in list(self._clips):
                stack.callback(self._end, source)
        if self._is_new and not self._count:
            self._path.unlink(missing_ok=True)

    def _begin(self, record: FrameRecord, image: NDArray[np.uint8]) -> _Clip:
        self._count += 1
        path = self._path
        if self._count > 1:
            path = path.with_stem(f"{path.stem}-{self._count}")
            check_writable(path)
            self._warn(f"{record.source}: annotated frames go to {path}")
        if Path(record.source).exists() and path.exists() and path.samefile(record.source):
            raise OutputError(f"{path}: is the video that is screened, and would be replaced; choose another name")
        clip = self._clips[record.source] = _Clip(path, record, image)
        return clip

    def _end(self, source: str) -> None:
        self._clips.pop(source).close()


class _Clip:
    """The file of one source; its frames have the size of the first one."""

    def __init__(self, path: Path, first: FrameRecord, image: NDArray[np.uint8]) -> None:
        self._is_live = first.age is not None
        self._frame = -1
        self._size = _size(image)
        self._overlay = Overlay()
        self._writer = (
            ClipWriter(path, self._size, _LONGEST_LIVE_GAP, _LIVE_RATE)
            if self._is_live
            else ClipWriter(path, self._size, _LONGEST_GAP)
        )

    def is_ended_by(self, record: Record) -> bool:
        """Whether this is what comes after the last frame; the same file given twice begins again at frame 0."""
        if self._is_live:
            return False
        if isinstance(record, FrameRecord):
            return record.frame <= self._frame
        return isinstance(record, VideoRecord) or (isinstance(record, ErrorRecord) and record.frame is None)

    def add(self, record: FrameRecord, image: NDArray[np.uint8]) -> None:
        self._frame = record.frame
        self._overlay.remember(record)
        if self._writer.has_room(record.time):
            canvas = _fitted(image, self._size)
            self._overlay.draw(canvas, record)
            self._writer.add(record.time, canvas)

    def close(self) -> None:
        self._writer.close()


def _size(image: NDArray[np.uint8]) -> tuple[int, int]:
    """Return width and height of a file whose first frame is this; the encoder wants even numbers."""
    shrink = min(1.0, _LARGEST / max(image.shape))
    width, height = (
        max(least, round(side * shrink)) for side, least in zip(image.shape[1::-1], _SMALLEST, strict=True)
    )
    return width & ~1, height & ~1


def _fitted(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Return a copy of a frame in the size of the file, black at the sides where its shape differs."""
    width, height = size
    if image.shape[0] & ~1 == height and image.shape[1] & ~1 == width:
        return image[:height, :width].copy()
    scale = min(width / image.shape[1], height / image.shape[0])
    inner = tuple(max(1, min(round(side * scale), most)) for side, most in zip(image.shape[1::-1], size, strict=True))
    resized = cv2.resize(image, inner, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)
    left, top = (width - inner[0]) // 2, (height - inner[1]) // 2
    canvas = np.zeros((height, width, 3), np.uint8)
    canvas[top : top + inner[1], left : left + inner[0]] = resized
    return canvas
