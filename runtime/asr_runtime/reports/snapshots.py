"""Pictures of what was found: a JPEG when a source turns to AI, and now and then while it stays so."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import time
from collections import deque
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Verdict
from asr_runtime.errors import OutputError
from asr_runtime.records import FrameRecord, ImageRecord, Record, VideoRecord

__all__ = ["Snapshots"]

_QUALITY = 95
_LONGEST_NAME = 60  # letters of the source's name in the name of a file
_LARGEST_SIDE = 65500  # pixels; what a JPEG can hold


class Snapshots:
    """Writes frames and images whose verdict is AI into a folder, each whole or not at all.

    A file is named by its source, time and probability: `door_20261103T101522.125Z_p0.973.jpg` of a live source,
    `clip.mp4-1f3a9c_000072.400s_p0.912.jpg` of a video file, `photo.png-77b0e1_p0.991.jpg` of an image.

    Args:
        folder: made if it is not there.
        min_interval: seconds between two snapshots of a video that stays AI.
        keep: files of this run to keep; beyond it the oldest is removed.

    Raises:
        OutputError: the folder cannot be made or written.
    """

    def __init__(self, folder: str | os.PathLike[str], min_interval: float = 10.0, keep: int = 1000) -> None:
        self._folder = Path(folder)
        self._min_interval, self._keep = min_interval, keep
        self._videos: dict[str, _Video] = {}
        self._written: deque[Path] = deque()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise _failure(self._folder, error) from None
        self._write_whole(self._folder / ".asr-screen", b"").unlink()

    def observe(self, record: Record, image: NDArray[np.uint8] | None) -> None:
        """Take one record of the run; write its picture where it is due.

        Args:
            record: only those of images and frames have a picture.
            image: uint8 BGR, H x W x 3; None where the record has none.

        Raises:
            OutputError: the picture cannot be written.
        """
        if isinstance(record, VideoRecord):
            self._videos.pop(record.source, None)
        elif image is None:
            return
        elif isinstance(record, ImageRecord) and record.verdict == "ai":
            self._save(f"{_safe(record.source)}_p{record.probability:.3f}.jpg", image)
        elif isinstance(record, FrameRecord):
            video = self._videos.setdefault(record.source, _Video())
            if video.is_due(record, self._min_interval):
                self._save(f"{_safe(record.source)}_{_moment(record)}_p{record.probability:.3f}.jpg", image)

    def _save(self, name: str, image: NDArray[np.uint8]) -> None:
        shrink = _LARGEST_SIDE / max(image.shape)
        if shrink < 1:
            size = [max(1, int(side * shrink)) for side in image.shape[1::-1]]
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA).astype(np.uint8)
        _, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
        path = self._write_whole(self._folder / name, data.tobytes())
        if path not in self._written:
            self._written.append(path)
        while len(self._written) > self._keep:
            with contextlib.suppress(OSError):  # someone else may have taken it away
                self._written.popleft().unlink()

    def _write_whole(self, path: Path, data: bytes) -> Path:
        partial = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            try:
                with partial.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                return partial.replace(path)
            except OSError:
                partial.unlink(missing_ok=True)
                raise
        except OSError as error:
            raise _failure(path, error) from None


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


def _failure(path: Path, error: OSError) -> OutputError:
    return OutputError(
        f"{path}: snapshot cannot be written ({error.strerror}); expected a folder with space that may be written"
    )
