"""Inferences that end in time: an answer, or an error."""

from __future__ import annotations

import math
import queue
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, DeadlineError
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime

__all__ = ["Run", "TimedSession", "check_deadline"]

T = TypeVar("T")
Run = Callable[[list[str], "dict[str, NDArray[np.uint8]]"], list[Any]]
"""Runs a session once: names of the outputs wanted, inputs by name -> the outputs."""

_GRACE = 1.0  # seconds in which a run that was cancelled ends; onnxruntime checks between two operators


def check_deadline(deadline: float | None) -> None:
    """Refuse a deadline that cannot be enforced.

    Raises:
        ConfigurationError: it is not a number of seconds above 0.
    """
    if deadline is not None and not (math.isfinite(deadline) and deadline > 0):
        raise ConfigurationError(f"deadline {deadline}: expected seconds above 0")


class TimedSession:
    """Runs a session in separate threads, which the caller leaves when the time is over.

    Calls from more threads than `calls` take turns. Threads start when they are needed and end with this object.

    Args:
        session: `onnxruntime.InferenceSession`.
        calls: how many run side by side, at least 1.
    """

    def __init__(self, session: Any, calls: int = 1) -> None:
        self._session = session
        self._run_options = import_onnxruntime().RunOptions
        self._turns = threading.Semaphore(calls)
        self._idle: list[queue.SimpleQueue[_Job[Any] | None]] = []  # of threads that wait for a job
        self._stuck = False

    def call(self, work: Callable[[Run], T], seconds: float) -> T:
        """Do work that runs the session, once or several times, in one turn.

        Handing work from thread to thread takes time, so all that belongs together goes over at once.

        Args:
            work: is given `run`, of which each call is an inference. The caller may be back before its inputs are read,
                and is not to change them.
            seconds: in which each inference answers, with what the work does up to the next one.

        Returns:
            What the work returns.

        Raises:
            DeadlineError: an inference did not answer in time, or an earlier one never stopped.
            Exception: whatever the work raises.
        """
        with self._turns:
            if self._stuck:
                raise DeadlineError("an earlier inference never stopped, so no other can run; start the program again")
            try:
                jobs = self._idle.pop()
            except IndexError:
                jobs = self._start()
            job = _Job(self._session.run, work, self._run_options())
            jobs.put(job)
            try:
                answer = self._wait(job, seconds)
            finally:
                self._idle.append(jobs)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _wait(self, job: _Job[T], seconds: float) -> T | Exception:
        try:
            while True:
                left = job.began + seconds - time.monotonic()
                try:
                    return job.answer.get(timeout=max(left, 0.0))
                except queue.Empty:
                    if time.monotonic() >= job.began + seconds:  # else another inference has begun
                        raise
        except BaseException as error:  # the time is over, or Ctrl-C: the thread is to be free for the next work
            job.options.terminate = True
            self._stuck = True
            try:
                job.answer.get(timeout=_GRACE)
                self._stuck = False
            except queue.Empty:
                pass
            if isinstance(error, queue.Empty):
                raise DeadlineError(f"the model did not answer within {seconds:g} s") from None
            raise

    def _start(self) -> queue.SimpleQueue[_Job[Any] | None]:
        jobs: queue.SimpleQueue[_Job[Any] | None] = queue.SimpleQueue()
        # The thread refers to the queue alone: a reference to this object would keep it alive for ever.
        threading.Thread(target=_serve, args=(jobs,), name="asr-inference", daemon=True).start()
        weakref.finalize(self, jobs.put, None)
        return jobs


@dataclass(slots=True, eq=False)
class _Job(Generic[T]):
    session_run: Callable[..., list[Any]]
    work: Callable[[Run], T]
    options: Any
    answer: queue.SimpleQueue[T | Exception] = field(default_factory=queue.SimpleQueue)
    began: float = field(default_factory=time.monotonic)  # when the newest inference did

    def do(self) -> None:
        try:
            self.answer.put(self.work(self.run))
        except Exception as error:  # onnxruntime's errors have no common root but this one
            self.answer.put(error)

    def run(self, outputs: list[str], feeds: dict[str, NDArray[np.uint8]]) -> list[Any]:
        self.began = time.monotonic()
        return self.session_run(outputs, feeds, self.options)


def _serve(jobs: queue.SimpleQueue[_Job[Any] | None]) -> None:
    while (job := jobs.get()) is not None:
        job.do()
        del job  # with its session and frames, which would stay until the next one
