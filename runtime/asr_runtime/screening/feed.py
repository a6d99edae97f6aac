"""Sources -> decoded pictures: one thread decodes files ahead, and one thread per camera reads its newest frame."""

from __future__ import annotations

import contextlib
import functools
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

from asr_runtime.cameras.camera import STALLED_AFTER, Camera, LiveFailure, LiveFrame
from asr_runtime.cameras.inbox import Inbox
from asr_runtime.records import StateRecord
from asr_runtime.screening.parallel import Answer, Decode, Looked, Parallel
from asr_runtime.sources.expand import Expansion, Source, Unreadable
from asr_runtime.sources.live import LiveSource
from asr_runtime.sources.remote import remote_file
from asr_runtime.sources.steps import Decoded, decode_here
from asr_runtime.sources.watch import Watch

if TYPE_CHECKING:
    from asr_runtime.cameras.streams import Stream
    from asr_runtime.provenance.reader import ClaimReader

__all__ = ["CameraCounts", "Feed", "FileFeed", "FileListing", "Item"]

Item = Decoded | Looked | LiveFrame | LiveFailure | StateRecord

_AHEAD = 2  # decoded frames that wait: enough to overlap decoding with inference, and a 4K frame is 25 MB
_POLL = 0.1  # seconds between looks at `stop` and at the health of cameras
_LEAVE = 0.2  # seconds that reading threads get to end; they are daemons and never outlive the process


class FileListing:
    """The files to screen: those that the arguments name, then those that arrive in watched folders."""

    def __init__(self, expansion: Expansion, watch: Watch | None) -> None:
        self._expansion, self._watch = expansion, watch

    @property
    def is_watching(self) -> bool:
        """Whether folders are watched."""
        return self._watch is not None

    @property
    def ignored(self) -> int:
        """Number of files in folders that were left out because they are neither pictures nor videos."""
        return self._expansion.ignored

    def until(self, leave: threading.Event) -> Iterator[Source | Unreadable]:
        """Yield files until there are no more, or the event is set."""
        yield from self._expansion
        for path in self._watch.files(leave) if self._watch else ():
            yield from self._expansion.arrived(path)


@dataclass(frozen=True, slots=True)
class FileFeed:
    """How files are decoded.

    Attributes:
        listing: the files.
        fps: frames wanted per second of video; None: all.
        isolate: decode in a separate process, so that a decoder that crashes or hangs costs one file.
        claims: adds what each file says about itself; None: no claims.
    """

    listing: FileListing
    fps: float | None = None
    isolate: bool = False
    claims: ClaimReader | None = None

    def items(self, leave: threading.Event) -> Generator[Decoded, None, None]:
        """Decode one file after the other, in this thread."""
        with self.decoder() as decode:
            for source in self.listing.until(leave):
                yield from decode(source)

    @contextlib.contextmanager
    def decoder(self) -> Iterator[Decode]:
        """Make what decodes, for one thread."""
        if not self.isolate:
            yield functools.partial(self._steps, decode_here)
            return
        from asr_runtime.isolation.files import IsolatedDecoder

        with contextlib.closing(IsolatedDecoder()) as isolated:
            yield functools.partial(self._steps, isolated.decode)

    def _steps(
        self, decode: Callable[[Source | Unreadable, float | None], Iterator[Decoded]], source: Source | Unreadable
    ) -> Iterator[Decoded]:
        steps = decode(source, self.fps)
        if self.claims is not None and isinstance(source, Source):
            steps = self.claims.with_claims(source, steps)
        for item in steps:
            if self.listing.is_watching and item.error is not None and _is_gone(source):
                return  # moved or deleted while it waited
            yield item


@dataclass(frozen=True, slots=True)
class CameraCounts:
    """What the cameras of a run did so far, added up; the fields are those of `SummaryRecord`."""

    received: int = 0
    dropped: int = 0
    skipped: int = 0
    reconnects: int = 0
    given_up: int = 0


class _FilesEnd:
    """Marks that all files are decoded."""


