"""Decoding in a separate process: a file that crashes, hangs or bloats the decoder costs that file, not the run.

The process reads requests on its standard input and answers with steps on its standard output, each a header of fixed
size, a text and raw pixels. What it answers is checked and never run: a file may have taken it over.
"""

from __future__ import annotations

import math
import os
import queue
import struct
import sys
import threading
from collections.abc import Generator, Iterator
from typing import Literal

from asr_runtime.errors import DecodeError, InputError, SourceError
from asr_runtime.heap import KEPT_BYTES, keep_freed_memory
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
from asr_runtime.sources.expand import Source, Unreadable
from asr_runtime.sources.steps import Decoded, decode_source

__all__ = ["IsolatedDecoder"]

_REQUEST = struct.Struct("<cdIQ")  # kind; fps, NaN for all; bytes of the name; bytes of the data, or of a path
_STEP = struct.Struct("<cIIQdQI")  # kind; height, width; frame; time; skipped; bytes of the text
_READY, _IMAGE, _FRAME, _END, _UNDECODABLE, _UNREADABLE, _DONE = b"r", b"i", b"f", b"e", b"D", b"S", b"d"
_FOLLOWING = {  # what may come after a step; None: at the beginning
    ("image", None): {_IMAGE, _UNDECODABLE, _UNREADABLE},
    ("image", _IMAGE): {_DONE},
    ("video", None): {_FRAME, _END, _UNREADABLE},
    ("video", _FRAME): {_FRAME, _END, _UNREADABLE},
    ("video", _END): {_UNREADABLE, _DONE},
}
_OPEN_FILES = 32
_ADVICE = "the file may be damaged, or made to do this"


