"""Inferences that end in time: an answer, or an error."""

from __future__ import annotations

import math
import queue
import threading
import weakref
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, DeadlineError
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime

__all__ = ["TimedSession", "check_deadline"]

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
        self._idle: list[queue.SimpleQueue[_Job | None]] = []  # of threads that wait for a job
        self._stuck = False

    def run(self, outputs: list[str], feeds: dict[str, NDArray[np.uint8]], seconds: float) -> list[Any]:
        """Run the session.

        Args:
            outputs: names of the outputs wanted.
            feeds: inputs by name; not to be changed by the caller, who may be back before they are read.
            seconds: in which it answers.

        Returns:
            The outputs.

        Raises:
            DeadlineError: it did not answer in time, or an earlier run never stopped.
            Exception: whatever onnxruntime raises.
        """
        with self._turns:
            if self._stuck:
                raise DeadlineError("an earlier inference never stopped, so no other can run; start the program again")
            try:
                jobs = self._idle.pop()
            except IndexError:
                jobs = self._start()
            job = _Job(self._session, outputs, feeds, self._run_options())
            jobs.put(job)
            try:
                answer = self._wait(job, seconds)
            finally:
                self._idle.append(jobs)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _wait(self, job: _Job, seconds: float) -> list[Any] | Exception:
        try:
            return job.answer.get(timeout=seconds)
        except BaseException as error:  # the time is over, or Ctrl-C: the thread is to be free for the next run
            job.options.terminate = True
            self._stuck = True
            try:
                job.answer.get(timeout=_GRACE)
                self._stuck = False
            except queue.Empty:
                pass
            if isinstance(error, queue.Empty):
                return DeadlineError(f"the model did not answer within {seconds:g} s")
            raise

    def _start(self) -> queue.SimpleQueue[_Job | None]:
        jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        # The thread refers to the queue alone: a reference to this object would keep it alive for ever.
        threading.Thread(target=_serve, args=(jobs,), name="asr-inference", daemon=True).start()
        weakref.finalize(self, jobs.put, None)
        return jobs


@dataclass(slots=True, eq=False)
class _Job:
    session: Any
    outputs: list[str]
    feeds: dict[str, NDArray[np.uint8]]
    options: Any
    answer: queue.SimpleQueue[list[Any] | Exception] = field(default_factory=queue.SimpleQueue)


def _serve(jobs: queue.SimpleQueue[_Job | None]) -> None:
    while (job := jobs.get()) is not None:
        try:
            job.answer.put(job.session.run(job.outputs, job.feeds, job.options))
        except Exception as error:  # onnxruntime's errors have no common root but this one
            job.answer.put(error)
        del job  # with its session and frames, which would stay until the next one
