"""Decoding in a process of its own: a file that crashes, hangs or bloats the decoder costs that file, not the run.

The process reads requests on its standard input and answers with steps on its standard output, each a header of fixed
size, a text and raw pixels. What it answers is checked and never run: a file may have taken it over.
"""

from __future__ import annotations

import contextlib
import math
import os
import queue
import select
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from asr_runtime.decoding import Decoded, decode_source
from asr_runtime.errors import DecodeError, InputError, SourceError
from asr_runtime.sources import Source, Unreadable

__all__ = ["IsolatedDecoder"]

_REQUEST = struct.Struct("<cdIQ")  # kind; fps, NaN for all; bytes of the name; bytes of the data
_STEP = struct.Struct("<cIIQdQI")  # kind; height, width; frame; time; skipped; bytes of the text
_READY, _IMAGE, _FRAME, _END, _UNDECODABLE, _UNREADABLE, _DONE = b"r", b"i", b"f", b"e", b"D", b"S", b"d"
_FOLLOWING = {  # what may come after a step; None: at the beginning
    ("image", None): {_IMAGE, _UNDECODABLE, _UNREADABLE},
    ("image", _IMAGE): {_DONE},
    ("video", None): {_FRAME, _END, _UNREADABLE},
    ("video", _FRAME): {_FRAME, _END, _UNREADABLE},
    ("video", _END): {_UNREADABLE, _DONE},
}
_NONSENSE = "decoding crashed (what it answers makes no sense)"
_LONGEST_TEXT = 1 << 16
_START_SECONDS = 60.0  # of importing OpenCV on a slow card; 0.3 s elsewhere
_PIPE_BYTES = 1 << 18  # fastest: fewer turns than with less, and still in the cache
_OUT_OF_MEMORY = 86  # exit status
_OPEN_FILES = 32
_ENVIRONMENT = (  # what decoding needs; everything else stays here, secrets included
    *("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "LD_LIBRARY_PATH", "SYSTEMROOT"),
    *("OPENCV_IO_MAX_IMAGE_PIXELS", "OPENCV_FFMPEG_LOGLEVEL", "OPENCV_LOG_LEVEL"),
)


class IsolatedDecoder:
    """Decodes source after source in one child process (Linux); a child that dies or hangs is replaced.

    The child starts with the first source, in the working folder of that moment. It writes no file, sees little of
    the environment, and ends with this process.

    Args:
        memory: bytes that the child may take for decoding, on top of the bare process; also the largest picture.
        step_deadline: seconds within which the next picture comes; for each second of video when `fps` is below 1.
    """

    def __init__(self, memory: int = 2 << 30, step_deadline: float = 10.0) -> None:
        self.memory = memory
        self.step_deadline = step_deadline
        self._child: _Child | None = None

    def decode(self, source: Source | Unreadable, fps: float | None) -> Iterator[Decoded]:
        """Decode an image or a video file; finish or close one iteration before the next.

        Args:
            source: what `sources.expand` found.
            fps: frames wanted per second of video; None: all.

        Yields:
            As `decoding.decode_source`. A decoder that crashes, hangs or needs too much memory gives the frames before,
            the end of the video and a `SourceError`.
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
        except _DecoderError as failure:
            self._drop(child)
            if last == _FRAME:
                yield Decoded(source.name, ends=True)
            after = f" after {frames} frames" if frames else ""
            yield Decoded(source.name, error=SourceError(f"{source.name}: {failure}{after}; {failure.advice}"))
        except BaseException:  # left in the middle: the child is still at it
            self._drop(child)
            raise

    def close(self) -> None:
        """End the child; a later `decode` starts another."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def _drop(self, child: _Child | None) -> None:
        if child is self._child:
            self.close()

    def _ready_child(self, source: Source) -> _Child:
        if self._child is None or self._child.is_busy or not self._child.is_alive():
            self.close()
            self._child = _Child(self.memory)
            try:
                self._child.receive(source, {_READY}, _START_SECONDS)
            except BaseException:
                self.close()
                raise
        return self._child

    def _steps(self, child: _Child, source: Source, fps: float | None) -> Iterator[tuple[bytes, Decoded]]:
        # A step of a video spans 1 / fps seconds of it.
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
                    raise _DecoderError(_NONSENSE)
                number, at = step.frame, step.time
            last = kind
            yield kind, step
        raise _DecoderError("decoding was closed", "finish one source before the next")


class _DecoderError(Exception):
    """What became of a child, in words that follow the name of a source."""

    def __init__(self, what: str, advice: str = "the file may be damaged, or made to do this") -> None:
        super().__init__(what)
        self.advice = advice


class _Limit:
    """A time that is running out."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        return max(0.0, self._until - time.monotonic())


class _Child:
    """The parent's end of a decoding process."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self.is_busy = False
        path = os.pathsep.join(entry for entry in sys.path if entry)
        kept = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "asr_runtime.isolate", str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**kept, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,  # Ctrl-C is for the parent, which ends the child
            )
        except OSError as error:
            raise _DecoderError(f"decoding does not start ({error.strerror})", "check the installation") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe, False)
            _widen(pipe)

    def is_alive(self) -> bool:
        return self._process.poll() is None

    def kill(self) -> None:
        self._process.kill()
        with self._process:  # closes the pipes and waits
            pass

    def ask(self, source: Source, fps: float | None, seconds: float) -> None:
        """Send a request; `seconds` without progress are a failure."""
        self.is_busy = True
        name = source.name.encode(errors="surrogatepass")
        data = source.data if source.data is not None else b""
        kind = b"v" if source.kind == "video" else b"p" if source.data is None else b"b"
        for part in (_REQUEST.pack(kind, math.nan if fps is None else fps, len(name), len(data)), name, data):
            left = memoryview(part)
            while left:
                self._wait(self._requests, select.POLLOUT, _Limit(seconds))
                try:
                    left = left[os.write(self._requests, left) :]
                except BrokenPipeError:
                    raise self._ended() from None

    def receive(self, source: Source, allowed: set[bytes], seconds: float) -> tuple[bytes, Decoded]:
        """Wait for the next step, `seconds` at most.

        Raises:
            _DecoderError: there is none, or it is not one of those `allowed`, or not sound.
        """
        limit = _Limit(seconds)
        header = bytearray(_STEP.size)
        self._fill(memoryview(header), limit)
        kind, height, width, number, at, skipped, length = _STEP.unpack(header)
        has_pixels = kind in (_IMAGE, _FRAME)
        is_sound = kind in allowed and (height * width > 0) == has_pixels and height * width * 3 <= self._memory
        if not (is_sound and length <= _LONGEST_TEXT and math.isfinite(at) and at >= 0):
            raise _DecoderError(_NONSENSE)
        text = bytearray(length)
        self._fill(memoryview(text), limit)
        image = None
        if has_pixels:
            image = np.empty((height, width, 3), np.uint8)
            self._fill(image.data.cast("B"), limit)
        error: InputError | None = None
        if kind in (_UNDECODABLE, _UNREADABLE):
            error = (DecodeError if kind == _UNDECODABLE else SourceError)(text.decode(errors="surrogateescape"))
        frame = number if kind == _FRAME else None
        return kind, Decoded(source.name, image, frame, at, error, skipped, ends=kind == _END)

    def _fill(self, left: memoryview, limit: _Limit) -> None:
        while left:
            self._wait(self._answers, select.POLLIN, limit)
            count = os.readv(self._answers, [left])
            if count == 0:
                raise self._ended()
            left = left[count:]

    def _wait(self, pipe: int, event: int, limit: _Limit) -> None:
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(limit.left() * 1000):
            raise _DecoderError(f"no frame within {limit.seconds:g} s of decoding")

    def _ended(self) -> _DecoderError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.poll()
        if status == _OUT_OF_MEMORY:
            return _DecoderError(f"decoding takes more than {self._memory >> 20} MiB of memory", "scale it down")
        reason = "it hung up" if status is None else f"exit status {status}" if status >= 0 else f"signal {-status}"
        return _DecoderError(f"decoding crashed ({reason})")


