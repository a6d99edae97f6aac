"""A child process that decodes, and both ends of the pipes to it.

    ChildProcess     used by the parent: starts the child, sends requests, reads answers
    ParentProcess    used by the child: reads requests, sends answers

A file may make the child crash or hang, or take it over. So the child gives up every right that decoding does not need,
and the parent waits for each answer within a time limit.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

__all__ = [
    "OUT_OF_MEMORY",
    "START_SECONDS",
    "ChildError",
    "ChildProcess",
    "Limit",
    "ParentProcess",
    "malformed_answer",
    "pixels",
    "text",
]

START_SECONDS = 60.0
"""Time until a child is ready. It imports OpenCV, which takes 0.3 s on a PC and far longer from a slow SD card."""
OUT_OF_MEMORY = 86
"""Exit status of a child that ran out of its memory limit."""

_PIPE_BYTES = 1 << 18  # fastest: fewer turns than with less, and still in the cache
_LONGEST_TEXT = 1 << 16
_ENVIRONMENT = (  # what decoding needs; the child gets nothing else, so no secrets
    *("LANG", "LC_ALL", "LC_CTYPE", "PYTHONUTF8", "LD_LIBRARY_PATH", "SYSTEMROOT", "SSL_CERT_FILE", "SSL_CERT_DIR"),
    *("OPENCV_IO_MAX_IMAGE_PIXELS", "OPENCV_FFMPEG_LOGLEVEL", "OPENCV_LOG_LEVEL"),
)


class ChildError(Exception):
    """A child process failed. The message follows the name of a source; `advice` says what the user can do."""

    def __init__(self, what: str, advice: str = "") -> None:
        super().__init__(what)
        self.advice = advice


def malformed_answer() -> ChildError:
    """Return the error for a malformed answer."""
    return ChildError("decoding crashed (its answer is malformed)")


class Limit:
    """A time limit that starts now."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self._until = time.monotonic() + seconds

    def left(self) -> float:
        """Return the seconds that are left, 0 after the end."""
        return max(0.0, self._until - time.monotonic())


