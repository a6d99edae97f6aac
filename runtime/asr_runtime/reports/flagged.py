"""Which pictures of a run are flagged, and the folder that they are written to."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Verdict
from asr_runtime.records import FrameRecord, ImageRecord, Record, VideoRecord
from asr_runtime.reports.jpeg import jpeg
from asr_runtime.whole_file import write_whole

__all__ = ["FlaggedPictures"]

_LONGEST_NAME = 60  # letters of the source's name in the name of a file


class FlaggedPictures:
    """A folder for the flagged pictures of one run, each written whole or not at all.

    Images are flagged whose verdict is AI. A video is flagged when it turns to AI, and now and then while it stays so.

    Args:
        folder: made if it does not exist.
        what: the pictures are called this in messages.
        min_interval: seconds between two pictures of a video that stays AI.
        most: largest number of files of this run in the folder; beyond it the oldest is removed.

    Raises:
        OutputError: the folder cannot be made or written.
    """

    def __init__(
        self, folder: str | os.PathLike[str], what: str, *, min_interval: float = 10.0, most: int = 1000
    ) -> None:
        self._folder, self._what, self._min_interval, self._most = Path(folder), what, min_interval, most
        self._videos: dict[str, _Video] = {}
        self._written: deque[Path] = deque()
        probe = self._folder / ".asr-screen"  # a folder that cannot be written is refused before anything is screened
        write_whole(probe, b"", what=what)
        probe.unlink()

    def name(self, record: Record, image: NDArray[np.uint8] | None) -> str | None:
        """Take the next record of the run; return a name for its picture if that is flagged, otherwise None.

        The name says source, time and probability: `door_20261103T101522.125Z_p0.973` of a live source,
        `clip.mp4-1f3a9c_000072.400s_p0.912` of a video file, `photo.png-77b0e1_p0.991` of an image.
        """
        if isinstance(record, VideoRecord):
            self._videos.pop(record.source, None)
        elif image is None:
            return None
        elif isinstance(record, ImageRecord) and record.verdict == "ai":
            return f"{_safe(record.source)}_p{record.probability:.3f}"
        elif isinstance(record, FrameRecord):
            video = self._videos.setdefault(record.source, _Video())
            if video.is_due(record, self._min_interval):
                return f"{_safe(record.source)}_{_moment(record)}_p{record.probability:.3f}"
        return None

    def write(self, name: str, image: NDArray[np.uint8], quality: int) -> None:
        """Write one JPEG; a file of this name is replaced.

        Args:
            name: of the file, without `.jpg`.
            image: uint8 BGR `(H, W, 3)`; larger sides than a JPEG can hold are shrunk.
            quality: of the JPEG, 1..100.

        Raises:
            OutputError: the file cannot be written.
        """
        path = self._folder / f"{name}.jpg"
        write_whole(path, jpeg(image, quality), sync=True, what=self._what)
        if path not in self._written:
            self._written.append(path)
        while len(self._written) > self._most:
            with contextlib.suppress(OSError):  # someone else may have removed it
                self._written.popleft().unlink()


@dataclass(slots=True)
class _Video:
    """What is known of one video: its steady verdict, and the time of its last snapshot."""

    steady: Verdict | None = None
    last: float = 0.0

    def is_due(self, record: FrameRecord, min_interval: float) -> bool:
        has_turned = self.steady != "ai"
        self.steady = record.steady
        # A clock may be set back: what lies in the future does not hold a snapshot up.
        is_recent = 0 <= record.time - self.last < min_interval
        if record.steady != "ai" or (is_recent and not has_turned):
            return False
        self.last = record.time
        return True


def _moment(record: FrameRecord) -> str:
    if record.age is None:
        return f"{max(0.0, record.time):010.3f}s"
    seconds, milliseconds = divmod(round(record.time * 1000), 1000)
    return f"{time.strftime('%Y%m%dT%H%M%S', time.gmtime(seconds))}.{milliseconds:03d}Z"


def _safe(source: str) -> str:
    """Return a name for files; sources with different names have different ones."""
    name = re.split(r"[/\\]", source.rstrip("/\\"))[-1]
    safe = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-")[-_LONGEST_NAME:]
    if safe == source:
        return safe
    digest = hashlib.sha256(source.encode("utf-8", "surrogateescape")).hexdigest()[:6]
    return f"{safe}-{digest}" if safe else digest
