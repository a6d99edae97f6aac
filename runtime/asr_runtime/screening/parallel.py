"""Files -> decoded and scored pictures on several cores, in the order of the files.

Threads are enough: OpenCV and onnxruntime release Python's lock while they work, and one copy of the model serves all
threads. Images are decoded and scored side by side. A video is decoded in one thread, and its frames are scored side
by side.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import InferenceError
from asr_runtime.inference.looking import Look
from asr_runtime.sources.expand import Source, Unreadable
from asr_runtime.sources.steps import Decoded

__all__ = ["Answer", "Decode", "Known", "Looked", "Parallel", "equal"]

Known = Look | InferenceError | None
"""The look at a picture, or the error of a failed look; None: not scored yet."""

Decode = Callable[[Source | Unreadable], Iterator[Decoded]]
"""Gives the steps of one source."""


@dataclass(frozen=True, slots=True)
class Looked:
    """A step of a source, and the look at its picture."""

    item: Decoded
    look: Known


Answer = queue.SimpleQueue[list[Looked] | BaseException]
"""Gets one entry: the steps of a file, or one step; or the error of a bug, to be raised."""


@dataclass(frozen=True, slots=True)
class Parallel:
    """Decodes and scores in several threads.

    Attributes:
        jobs: threads, at least 2.
        look: scores a picture, an image or a frame of a video; called in several threads.
        decoder: makes what decodes; each thread has its own.
    """

    jobs: int
    look: Callable[[NDArray[np.uint8], Literal["images", "videos"]], Look]
    decoder: Callable[[], AbstractContextManager[Decode]]

    def answers(self, sources: Iterator[Source | Unreadable]) -> Generator[Answer, None, None]:
        """Begin source after source and yield where the steps of each will be, in the order of the sources.

        Nothing further is begun until the next one is asked for, so the caller limits how many pictures are in memory.
        """
        with _Workers(self.jobs, self.decoder) as workers, self.decoder() as decode:
            for source in sources:
                # A file that is not where its name says may be gone when the next source is asked for.
                if isinstance(source, Source) and source.kind == "image" and source.path is None:
                    yield workers.start(partial(self._image, source))
                else:
                    yield from self._each_step(decode(source), workers)

    def _each_step(self, steps: Iterator[Decoded], workers: _Workers) -> Iterator[Answer]:
        """Decode in this thread; a frame that equals the one before is not scored again."""
        last: NDArray[np.uint8] | None = None
        for item in steps:
            if item.image is None or (last is not None and equal(last, item.image)):
                answer: Answer = queue.SimpleQueue()
                answer.put([Looked(item, None)])
                yield answer
            else:
                yield workers.start(partial(self._looked, item))
            last = item.image

    def _image(self, source: Source, decode: Decode) -> list[Looked]:
        return [looked for item in decode(source) for looked in self._looked(item, decode)]

    def _looked(self, item: Decoded, _: Decode) -> list[Looked]:
        if item.image is None:
            return [Looked(item, None)]
        try:
            return [Looked(item, self.look(item.image, "images" if item.frame is None else "videos"))]
        except InferenceError as error:
            return [Looked(item, error)]


_Run = Callable[[Decode], list[Looked]]


class _Workers:
    """Threads that run tasks. They are daemons: one that hangs in a decoder does not outlive the process."""

    def __init__(self, count: int, decoder: Callable[[], AbstractContextManager[Decode]]) -> None:
        self._decoder = decoder
        self._tasks: queue.SimpleQueue[tuple[_Run, Answer] | None] = queue.SimpleQueue()
        self._left = threading.Event()
        self._threads = [
            threading.Thread(target=self._work, name=f"asr-job-{number}", daemon=True) for number in range(count)
        ]

    def __enter__(self) -> _Workers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if kind is not None:
            self._left.set()  # what has not begun is not needed any more
        for _ in self._threads:
            self._tasks.put(None)

    def start(self, run: _Run) -> Answer:
        """Run a task as soon as a thread is free."""
        answer: Answer = queue.SimpleQueue()
        self._tasks.put((run, answer))
        return answer

    def _work(self) -> None:
        with self._decoder() as decode:
            while (task := self._tasks.get()) is not None and not self._left.is_set():
                run, answer = task
                try:
                    answer.put(run(decode))
                except BaseException as error:
                    answer.put(error)
                del task, run, answer  # with their picture, which would stay until the next one


def equal(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Compare two pictures; those that differ mostly do so in the first rows that are looked at."""
    return one.shape == other.shape and all(np.array_equal(one[i::64], other[i::64]) for i in range(64))