def _widen(pipe: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # the user's share of pipes is used up
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class _Server:
    """The child's end: decodes what is asked for, two frames ahead of the one that the parent has."""

    def __init__(self, memory: int) -> None:
        self._memory = memory
        self._requests = open(0, "rb", closefd=False)  # noqa: SIM115 (to the end of the process)
        self._answers = os.dup(1)
        os.dup2(2, 1)  # a library that prints would break into the answers
        self._steps: queue.Queue[tuple[bytes, Decoded] | int] = queue.Queue(maxsize=1)
        self._ran_out = False

    def serve(self) -> None:
        """Answer requests until the parent ends."""
        self._limit()
        threads = [threading.Thread(target=target, daemon=True) for target in (self._write_steps, _end_with_parent)]
        for thread in threads:
            thread.start()
        try:
            self._steps.put((_READY, Decoded("")))
            while True:
                self._answer(*self._read())
        except MemoryError:
            self._steps.put(_OUT_OF_MEMORY)
        except Exception:  # whatever a file brings a library to raise: the status says it, after the frames before it
            self._steps.put(_OUT_OF_MEMORY if self._ran_out else 1)
        threads[0].join()  # what was decoded before is still to be written; then it ends the process

    def _limit(self) -> None:
        import resource

        for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(ignored, signal.SIG_IGN)
        bare = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        for limit, value in (
            (resource.RLIMIT_CORE, 0),
            (resource.RLIMIT_FSIZE, 0),
            (resource.RLIMIT_NOFILE, _OPEN_FILES),
            (resource.RLIMIT_AS, bare + self._memory),
        ):
            hard = resource.getrlimit(limit)[1]
            value = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(limit, (value, value))
        # "Not a complete image" is what a picture without room looks like, unless one listens.
        cv2.redirectError(self._note)

    def _note(self, status: int, *_: object) -> None:
        self._ran_out |= status == cv2.Error.STS_NO_MEM

    def _read(self) -> tuple[Source, float | None]:
        kind, fps, name_length, data_length = _REQUEST.unpack(self._requests.read(_REQUEST.size))
        name = self._requests.read(name_length).decode(errors="surrogatepass")
        data = self._requests.read(data_length)
        source = Source(name, "video" if kind == b"v" else "image", data if kind == b"b" else None)
        return source, None if math.isnan(fps) else fps

    def _answer(self, source: Source, fps: float | None) -> None:
        self._ran_out = False
        for step in decode_source(source, fps):
            if step.error is not None:
                if self._ran_out:
                    raise MemoryError
                kind = _UNDECODABLE if isinstance(step.error, DecodeError) else _UNREADABLE
            else:
                kind = _END if step.ends else _IMAGE if step.frame is None else _FRAME
            self._steps.put((kind, step))
        self._steps.put((_DONE, Decoded(source.name)))

    def _write_steps(self) -> None:
        try:
            while not isinstance(step := self._steps.get(), int):
                for part in _packed(*step):
                    self._write(part)
            os._exit(step)
        finally:
            os._exit(1)

    def _write(self, part: bytes | memoryview) -> None:
        left = memoryview(part)
        while left:
            left = left[os.write(self._answers, left) :]


def _packed(kind: bytes, step: Decoded) -> Iterator[bytes | memoryview]:
    text = str(step.error or "").encode(errors="surrogateescape")[:_LONGEST_TEXT]
    height, width = (0, 0) if step.image is None else step.image.shape[:2]
    yield _STEP.pack(kind, height, width, step.frame or 0, step.time, step.skipped, len(text)) + text
    if step.image is not None:
        yield np.ascontiguousarray(step.image).data.cast("B")


def _end_with_parent() -> None:
    """Wait until no one holds the other end of standard input: the parent is gone, however it ended."""
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(0)


if __name__ == "__main__":
    _Server(int(sys.argv[1])).serve()
