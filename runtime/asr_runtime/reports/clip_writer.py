"""Pictures with times -> a Matroska file of constant rate. A full disk is detected, which OpenCV does not report."""

from __future__ import annotations

import os
import time
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import OutputError

__all__ = ["ClipWriter", "check_writable"]

_USUAL_RATES = (5, 10, 12, 12.5, 15, 20, 24000 / 1001, 24, 25, 30000 / 1001, 30, 48, 50, 60000 / 1001, 60)
_SLOWEST, _FASTEST = 1.0, 60.0  # frames per second
_SPARE = 8 << 20  # bytes left free on the disk, for the other outputs of the run too
_LOOK = 0.25  # seconds between looks at the disk
_MATROSKA, _CODEC = b"\x1aE\xdf\xa3", b"V_MJPEG"
_WITHOUT_GROWTH = 400  # pictures; FFmpeg collects 256 KiB before it writes, and a picture has at least 1 KiB


class ClipWriter:
    """Writes pictures so that each is shown from its time until the next one's.

    Args:
        path: of the file, `.mkv`, replaced if it exists.
        size: width and height of every picture, even numbers.
        longest_gap: seconds; a longer pause between two pictures is cut, and so is a step back.
        rate: frames per second; None: estimated from the first two pictures, 1 to 60.

    Raises:
        OutputError: by every method: the file cannot be written, does not grow, or the disk has less than 8 MiB left.
    """

    def __init__(self, path: Path, size: tuple[int, int], longest_gap: float, rate: float | None = None) -> None:
        self._path, self._size, self._longest_gap, self._rate = path, size, longest_gap, rate
        self._writer: cv2.VideoWriter | None = None
        self._picture: NDArray[np.uint8] | None = None  # the newest, not written yet: how long it lasts is not known
        self._start = 0.0  # time of slot 0
        self._slot = 0  # place of the newest picture, in frames of the file
        self._looked = self._bytes = self._pictures = 0.0
        self._check_space()

    def has_room(self, seconds: float) -> bool:
        """Whether a picture of this time would be written; False if an earlier one fills its place in the file."""
        return self._picture is None or self._rate is None or self._place(seconds) != self._slot

    def add(self, seconds: float, picture: NDArray[np.uint8]) -> None:
        """Take the picture that is shown from a time on; it is written when the next one comes."""
        if self._picture is None:
            self._picture, self._start = picture, seconds
            return
        if self._rate is None:
            self._rate = _rate(seconds - self._start)
        slot = self._place(seconds)
        if not self._slot <= slot <= self._slot + self._longest_gap * self._rate:
            slot = self._slot + 1
            self._start = seconds - slot / self._rate
        self._write(self._picture, slot - self._slot)
        self._picture, self._slot = picture, slot

    def close(self) -> None:
        """Write what is left and finish the file."""
        if self._picture is not None:
            self._write(self._picture, 1)
            self._picture = None
        if self._writer is not None:
            self._writer.release()
            self._writer = None
            self._check_space()
            if not self._size_now():
                raise self._failure("nothing was written")

    def _place(self, seconds: float) -> int:
        return round((seconds - self._start) * (self._rate or 0.0))

    def _write(self, picture: NDArray[np.uint8], times: int) -> None:
        if self._writer is None:
            codec = cv2.VideoWriter.fourcc(*"MJPG")
            # An absolute path: FFmpeg reads what stands before a colon as a protocol.
            name = os.fspath(self._path.absolute())
            self._writer = cv2.VideoWriter(name, cv2.CAP_FFMPEG, codec, self._rate or _SLOWEST, self._size)
            if not self._writer.isOpened():
                raise self._failure("OpenCV cannot write MJPEG in Matroska on this machine")
        for _ in range(times):
            self._writer.write(picture)
            self._pictures += 1
            if time.monotonic() - self._looked > _LOOK:
                self._check_space()

    def _check_space(self) -> None:
        self._looked = time.monotonic()
        try:
            disk = os.statvfs(self._path.parent)
        except OSError as error:
            raise self._failure(str(error.strerror)) from None
        if disk.f_bavail * disk.f_frsize < _SPARE:
            raise self._failure(f"the disk has less than {_SPARE >> 20} MiB left; make room or choose another place")
        if self._writer is None:
            return
        size = self._size_now()
        if size != self._bytes:
            self._bytes, self._pictures = size, 0
        elif self._pictures > _WITHOUT_GROWTH:
            raise self._failure("the file does not grow any more; is there a quota, or was the disk removed?")

    def _size_now(self) -> int:
        try:
            return self._path.stat().st_size
        except OSError as error:
            raise self._failure(str(error.strerror)) from None

    def _failure(self, reason: str) -> OutputError:
        self._picture = None
        if self._writer is not None:
            self._writer.release()
            self._writer = None
        return _failure(self._path, reason)


def check_writable(path: Path) -> None:
    """Create a file, or open the one that is there, without changing it.

    Raises:
        OutputError: that cannot be done, or the file is not one that `ClipWriter` wrote.
    """
    try:
        with path.open("a+b") as file:
            file.seek(0)
            head = file.read(4096)
    except OSError as error:
        raise _failure(path, str(error.strerror)) from None
    if head and not (head.startswith(_MATROSKA) and _CODEC in head):
        raise _failure(path, "it is another video or file, and would be replaced; choose another name, or remove it")


def _rate(gap: float) -> float:
    """Return the frame rate of which `gap` is one period; times in milliseconds give a usual rate exactly."""
    rate = min(max(1 / gap if gap > 0 else _FASTEST, _SLOWEST), _FASTEST)
    usual = min(_USUAL_RATES, key=lambda each: abs(each - rate))
    return usual if abs(usual - rate) < 0.03 * rate else rate


def _failure(path: Path, reason: str) -> OutputError:
    return OutputError(f"{path}: annotated video cannot be written ({reason})")