class IsolatedDecoder:
    """Decodes source after source in one child process (Linux); a child that dies or hangs is replaced.

    The child starts with the first source, in the working folder of that moment. It writes no file, sees little of
    the environment, and ends with this process.

    Args:
        memory: bytes that the child may take for decoding, on top of the bare process and of freed memory that it
            keeps (`heap.KEPT_BYTES`); also the largest picture.
        step_deadline: seconds within which the next picture comes; for each second of video when `fps` is below 1.
        pixels: of the largest image; None: as many as in this process (2^28).
    """

    def __init__(self, memory: int = 2 << 30, step_deadline: float = 10.0, pixels: int | None = None) -> None:
        self.memory = memory
        self.pixels = pixels
        self.step_deadline = step_deadline
        self._child: _Decoder | None = None

    def decode(self, source: Source | Unreadable, fps: float | None) -> Generator[Decoded, None, None]:
        """Decode an image or a video file; finish or close one iteration before the next.

        Args:
            source: as `sources.expand` gives it.
            fps: frames wanted per second of video; None: all.

        Yields:
            As `sources.steps.decode_source`. A decoder that crashes, hangs or needs too much memory gives the frames
            before, the end of the video and a `SourceError`.
        """
        if isinstance(source, Unreadable):
            yield Decoded(source.name, error=source.error)
            return
        child, frames, last = None, 0, None
        try:
            child = self._ready_child(source)
            for last, step in self._steps(child, source, fps):
                frames += last == _FRAME
                yield step
        except ChildError as failure:
            self._drop(child)
            if last == _FRAME:
                yield Decoded(source.name, ends=True)
            after = f" after {frames} frames" if frames else ""
            reason = f"{failure}{after}; {failure.advice or _ADVICE}"
            yield Decoded(source.name, error=SourceError(f"{source.name}: {reason}"))
        except BaseException:  # the caller stopped in the middle: the child still decodes
            self._drop(child)
            raise

    def close(self) -> None:
        """End the child; a later `decode` starts another."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _drop(self, child: _Decoder | None) -> None:
        if child is self._child:
            self.close()

    def _ready_child(self, source: Source) -> _Decoder:
        if self._child is None or self._child.is_busy or not self._child.is_alive():
            self.close()
            self._child = _Decoder(self.memory, self.pixels)
            try:
                self._child.receive(source, {_READY}, START_SECONDS)
            except BaseException:
                self.close()
                raise
        return self._child

    def _steps(self, child: _Decoder, source: Source, fps: float | None) -> Iterator[tuple[bytes, Decoded]]:
        # Between two frames that are wanted lie 1 / fps seconds of the video.
        seconds = self.step_deadline * max(1.0, 1.0 / fps if fps else 1.0)
        child.ask(source, fps, seconds)
        last, number, at = None, -1, 0.0
        while self._child is child:
            kind, step = child.receive(source, _FOLLOWING.get((source.kind, last), {_DONE}), seconds)
            if kind == _DONE:
                child.is_busy = False
                return
            if kind == _FRAME:
                if step.frame is None or step.frame <= number or step.time < at:
                    raise malformed_answer()
                number, at = step.frame, step.time
            last = kind
            yield kind, step
        raise ChildError("decoding was closed", "finish one source before the next")


class _Decoder(ChildProcess):
    """A child that decodes files, and whether it is busy."""

    def __init__(self, memory: int, pixels: int | None) -> None:
        limits = {} if pixels is None else {"OPENCV_IO_MAX_IMAGE_PIXELS": str(pixels)}
        super().__init__("asr_runtime.isolation.files", memory, limits)
        self._memory = memory
        self.is_busy = False

    def ask(self, source: Source, fps: float | None, seconds: float) -> None:
        """Send a request; `seconds` without progress are a failure."""
        self.is_busy = True
        name = source.name.encode(errors="surrogatepass")
        data = source.data if source.data is not None else os.fsencode(source.path or "")
        kind = b"v" if source.kind == "video" else b"p" if source.data is None else b"b"
        for part in (_REQUEST.pack(kind, math.nan if fps is None else fps, len(name), len(data)), name, data):
            self.write(part, seconds)

    def receive(self, source: Source, allowed: set[bytes], seconds: float) -> tuple[bytes, Decoded]:
        """Wait for the next step, `seconds` at most.

        Raises:
            ChildError: there is none, or it is not one of those `allowed`, or not sound.
        """
        limit = Limit(seconds)
        kind, height, width, number, at, skipped, length = _STEP.unpack(self.read(_STEP.size, limit))
        has_pixels = kind in (_IMAGE, _FRAME)
        is_sound = kind in allowed and (height * width > 0) == has_pixels and height * width * 3 <= self._memory
        if not (is_sound and math.isfinite(at) and at >= 0):
            raise malformed_answer()
        message = self.read_text(length, limit)
        image = self.read_picture(height, width, limit) if has_pixels else None
        error: InputError | None = None
        if kind in (_UNDECODABLE, _UNREADABLE):
            error = (DecodeError if kind == _UNDECODABLE else SourceError)(message)
        note = message if kind == _END and message else None
        frame = number if kind == _FRAME else None
        return kind, Decoded(source.name, image, frame, at, error, skipped, kind == _END, note)


class _Server:
    """The child's end: decodes what is asked for, two frames ahead of the one that the parent has."""

    def __init__(self, memory: int) -> None:
        keep_freed_memory()
        self._parent = ParentProcess(memory + KEPT_BYTES, _OPEN_FILES)
        self._steps: queue.Queue[tuple[bytes, Decoded] | int] = queue.Queue(maxsize=1)

    def serve(self) -> None:
        """Answer requests until the parent ends."""
        writer = threading.Thread(target=self._write_steps, daemon=True)
        writer.start()
        try:
            self._steps.put((_READY, Decoded("")))
            while True:
                self._answer(*self._read())
        except MemoryError:
            self._steps.put(OUT_OF_MEMORY)
        except Exception:  # whatever a file brings a library to raise: the status says it, after the frames before it
            self._steps.put(OUT_OF_MEMORY if self._parent.refused_memory else 1)
        writer.join()  # what was decoded before is still to be written; then it ends the process

    def _read(self) -> tuple[Source, float | None]:
        kind, fps, name_length, data_length = _REQUEST.unpack(self._parent.read(_REQUEST.size))
        name = self._parent.read(name_length).decode(errors="surrogatepass")
        data = self._parent.read(data_length)
        media: Literal["image", "video"] = "video" if kind == b"v" else "image"
        source = Source(name, media, data) if kind == b"b" else Source(name, media, path=os.fsdecode(data) or None)
        return source, None if math.isnan(fps) else fps

    def _answer(self, source: Source, fps: float | None) -> None:
        self._parent.refused_memory = False
        for step in decode_source(source, fps):
            if step.error is not None:
                if self._parent.refused_memory:
                    raise MemoryError
                kind = _UNDECODABLE if isinstance(step.error, DecodeError) else _UNREADABLE
            else:
                kind = _END if step.ends else _IMAGE if step.frame is None else _FRAME
            self._steps.put((kind, step))
        self._steps.put((_DONE, Decoded(source.name)))

    def _write_steps(self) -> None:
        try:
            while not isinstance(step := self._steps.get(), int):
                self._write(*step)
            os._exit(step)
        finally:
            os._exit(1)

    def _write(self, kind: bytes, step: Decoded) -> None:
        message = text(step.error or step.note)
        height, width = (0, 0) if step.image is None else step.image.shape[:2]
        header = _STEP.pack(kind, height, width, step.frame or 0, step.time, step.skipped, len(message))
        self._parent.write(header + message)
        if step.image is not None:
            self._parent.write(pixels(step.image))


if __name__ == "__main__":
    _Server(int(sys.argv[1])).serve()