class ChildProcess:
    """The child process, as its parent uses it (Linux).

    The child writes no file, sees little of the environment, and ends when this process ends.

    Args:
        module: module that the child runs, with `memory` as its argument; it makes a `ParentProcess` first.
        memory: bytes that the child may take on top of the bare process.
        environment: variables that the child gets beside those that decoding needs.

    Raises:
        ChildError: from every method, when the child ended, did not answer in time, or was killed before.
    """

    def __init__(self, module: str, memory: int, environment: Mapping[str, str] | None = None) -> None:
        self._memory = memory
        path = os.pathsep.join(entry for entry in sys.path if entry)
        variables = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ} | dict(environment or {})
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", module, str(memory)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                bufsize=0,
                env={**variables, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1", "MALLOC_ARENA_MAX": "2"},
                start_new_session=True,  # so that Ctrl-C reaches the parent only; the parent ends the child
            )
        except OSError as error:
            raise ChildError(f"decoding does not start ({error.strerror})", "check the installation") from None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._requests, self._answers = self._process.stdin.fileno(), self._process.stdout.fileno()
        self._is_killed = False
        for pipe in (self._requests, self._answers):
            os.set_blocking(pipe, False)
            _widen(pipe)

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self._process.poll() is None

    def kill(self) -> None:
        """End the process at once."""
        self._is_killed = True
        self._process.kill()
        with self._process:  # closes the pipes and waits
            pass

    def end(self, seconds: float) -> None:
        """Wait `seconds` for the process to end by itself, then kill it."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        self.kill()

    def write(self, part: bytes, seconds: float) -> None:
        """Send a part of a request. It fails after `seconds` without progress."""
        left = memoryview(part)
        while left:
            self._wait(self._requests, select.POLLOUT, Limit(seconds))
            try:
                left = left[os.write(self._requests, left) :]
            except BrokenPipeError:
                raise self._ended() from None

    def read(self, count: int, limit: Limit) -> bytearray:
        """Receive exactly `count` bytes."""
        data = bytearray(count)
        self._fill(memoryview(data), limit)
        return data

    def read_text(self, length: int, limit: Limit) -> str:
        """Receive a text of `length` bytes. Bytes of file names that are no UTF-8 are decoded as `os.fsdecode` does."""
        if length > _LONGEST_TEXT:
            raise malformed_answer()
        return self.read(length, limit).decode(errors="surrogateescape")

    def read_picture(self, height: int, width: int, limit: Limit) -> NDArray[np.uint8]:
        """Receive a picture, uint8 `(height, width, 3)`, whose size the caller has checked."""
        image = np.empty((height, width, 3), np.uint8)
        self._fill(image.data.cast("B"), limit)
        return image

    def _fill(self, left: memoryview, limit: Limit) -> None:
        while left:
            self._wait(self._answers, select.POLLIN, limit)
            count = os.readv(self._answers, [left])
            if count == 0:
                raise self._ended()
            left = left[count:]

    def _wait(self, pipe: int, event: int, limit: Limit) -> None:
        if self._is_killed:  # the descriptor may belong to another file by now
            raise ChildError("decoding was closed")
        poll = select.poll()
        poll.register(pipe, event)
        if not poll.poll(limit.left() * 1000):
            raise ChildError(f"no frame within {limit.seconds:g} s of decoding")

    def _ended(self) -> ChildError:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(1.0)
        status = self._process.poll()
        if status == OUT_OF_MEMORY:
            return ChildError(f"decoding takes more than {self._memory >> 20} MiB of memory", "scale it down")
        reason = "it hung up" if status is None else f"exit status {status}" if status >= 0 else f"signal {-status}"
        return ChildError(f"decoding crashed ({reason})")


def _widen(pipe: int) -> None:
    import fcntl

    with contextlib.suppress(OSError):  # the user has no more room for larger pipes
        fcntl.fcntl(pipe, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)


class ParentProcess:
    """The parent process, as its child uses it.

    Making one limits the memory and files of this process for good. The process ends with its parent.

    Args:
        memory: bytes that this process may take from now on.
        open_files: largest number of open files.

    Attributes:
        refused_memory: whether OpenCV ran out of memory since this was last set to False.
    """

    def __init__(self, memory: int, open_files: int) -> None:
        self.refused_memory = False
        self._requests = open(0, "rb", closefd=False)  # noqa: SIM115 (to the end of the process)
        self._answers = os.dup(1)
        os.dup2(2, 1)  # a library that prints would break into the answers
        _limit(memory, open_files)
        # Without this, a picture for which there is no memory looks like an incomplete one.
        cv2.redirectError(self._note)
        threading.Thread(target=_end_with_parent, daemon=True).start()

    def read(self, count: int) -> bytes:
        """Wait for `count` bytes of a request. Raises `EOFError` if the parent is gone."""
        data = self._requests.read(count)
        if len(data) < count:
            raise EOFError
        return data

    def write(self, part: bytes | memoryview) -> None:
        """Send a part of an answer."""
        left = memoryview(part)
        while left:
            left = left[os.write(self._answers, left) :]

    def _note(self, status: int, *_: object) -> None:
        self.refused_memory |= status == cv2.Error.STS_NO_MEM


def text(error: object) -> bytes:
    """Return the message of an error as `ChildProcess.read_text` takes it; nothing for None."""
    return str(error or "").encode(errors="surrogateescape")[:_LONGEST_TEXT]


def pixels(image: NDArray[np.uint8]) -> memoryview:
    """Return the bytes of a picture as `ChildProcess.read_picture` takes them."""
    return np.ascontiguousarray(image).data.cast("B")


def _limit(memory: int, open_files: int) -> None:
    import resource

    for ignored in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(ignored, signal.SIG_IGN)
    bare = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    for limit, value in (
        (resource.RLIMIT_CORE, 0),
        (resource.RLIMIT_FSIZE, 0),
        (resource.RLIMIT_NOFILE, open_files),
        (resource.RLIMIT_AS, bare + memory),
    ):
        hard = resource.getrlimit(limit)[1]
        value = value if hard == resource.RLIM_INFINITY else min(value, hard)
        resource.setrlimit(limit, (value, value))


def _end_with_parent() -> None:
    """End this process when the parent is gone: nobody has the other end of standard input open any more."""
    poll = select.poll()
    poll.register(0, 0)
    poll.poll()
    os._exit(0)