class Feed:
    """Gives decoded pictures of files and cameras in the order in which they are to be scored.

    As a context manager it starts its threads and ends them.

    Args:
        files: what to decode; None: cameras only.
        stalled_after: as for `Camera`.
        score: scores files in several threads; None: they are only decoded, in one thread.
        live: what to watch.
        connect: opens the URL of a live source.
        fps: frames wanted per second of each camera; None: all.
        reconnect: try a live source again when it is lost; otherwise it is given up.
    """

    def __init__(
        self,
        files: FileFeed | None,
        live: Iterable[LiveSource],
        *,
        connect: Callable[[str], Stream],
        fps: float | None = None,
        reconnect: bool = True,
        stalled_after: float = STALLED_AFTER,
        score: Parallel | None = None,
    ) -> None:
        self._files, self._score = files, score
        self._inbox: Inbox[Any] = Inbox(_AHEAD + (score.jobs if score else 0))
        self._cameras = [
            Camera(s, self._inbox, fps=fps, reconnect=reconnect, connect=connect, stalled_after=stalled_after)
            for s in live
        ]
        self._cameras_left = False
        self._leave = threading.Event()  # ends the threads when the caller stops, and when it just drops its iterator
        # Threads keep signals served: Python runs their handlers in the main thread, which cv2 would block.
        self._decoder = threading.Thread(target=self._decode_ahead, name="asr-decode", daemon=True)

    def __enter__(self) -> Feed:
        if self._files is not None:
            self._decoder.start()
        for camera in self._cameras:
            camera.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.leave()
        if self._files is not None:
            self._decoder.join(_LEAVE)

    def items(self, stop: threading.Event, duration: float) -> Generator[Item, None, None]:
        """Yield what comes next until all files are decoded and all cameras given up.

        Args:
            stop: ends the iteration when it is set.
            duration: seconds after which the iteration ends.
        """
        until = time.perf_counter() + duration
        decoding = self._files is not None
        while not stop.is_set() and time.perf_counter() < until:
            for camera in self._cameras:
                camera.watch()
            item = self._inbox.take(_POLL)
            if isinstance(item, _FilesEnd):
                decoding = False
            elif isinstance(item, BaseException):
                raise item
            elif isinstance(item, queue.SimpleQueue):
                yield from self._answer(item, stop, until)
            elif item is not None:
                yield item
            elif not decoding and all(camera.given_up for camera in self._cameras):
                return
            if not decoding and not self._cameras:
                return

    def _answer(self, answer: Answer, stop: threading.Event, until: float) -> Iterator[Looked]:
        """Wait for a file or frame that is being scored; give nothing if the run is to end before."""
        while not stop.is_set() and (left := until - time.perf_counter()) > 0:
            try:
                looked = answer.get(timeout=min(left, _POLL))
            except queue.Empty:
                for camera in self._cameras:
                    camera.watch()
                continue
            if isinstance(looked, BaseException):
                raise looked
            yield from looked
            return

    def leave(self) -> None:
        """Let the threads end, and wait a moment for those of the cameras."""
        self._leave.set()
        if self._cameras_left:
            return
        self._cameras_left = True
        for camera in self._cameras:
            camera.leave()
        for camera in self._cameras:
            camera.join(_LEAVE / len(self._cameras))

    def failures_left(self) -> Iterator[LiveFailure]:
        """Count frames that nobody took before the end of the run as dropped, and yield failures of cameras."""
        while (item := self._inbox.take(0)) is not None:
            if isinstance(item, LiveFrame):
                item.camera.drop()
            elif isinstance(item, LiveFailure):
                yield item

    def camera_counts(self) -> CameraCounts:
        """Add up what the cameras did so far."""
        return CameraCounts(
            received=sum(camera.received for camera in self._cameras),
            dropped=sum(camera.dropped + camera.undecided for camera in self._cameras),
            skipped=sum(camera.skipped for camera in self._cameras),
            reconnects=sum(camera.reconnects for camera in self._cameras),
            given_up=sum(camera.given_up for camera in self._cameras),
        )

    def _decode_ahead(self) -> None:
        """Fill the inbox until the files end or the run does; a bug in here is raised in the caller."""
        assert self._files is not None
        try:
            items: Generator[Decoded | Answer, None, None]
            if self._score is None:
                items = self._files.items(self._leave)
            else:
                items = self._score.answers(self._files.listing.until(self._leave))
            with contextlib.closing(items):
                for item in items:
                    if not self._inbox.put(item, self._leave):
                        return
            self._inbox.put(_FilesEnd(), self._leave)
        except BaseException as error:
            self._inbox.put(error, self._leave)


def _is_gone(source: Source | Unreadable) -> bool:
    return not os.path.lexists(source.name) and remote_file(source.name) is None
