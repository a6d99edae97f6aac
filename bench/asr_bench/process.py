"""One engine in a separate process: nothing that it loads, or keeps warm, helps or hinders another."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import time
from multiprocessing.connection import Connection, Pipe
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from asr_bench.engines import Task, load
from asr_runtime.errors import AsrError, ConfigurationError

__all__ = ["EngineProcess", "cold_start", "first_score", "serve"]


class EngineProcess:
    """Loads an engine in a new process and asks it to score.

    Args:
        task: what it loads.

    Attributes:
        load_s: seconds from the start of loading, imports included, to the engine being there.

    Raises:
        ConfigurationError: the engine cannot be loaded.
    """

    def __init__(self, task: Task) -> None:
        self.task = task
        self._pipe, theirs = Pipe()
        # Not multiprocessing's own processes: they import what the main program has imported, PyTorch for one.
        self._process = _python("serve(int(sys.argv[2]), task)", task, str(theirs.fileno()), keep=theirs.fileno())
        theirs.close()
        try:
            self.load_s: float = self._answer()
        except BaseException:
            self.close()
            raise

    def score(self, frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the probabilities of one batch."""
        self._pipe.send(("score", frames))
        probability: NDArray[np.float64] = self._answer()
        return probability

    def time(self, frames: NDArray[np.uint8], calls: int) -> tuple[float, ...]:
        """Score the same batch some times; seconds of each call, from frames to probabilities."""
        self._pipe.send(("time", (frames, calls)))
        seconds: tuple[float, ...] = self._answer()
        return seconds

    def peak_bytes(self) -> int:
        """Return the largest resident memory of the process so far."""
        self._pipe.send(("peak", None))
        peak: int = self._answer()
        return peak

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        try:
            self._process.wait(5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            ok, answer = self._pipe.recv()
        except EOFError:
            raise ConfigurationError(f"engine {self.task.engine}: its process died") from None
        if not ok:
            raise ConfigurationError(f"engine {self.task.engine}: {answer}")
        return answer


def cold_start(task: Task, image: str) -> float:
    """Seconds from the start of a new Python process to the first score of an image file.

    Raises:
        ConfigurationError: the engine cannot be loaded.
    """
    started = time.perf_counter()
    process = _python("first_score(task, sys.argv[2])", task, image)
    if process.wait() != 0:
        raise ConfigurationError(f"engine {task.engine}: no first score; time it with --engine for the reason")
    return time.perf_counter() - started


def first_score(task: Task, image: str) -> None:
    """Load, read the image, score it."""
    from asr_runtime import read_image

    load(task)(read_image(image)[None])


def serve(descriptor: int, task: Task) -> None:
    """Load, then answer what comes through the pipe until it is closed."""
    pipe = Connection(descriptor)
    try:
        started = time.perf_counter()
        engine = load(task)
        pipe.send((True, time.perf_counter() - started))
        while True:
            try:
                kind, given = pipe.recv()
            except EOFError:
                return
            if kind == "score":
                pipe.send((True, engine(given)))
            elif kind == "time":
                frames, calls = given
                seconds = []
                for _ in range(calls):
                    begun = time.perf_counter()
                    engine(frames)
                    seconds.append(time.perf_counter() - begun)
                pipe.send((True, tuple(seconds)))
            else:
                pipe.send((True, _peak_bytes()))
    except AsrError as error:
        pipe.send((False, str(error)))
    except Exception as error:  # the message must get out of the process, whatever it is
        pipe.send((False, f"{type(error).__name__}: {error}".splitlines()[0]))


def _peak_bytes() -> int:
    """Largest resident memory of this process. Not ru_maxrss, which begins with that of the process that started it."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    raise ConfigurationError("peak memory: /proc/self/status does not tell it on this system")


def _python(call: str, task: Task, *arguments: str, keep: int | None = None) -> subprocess.Popen[bytes]:
    code = (
        f"import pickle, sys; from asr_bench.process import *; task = pickle.loads(bytes.fromhex(sys.argv[1])); {call}"
    )
    return subprocess.Popen(
        [sys.executable, "-c", code, pickle.dumps(task).hex(), *arguments],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, "OMP_NUM_THREADS": str(task.threads)},
        pass_fds=() if keep is None else (keep,),
    )
