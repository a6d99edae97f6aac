"""Uploads -> records: some workers, each with its own decoding process and model, and a bounded queue."""

from __future__ import annotations

import asyncio
import contextlib
import math
import queue
import threading
import time
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from asr_runtime.errors import ConfigurationError, DeadlineError, InferenceError, SourceError
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import LookChoice, check_windows, chosen_look
from asr_runtime.isolation.files import IsolatedDecoder
from asr_runtime.provenance.reader import ClaimReader
from asr_runtime.records import ErrorRecord, ImageRecord, Record
from asr_runtime.screening.screen import screen_decoded
from asr_runtime.serve.limits import Limits, RefusedError
from asr_runtime.serve.uploads import Upload, close_all
from asr_runtime.sources.expand import Source
from asr_runtime.sources.steps import Decoded
from asr_runtime.windows import Window

__all__ = ["Job", "MapRecord", "Screener", "Wishes"]


@dataclass(frozen=True, slots=True)
class Wishes:
    """The options of a request.

    Attributes:
        fps: frames to score per second of video; None: all.
        look: as for `screening.screen`.
        windows: as for `screening.screen`.
        map_windows: largest number of windows of the map of each image; None: no maps.
        claims: records carry what the file says about itself.
    """

    fps: float | None = None
    look: LookChoice = "auto"
    windows: bool = False
    map_windows: int | None = None
    claims: bool = False


