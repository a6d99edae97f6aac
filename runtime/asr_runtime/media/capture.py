"""Opens a `cv2.VideoCapture` with options that OpenCV reads only from the environment."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections.abc import Iterator, Sequence

import cv2

__all__ = ["open_ffmpeg"]

_KEY = "OPENCV_FFMPEG_CAPTURE_OPTIONS"


class _Environment:
    """Holds the variable while captures are being opened.

    Those that want the same options open at the same time (a silent camera takes seconds); others wait their turn.
    """

    def __init__(self) -> None:
        self._turn = threading.Lock()  # first come, first served
        self._changed = threading.Condition()
        self._options: str | None = None
        self._users = 0
        self._before: str | None = None

    @contextlib.contextmanager
    def holding(self, options: str) -> Iterator[None]:
        with self._turn, self._changed:
            self._changed.wait_for(lambda: self._users == 0 or self._options == options)
            if self._users == 0:
                self._before = os.environ.get(_KEY)
                os.environ[_KEY] = self._options = options
            self._users += 1
        try:
            yield
        finally:
            with self._changed:
                self._users -= 1
                if self._users == 0:
                    self._restore()
                    self._changed.notify_all()

    def _restore(self) -> None:
        if self._before is None:
            del os.environ[_KEY]
        else:
            os.environ[_KEY] = self._before


_environment = _Environment()


def open_ffmpeg(source: str | io.BufferedIOBase, options: str, parameters: Sequence[int] = ()) -> cv2.VideoCapture:
    """Open a video with OpenCV's FFmpeg backend.

    Args:
        source: a URL; `file:PATH` for a file, so that FFmpeg takes no name such as "concat:a" for a protocol, and
            OpenCV no "%" or digits for an image sequence. Or a binary stream, which is read as FFmpeg needs it.
        options: FFmpeg's, as `key;value|key;value`: allow-lists of protocols and formats at least.
        parameters: of `cv2.VideoCapture`, property and value in turn.

    Returns:
        The capture, opened or not.
    """
    with _environment.holding(options):
        return cv2.VideoCapture(source, cv2.CAP_FFMPEG, list(parameters))  # type: ignore[arg-type]
