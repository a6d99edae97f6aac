"""A live source in a separate process: a stream that crashes, hangs or bloats the decoder costs that connection.

The process gets the URL, which may hold a password, on its standard input; then one byte for each thing to do, and
answers it with a header of fixed size, a text and raw pixels. What it answers is checked and never run: the stream may
have taken it over.
"""

from __future__ import annotations

import contextlib
import math
import os
import struct
import sys

import numpy as np
from numpy.typing import NDArray

from asr_runtime.cameras.streams import KEY_FRAME_TIMEOUT, OPEN_TIMEOUT, READ_TIMEOUT, Stream, open_stream
from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.isolation.worker import (
    OUT_OF_MEMORY,
    START_SECONDS,
    ChildError,
    ChildProcess,
    Limit,
    ParentProcess,
    malformed_answer,
    pixels,
    text,
)
from asr_runtime.media.video import MAX_FRAME_PIXELS

__all__ = ["IsolatedStream"]

_SOURCE = struct.Struct(
    "<Id?"
)  # bytes of the URL, which follow; pictures wanted per second, NaN for none; key frames only
_GRAB, _RETRIEVE, _CLOSE = b"g", b"r", b"c"
_ANSWER = struct.Struct("<cdIII")  # kind; the source's own time, NaN for none; height, width; bytes of the text
_READY, _OPENED, _GRABBED, _PICTURE, _UNDECODABLE, _LOST = b"r", b"o", b"g", b"p", b"D", b"S"
_MARGIN = 1.0  # seconds beyond the time-outs of the stream itself, which say more
_OPEN_SECONDS = 8 * OPEN_TIMEOUT  # no time-out ends the look-up of a name, for which the system may take 30 s
_CLOSE_SECONDS = 0.5  # to tell an RTSP server that this viewer leaves; otherwise it reserves the place for a minute
_OPEN_FILES = 64
_ADVICE = "the stream may be damaged, or made to do this"


class IsolatedStream(Stream):
    """Opens and decodes a live source in one child process (Linux), which ends with the connection.

    Args:
        url: as for `streams.open_stream`.
        memory: bytes that the child may take, on top of the bare process.
        read_timeout: seconds in which the child has to answer `grab` and `retrieve`.
        fps: as for `streams.open_stream`.
        key_frames: as for `streams.open_stream`; `read_timeout` is then at least that of key frames.

    Raises:
        SourceError: as `streams.open_stream`; also, from every method, when the child crashed, hung, was refused
            memory or gave a malformed answer. The child is then ended.
    """

    def __init__(
        self,
        url: str,
        memory: int = 1 << 30,
        read_timeout: float = READ_TIMEOUT + _MARGIN,
        *,
        fps: float | None = None,
        key_frames: bool = False,
    ) -> None:
        self._read_timeout = max(read_timeout, KEY_FRAME_TIMEOUT + _MARGIN) if key_frames else read_timeout
        try:
            self._child = ChildProcess("asr_runtime.isolation.stream", memory)
        except ChildError as failure:
            raise _lost(failure) from None
        address = url.encode(errors="surrogateescape")
        try:
            self._ask(b"", {_READY}, START_SECONDS)
            self._ask(
                _SOURCE.pack(len(address), math.nan if fps is None else fps, key_frames) + address,
                {_OPENED, _LOST},
                _OPEN_SECONDS,
            )
        except BaseException:
            self._child.kill()
            raise

    def grab(self) -> float | None:
        """Wait for the next frame; see `Stream.grab`."""
        own_time, _ = self._ask(_GRAB, {_GRABBED, _LOST}, self._read_timeout)
        return None if math.isnan(own_time) else own_time

    def retrieve(self) -> NDArray[np.uint8]:
        """Decode the grabbed frame; see `Stream.retrieve`."""
        _, image = self._ask(_RETRIEVE, {_PICTURE, _UNDECODABLE}, self._read_timeout)
        assert image is not None
        return image

    def close(self) -> None:
        """End the connection and the child."""
        with contextlib.suppress(ChildError):
            self._child.write(_CLOSE, _CLOSE_SECONDS)
        self._child.end(_CLOSE_SECONDS)

    def _ask(self, request: bytes, allowed: set[bytes], seconds: float) -> tuple[float, NDArray[np.uint8] | None]:
        try:
            self._child.write(request, seconds)
            return self._answer(allowed, Limit(seconds))
        except ChildError as failure:
            self._child.kill()
            raise _lost(failure) from None

    def _answer(self, allowed: set[bytes], limit: Limit) -> tuple[float, NDArray[np.uint8] | None]:
        kind, own_time, height, width, length = _ANSWER.unpack(self._child.read(_ANSWER.size, limit))
        is_picture = kind == _PICTURE
        if kind not in allowed or math.isinf(own_time):
            raise malformed_answer()
        if (height * width > 0) != is_picture or height * width > MAX_FRAME_PIXELS:
            raise malformed_answer()
        message = "".join(letter if letter.isprintable() else " " for letter in self._child.read_text(length, limit))
        if kind == _LOST:
            raise SourceError(message)
        if kind == _UNDECODABLE:
            raise DecodeError(message)
        return own_time, self._child.read_picture(height, width, limit) if is_picture else None


def _lost(failure: ChildError) -> SourceError:
    return SourceError(f"{failure}; {failure.advice or _ADVICE}")


class _Server:
    """The child's end: carries out the requests for one stream, one after the other."""

    def __init__(self, memory: int) -> None:
        self._parent = ParentProcess(memory, _OPEN_FILES)

    def serve(self) -> None:
        """Open the stream and answer until it is lost or to be closed; ends the process."""
        status = 1
        try:
            self._answer(_READY)
            self._watch(*self._read_source())
            status = 0
        except MemoryError:
            status = OUT_OF_MEMORY
        except Exception:  # whatever a stream brings a library to raise
            status = OUT_OF_MEMORY if self._parent.refused_memory else 1
        finally:
            os._exit(status)

    def _read_source(self) -> tuple[str, float | None, bool]:
        length, fps, key_frames = _SOURCE.unpack(self._parent.read(_SOURCE.size))
        return self._parent.read(length).decode(errors="surrogateescape"), None if math.isnan(fps) else fps, key_frames

    def _watch(self, url: str, fps: float | None, key_frames: bool) -> None:
        try:
            stream = open_stream(url, fps, key_frames=key_frames)
        except SourceError as error:
            self._fail(_LOST, error)
            return
        self._answer(_OPENED)
        with contextlib.closing(stream):
            while (request := self._parent.read(1)) != _CLOSE:
                try:
                    if request == _GRAB:
                        self._answer(_GRABBED, stream.grab())
                    else:
                        self._answer(_PICTURE, image=stream.retrieve())
                except DecodeError as error:
                    self._fail(_UNDECODABLE, error)
                except SourceError as error:
                    self._fail(_LOST, error)
                    return

    def _fail(self, kind: bytes, error: DecodeError | SourceError) -> None:
        if self._parent.refused_memory:
            raise MemoryError
        self._answer(kind, message=text(error))

    def _answer(
        self, kind: bytes, own_time: float | None = None, image: NDArray[np.uint8] | None = None, message: bytes = b""
    ) -> None:
        height, width = (0, 0) if image is None else image.shape[:2]
        self._parent.write(
            _ANSWER.pack(kind, math.nan if own_time is None else own_time, height, width, len(message)) + message
        )
        if image is not None:
            self._parent.write(pixels(image))


if __name__ == "__main__":
    _Server(int(sys.argv[1])).serve()