@dataclass(frozen=True, slots=True)
class MapRecord:
    """The evidence map of an image: the probability of windows all over it. It follows the record of the image.

    Attributes:
        source: of the image.
        height: of the image, in pixels.
        width: of the image, in pixels.
        windows: that cover the image evenly, with the probability of each.
    """

    source: str
    height: int
    width: int
    windows: tuple[Window, ...]

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the record."""
        windows = [window.to_dict() for window in self.windows]
        return {"type": "map", "source": self.source, "height": self.height, "width": self.width, "windows": windows}


class Screener:
    """Screens uploads in threads; used from one event loop.

    Args:
        make_detector: makes the model of one worker.
        limits: of the server.
        make_reader: makes the reader of claims of one worker; None: no claims are read.

    Attributes:
        detector: the first worker's, for its card and name.
        open_jobs: requests that wait or are being screened.
    """

    def __init__(
        self,
        make_detector: Callable[[], Detector],
        limits: Limits,
        make_reader: Callable[[], ClaimReader] | None = None,
    ) -> None:
        self.limits = limits
        self.open_jobs = 0
        self._make_detector, self._make_reader = make_detector, make_reader
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._ready: set[str] = set()
        self._mean_seconds = 0.1
        detectors = [make_detector() for _ in range(limits.workers)]
        self.detector = detectors[0]
        self._threads = [
            threading.Thread(target=self._work, args=(detector,), name=f"asr-worker-{i}", daemon=True)
            for i, detector in enumerate(detectors)
        ]

    @property
    def reads_claims(self) -> bool:
        """Whether records can carry claims."""
        return self._make_reader is not None

    @property
    def ready_workers(self) -> int:
        """How many workers have decoded and scored a picture."""
        return len(self._ready)

    def start(self) -> None:
        """Start the workers."""
        for thread in self._threads:
            thread.start()

    def close(self, seconds: float = 2.0) -> None:
        """End the workers and their decoding processes; wait `seconds` at most."""
        for _ in self._threads:
            self._jobs.put(None)
        until = time.monotonic() + seconds
        for thread in self._threads:
            thread.join(max(0.0, until - time.monotonic()))

    def check_room(self) -> None:
        """Raise `RefusedError` if the queue is full."""
        if self.open_jobs >= self.limits.workers + self.limits.waiting:
            seconds = math.ceil(self._mean_seconds * self.limits.waiting / self.limits.workers)
            raise RefusedError(429, "all workers are busy and the queue is full; try again later", max(1, seconds))

    def submit(self, uploads: Sequence[Upload], wishes: Wishes) -> Job:
        """Have files screened, in order.

        Args:
            uploads: complete files; they are closed when no worker reads them any more.
            wishes: what the client asks for.

        Raises:
            RefusedError: the queue is full.
            ConfigurationError: the model cannot do what was asked for.
        """
        try:
            self.check_room()
            chosen_look(self.detector.card, wishes.look)
            if wishes.windows or wishes.map_windows is not None:
                check_windows(self.detector.card)
            if wishes.claims and not self.reads_claims:
                raise ConfigurationError(
                    "claims: this server does not read them; pip install 'asrnet-edge[provenance]'"
                )
        except (RefusedError, ConfigurationError):
            close_all(uploads)
            raise
        self.open_jobs += 1
        job = Job(uploads, wishes, self._forget)
        self._jobs.put(job)
        return job

    def _forget(self) -> None:
        self.open_jobs -= 1

    def _work(self, detector: Detector) -> None:
        """Run one worker."""
        with contextlib.ExitStack() as stack:
            decoder = stack.enter_context(
                contextlib.closing(IsolatedDecoder(self.limits.memory, pixels=self.limits.pixels))
            )
            reader = self._make_reader and stack.enter_context(contextlib.closing(self._make_reader()))
            probe = Source("self-check", "image", cv2.imencode(".png", np.zeros((64, 64, 3), np.uint8))[1].tobytes())
            for record in screen_decoded(decoder.decode(probe, None), detector):
                if isinstance(record, ImageRecord):
                    self._ready.add(threading.current_thread().name)
            while (job := self._jobs.get()) is not None:
                started = time.monotonic()
                is_stuck = False
                try:
                    is_stuck = self._run(job, decoder, reader, detector)
                except BaseException as error:  # a bug, which is the request's answer and not the worker's end
                    job.put(error)
                job.end()
                self._mean_seconds += 0.1 * (time.monotonic() - started - self._mean_seconds)
                if is_stuck:  # the model's thread may never come back
                    detector = self._make_detector()

    def _run(self, job: Job, decoder: IsolatedDecoder, reader: ClaimReader | None, detector: Detector) -> bool:
        """Screen one request; returns whether an inference did not end in time."""
        is_stuck = False
        wishes = job.wishes
        items = self._decoded(job, decoder, reader)
        records = screen_decoded(items, detector, look=wishes.look, windows=wishes.windows)
        for record, picture in records.with_pictures():
            is_stuck |= isinstance(record, ErrorRecord) and record.kind == DeadlineError.__name__
            job.put(record)
            if wishes.map_windows is not None and isinstance(record, ImageRecord) and picture is not None:
                try:
                    windows = detector.map(picture, wishes.map_windows)
                except InferenceError as error:
                    is_stuck |= isinstance(error, DeadlineError)
                    continue  # the score stands without its map
                height, width = picture.shape[:2]
                job.put(MapRecord(record.source, height, width, windows))
        return is_stuck

    def _decoded(
        self, job: Job, decoder: IsolatedDecoder, reader: ClaimReader | None
    ) -> Generator[Decoded, None, None]:
        """Decode the files of a request until it is left or its time is over."""
        until = time.monotonic() + self.limits.seconds
        limit = f"the time limit of {self.limits.seconds:g} s per request"
        for source in job.sources:
            if job.stop.is_set():
                return
            if time.monotonic() > until:
                yield Decoded(source.name, error=SourceError(f"{source.name}: not looked at: {limit} was reached"))
                continue
            with contextlib.closing(decoder.decode(source, job.wishes.fps)) as steps:
                for step in reader.with_claims(source, steps) if reader and job.wishes.claims else steps:
                    yield step
                    if job.stop.is_set():
                        return
                    if step.frame is not None and time.monotonic() > until:
                        reason = f"partial, only the first {step.time:.1f} s were scored: {limit} was reached"
                        yield Decoded(source.name, ends=True)
                        yield Decoded(source.name, error=SourceError(f"{source.name}: {reason}; ask for a lower fps"))
                        break


class Job:
    """One request: its files, and the way back to the event loop.

    The queue of records has no limit: the time for one request bounds it, and a client that reads slowly must not
    hold up a worker.

    Args:
        uploads: the files.
        wishes: what the client asks for.
        on_end: called in the event loop when the files are closed.

    Attributes:
        sources: the files as something to decode.
        stop: set when the client has left.
    """

    def __init__(self, uploads: Sequence[Upload], wishes: Wishes, on_end: Callable[[], None]) -> None:
        self.sources = [upload.source for upload in uploads]
        self.wishes = wishes
        self.stop = threading.Event()
        self._records: asyncio.Queue[Record | MapRecord | BaseException | None] = asyncio.Queue()
        self._uploads, self._on_end = uploads, on_end
        self._loop = asyncio.get_running_loop()

    async def records(self) -> AsyncGenerator[Record | MapRecord, None]:
        """Yield records as `screening.screen` gives them; leaving the iteration ends the work."""
        try:
            while (record := await self._records.get()) is not None:
                if isinstance(record, BaseException):
                    raise record
                yield record
        finally:
            self.stop.set()

    def put(self, record: Record | MapRecord | BaseException) -> None:
        """Hand over a record, or an exception; from any thread."""
        with contextlib.suppress(RuntimeError):  # the event loop has ended
            self._loop.call_soon_threadsafe(self._records.put_nowait, record)

    def end(self) -> None:
        """Say that the worker is done with the job: only now may its files be closed."""
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._close)

    def _close(self) -> None:
        self._records.put_nowait(None)
        close_all(self._uploads)
        self._on_end()
