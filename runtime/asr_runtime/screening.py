"""Sources -> records: files are decoded ahead in one thread, cameras read in one each, all scored in the caller's."""

from __future__ import annotations

import contextlib
import functools
import math
import os
import threading
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from dataclasses import replace
from typing import IO, TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.cameras.camera import MAX_AGE, Camera, LiveFailure, LiveFrame
from asr_runtime.cameras.inbox import Inbox
from asr_runtime.claims import Claim
from asr_runtime.contract import ModelCard
from asr_runtime.errors import AsrError, ConfigurationError, DeadlineError, InferenceError
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import Look, LookChoice, choose_looks
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, StateRecord, SummaryRecord
from asr_runtime.redact import redact
from asr_runtime.smoothing import Track
from asr_runtime.sources.expand import Expansion, Source, Unreadable, check_sources
from asr_runtime.sources.live import LiveSource, is_live, live_source
from asr_runtime.sources.remote import RemoteFile, remote_file
from asr_runtime.sources.steps import Decoded, decode_source
from asr_runtime.sources.watch import Watch
from asr_runtime.windows import LookKind, Window

if TYPE_CHECKING:
    from asr_runtime.cameras.streams import Stream
    from asr_runtime.provenance.reader import ClaimReader

__all__ = ["Step", "open_isolated_stream", "open_stream", "screen", "screen_decoded", "screen_with_pictures"]

Step = tuple[Record, NDArray[np.uint8] | None]
"""A record and the picture that it scores, uint8 BGR `(H, W, 3)`; None for records without one."""

_AHEAD = 2  # decoded frames that wait: enough to overlap decoding with inference, and a 4K frame is 25 MB
_POLL = 0.1  # seconds between looks at `stop` and at the health of cameras
_LEAVE = 0.2  # seconds that reading threads get to end; they are daemons and never outlive the process
_OVERRUNS = 3  # inferences in a row that did not end in time, after which there is no use in going on


def open_stream(url: str, fps: float | None = None) -> Stream:
    """Open a live source in this process; see `cameras.streams.open_stream`."""
    from asr_runtime.cameras.streams import open_stream  # the network's modules, which screening files does not need

    return open_stream(url, fps)


def open_isolated_stream(url: str, fps: float | None = None) -> Stream:
    """Open a live source in a separate process; see `isolation.stream.IsolatedStream`."""
    from asr_runtime.isolation.stream import IsolatedStream

    return IsolatedStream(url, fps=fps)


class _FilesEnd:
    """Says that no more comes from files."""


def screen(
    sources: Sequence[str | os.PathLike[str] | LiveSource],
    detector: Detector,
    *,
    fps: float | None = None,
    stop: threading.Event | None = None,
    stdin: IO[bytes] | None = None,
    reconnect: bool = True,
    duration: float | None = None,
    isolate: bool = False,
    look: LookChoice = "auto",
    windows: bool = False,
    claims: ClaimReader | None = None,
    watch: Watch | None = None,
    folders_in_list: bool = False,
) -> Generator[Record, None, None]:
    """Score every image and video frame of the sources, files in order, live sources beside them as frames come.

    Nothing is collected: folders are listed, videos decoded and records given as it goes. Files wait until they are
    scored; of a live source always the newest frame is scored, and what was given up for it is counted as dropped.

    Args:
        sources: image or video file, folder, glob pattern, `-` for standard input (see `sources.expand`), or a live
            source: `rtsp://`, `http://`, a video device, a camera's index, or a `LiveSource`. A URL whose path ends as
            a file's does is fetched once; that of a picture, with `fps` or `duration`, is a camera.
        detector: scores the frames.
        fps: frames to score per second of video; None: all.
        stop: when it is set, the run ends after the current frame, with its summary.
        stdin: unbuffered binary stream for the source `-`; None: the standard input of the process.
        reconnect: try a live source again when it is lost; otherwise it is given up.
        duration: seconds after which the run ends; None: live sources are watched for ever.
        isolate: decode files in a process of its own, and every live source in another, which may crash or hang.
        look: `centre` or `whole` for every picture; `auto`: as the model's card advises, for cameras within the time
            between two frames (`inference.looking.choose_looks`).
        windows: records carry the windows that were looked at.
        claims: reads what files say about themselves for their records; None: records carry no claims.
        watch: folders whose files are screened as they come; the run then ends only when it is stopped.
        folders_in_list: a list of paths on standard input may name folders.

    Returns:
        Generator of one record per image, frame, failure, segment, video and change of a live source's state, then
        exactly one `SummaryRecord`. A damaged video gives its frames and then one error that says it is partial.

    Raises:
        ConfigurationError: at once, before anything is read: no source, an unknown kind of URL, the same live source
            twice, `fps` or `duration` not above 0, a whole look of a model without figures for it.
    """
    steps = screen_with_pictures(
        sources,
        detector,
        fps=fps,
        stop=stop,
        stdin=stdin,
        reconnect=reconnect,
        duration=duration,
        isolate=isolate,
        look=look,
        windows=windows,
        claims=claims,
        watch=watch,
        folders_in_list=folders_in_list,
    )
    return _records(steps)


def screen_with_pictures(
    sources: Sequence[str | os.PathLike[str] | LiveSource],
    detector: Detector,
    *,
    fps: float | None = None,
    stop: threading.Event | None = None,
    stdin: IO[bytes] | None = None,
    reconnect: bool = True,
    duration: float | None = None,
    isolate: bool = False,
    look: LookChoice = "auto",
    windows: bool = False,
    claims: ClaimReader | None = None,
    watch: Watch | None = None,
    folders_in_list: bool = False,
) -> Generator[Step, None, None]:
    """Screen as `screen` does, and give every scored picture with its record.

    Args, errors and order as for `screen`.

    Returns:
        Generator of (record, picture); the picture of an image or frame record is the one that was scored.
    """
    arguments = [source if isinstance(source, LiveSource) else os.fspath(source) for source in sources]
    files, live = _parted(arguments, is_watched=fps is not None or duration is not None)
    if files or watch is None:
        check_sources(files, live)
    for name, value in (("fps", fps), ("duration", duration)):
        if value is not None and not (math.isfinite(value) and value > 0):
            raise ConfigurationError(f"{name} {value}: expected a number above 0")
    looks = choose_looks(detector, detector.card, look, fps, len(live))
    expansion = Expansion(files, stdin, folders_in_list=folders_in_list)
    listing = _Listing(expansion, watch) if files or watch else None
    run = _Run(listing, watch is not None, live, detector, fps, reconnect, isolate, looks, windows, claims)
    return run.steps(stop or threading.Event(), math.inf if duration is None else duration)


def screen_decoded(
    items: Iterable[Decoded], detector: Detector, *, look: LookChoice = "auto", windows: bool = False
) -> Generator[Step, None, None]:
    """Score pictures that were decoded elsewhere, in the caller's thread.

    Args:
        items: steps of one source after another, as `sources.steps.decode_source` gives them.
        detector: scores the pictures.
        look: as for `screen`.
        windows: as for `screen`.

    Returns:
        Generator of records with their pictures as `screen_with_pictures` gives them for files; a summary is the last.
    """
    started = time.perf_counter()
    looks = choose_looks(detector, detector.card, look, None, 0)
    run = _Run(None, False, [], detector, None, reconnect=False, isolate=False, looks=looks, windows=windows)
    for item in items:
        yield from run.take(item)
        if run.is_hopeless:
            break
    yield from run.finish(started)


def _parted(
    arguments: Sequence[str | LiveSource], *, is_watched: bool
) -> tuple[list[str | RemoteFile], list[LiveSource]]:
    """Return what is read from files, and live sources."""
    files: list[str | RemoteFile] = []
    live: list[LiveSource] = []
    for argument in arguments:
        if isinstance(argument, LiveSource):
            live.append(argument)
        elif remote := remote_file(argument, is_watched=is_watched):
            files.append(remote)
        elif is_live(argument):
            live.append(live_source(argument))
        else:
            files.append(argument)
    return files, live


def _records(steps: Generator[Step, None, None]) -> Generator[Record, None, None]:
    with contextlib.closing(steps):
        for record, _ in steps:
            yield record


class _Listing:
    """The files to screen: those of the arguments, then those of watched folders as they come."""

    def __init__(self, expansion: Expansion, watch: Watch | None) -> None:
        self._expansion, self._watch = expansion, watch

    @property
    def ignored(self) -> int:
        return self._expansion.ignored

    def until(self, leave: threading.Event) -> Iterator[Source | Unreadable]:
        """Yield sources until they end, or the event is set."""
        yield from self._expansion
        for path in self._watch.files(leave) if self._watch else ():
            yield from self._expansion.arrived(path)


class _Run:
    """One screening: its threads, its account, what is known of each source."""

    def __init__(
        self,
        listing: _Listing | None,
        watching: bool,
        live: list[LiveSource],
        detector: Detector,
        fps: float | None,
        reconnect: bool,
        isolate: bool,
        looks: dict[str, LookKind],
        windows: bool,
        claims: ClaimReader | None = None,
    ) -> None:
        self._listing, self._watching, self._fps, self._isolate = listing, watching, fps, isolate
        self._looks, self._windows, self._claims = looks, windows, claims
        self._detector = detector
        self._inbox: Inbox[Any] = Inbox(_AHEAD)
        opener = functools.partial(open_isolated_stream if isolate else open_stream, fps=fps)
        self._cameras = [Camera(s, self._inbox, fps=fps, reconnect=reconnect, connect=opener) for s in live]
        self._cameras_left = False
        self._leave = threading.Event()  # ends the threads when the caller stops, and when it just drops this iterator
        self._sources: dict[str, _Source] = {}
        self._told: dict[str, int] = {}  # dropped frames of each live source that its records told of
        self._decoded_frames = self._scored = self._failed = self._skipped = self._overruns = 0

    def steps(self, stop: threading.Event, duration: float) -> Generator[Step, None, None]:
        started = time.perf_counter()
        # Threads keep signals served: Python runs their handlers in the main thread, which cv2 would block.
        decoder = threading.Thread(target=self._decode_ahead, name="asr-decode", daemon=True)
        decoding = self._listing is not None
        if decoding:
            decoder.start()
        for camera in self._cameras:
            camera.start()
        try:
            while not stop.is_set() and time.perf_counter() - started < duration and not self.is_hopeless:
                for camera in self._cameras:
                    camera.watch()
                item = self._inbox.take(_POLL)
                if isinstance(item, _FilesEnd):
                    decoding = False
                elif isinstance(item, BaseException):
                    raise item
                elif item is not None:
                    yield from self.take(item)
                elif not decoding and all(camera.given_up for camera in self._cameras):
                    break
                if not decoding and not self._cameras:
                    break
            self._leave.set()
            self._stop_cameras()
            yield from self._not_taken()
            yield from self.finish(started)
        finally:
            self._leave.set()
            if not self._cameras_left:
                self._stop_cameras()
            if self._listing is not None:
                decoder.join(_LEAVE)

    def _stop_cameras(self) -> None:
        self._cameras_left = True
        for camera in self._cameras:
            camera.leave()
        for camera in self._cameras:
            camera.join(_LEAVE / len(self._cameras))

    def _not_taken(self) -> Iterator[Step]:
        """Account for what cameras gave and nobody took before the end of the run."""
        while (item := self._inbox.take(0)) is not None:
            if isinstance(item, LiveFrame):
                item.camera.drop()
            elif isinstance(item, LiveFailure):
                yield from self.take(item)

    def finish(self, started: float) -> Iterator[Step]:
        """Close what is open and add up the run, which began at `started` of `time.perf_counter`."""
        for name in list(self._sources):
            yield from self._end(name)
        yield self._summary(time.perf_counter() - started), None

    @property
    def is_hopeless(self) -> bool:
        """Whether inference failed to end in time so often that there is no use in going on."""
        return self._overruns >= _OVERRUNS

    def take(self, item: Decoded | LiveFrame | LiveFailure | StateRecord) -> Iterator[Step]:
        """Score, or report, what was decoded or happened next."""
        if isinstance(item, StateRecord):
            if item.state == "lost":
                yield from self._end(item.source)
            yield item, None
        elif isinstance(item, LiveFailure):
            yield self._failure(item.camera.source.name, item.error, item.frame), None
        elif isinstance(item, LiveFrame):
            yield from self._live_frame(item)
        else:
            yield from self._decoded(item)

    def _decoded(self, item: Decoded) -> Iterator[Step]:
        self._skipped += item.skipped
        self._decoded_frames += item.skipped + (item.error is not None or item.image is not None)
        if item.ends:
            yield from self._end(item.source, whole=True, claims=item.claims)
        if item.error is not None:
            yield self._failure(item.source, item.error), None
        elif item.image is not None and item.frame is not None:
            yield from self._frame(item.source, item.image, item.frame, item.time)
        elif item.image is not None:
            yield from self._image(item.source, item.image, item.claims)

    def _image(self, source: str, image: NDArray[np.uint8], claims: tuple[Claim, ...] | None) -> Iterator[Step]:
        try:
            look = self._look(image, self._looks["images"])
        except InferenceError as error:
            yield self._failure(source, InferenceError(f"{source}: {error}"), kind=error), None
            return
        self._scored += 1
        windows = self._shown(look)
        yield ImageRecord(source, look.probability, look.verdict, look.kind, windows, look.reason, claims), image

    def _live_frame(self, item: LiveFrame) -> Iterator[Step]:
        if time.monotonic() - item.received > MAX_AGE:
            item.camera.drop()
            return
        yield from self._frame(item.camera.source.name, item.image, item.frame, item.time, item)

    def _frame(
        self, name: str, image: NDArray[np.uint8], frame: int, seconds: float, live: LiveFrame | None = None
    ) -> Iterator[Step]:
        source = self._sources.get(name)
        repeated = source is not None and source.last is not None and _equal(source.last, image)
        if source is None or not repeated:
            try:
                look = self._look(image, self._looks["videos" if live is None else "cameras"])
            except InferenceError as error:
                if source is not None:
                    source.last = None
                yield self._failure(name, InferenceError(f"{name}: {error}"), frame, kind=error), None
                return
            if source is None:
                source = self._sources[name] = _Source(name, self._detector.card, look.kind)
            source.last, source.look = image, look
        look = source.look
        smoothed, steady, ended = source.track.add(seconds, look.probability, image, look.reason)
        if ended is not None:
            yield ended, None
        age, dropped = None, 0
        if live is not None:
            age = time.monotonic() - live.received
            dropped = live.camera.dropped - self._told.get(name, 0)
            self._told[name] = live.camera.dropped
        record = FrameRecord(
            name,
            frame,
            seconds,
            look.probability,
            look.verdict,
            smoothed,
            steady,
            repeated,
            age=age,
            dropped=dropped,
            look=look.kind,
            windows=self._shown(look),
            reason=look.reason,
        )
        self._scored += 1
        yield record, image

    def _look(self, image: NDArray[np.uint8], kind: LookKind) -> Look:
        try:
            look = self._detector.look(image, kind)
        except DeadlineError:
            self._overruns += 1
            raise
        self._overruns = 0
        return look

    def _shown(self, look: Look) -> tuple[Window, ...]:
        return look.windows if self._windows else ()

    def _failure(
        self, source: str, error: AsrError, frame: int | None = None, *, kind: AsrError | None = None
    ) -> ErrorRecord:
        self._failed += 1
        return ErrorRecord(source, type(kind or error).__name__, redact(" ".join(str(error).split())), frame)

    def _end(self, name: str, *, whole: bool = False, claims: tuple[Claim, ...] | None = None) -> Iterator[Step]:
        """Close a source's segment; of a video that was read to its end, its verdict too."""
        if (source := self._sources.pop(name, None)) is None:
            return
        if (segment := source.track.end()) is not None:
            yield segment, None
        if whole and (video := source.track.video()) is not None:
            yield replace(video, claims=claims), None

    def _summary(self, seconds: float) -> SummaryRecord:
        dropped = sum(camera.dropped + camera.undecided for camera in self._cameras)
        skipped = self._skipped + sum(camera.skipped for camera in self._cameras)
        given_up = sum(camera.given_up for camera in self._cameras)
        return SummaryRecord(
            read=self._decoded_frames + sum(camera.received for camera in self._cameras),
            scored=self._scored,
            failed=self._failed,
            dropped=dropped,
            skipped=skipped,
            ignored=self._listing.ignored if self._listing is not None else 0,
            reconnects=sum(camera.reconnects for camera in self._cameras),
            given_up=given_up + self.is_hopeless,
            seconds=seconds,
            model=self._detector.name,
            sha256=self._detector.sha256,
            provider=self._detector.provider,
            looks=self._looks,
        )

    def _decode_ahead(self) -> None:
        """Fill the inbox until the files end or the run does; a bug in here is raised in the caller."""
        assert self._listing is not None
        try:
            with self._decoder() as decode:
                for source in self._listing.until(self._leave):
                    steps: Iterable[Decoded] = decode(source, self._fps)
                    if self._claims is not None and isinstance(source, Source):
                        steps = self._claims.with_claims(source, steps)
                    for item in steps:
                        if self._watching and item.error is not None and _is_gone(source):
                            break  # moved or deleted while it waited
                        if not self._inbox.put(item, self._leave):
                            return
            self._inbox.put(_FilesEnd(), self._leave)
        except BaseException as error:
            self._inbox.put(error, self._leave)

    @contextlib.contextmanager
    def _decoder(self) -> Iterator[Callable[[Source | Unreadable, float | None], Iterator[Decoded]]]:
        if not self._isolate:
            yield decode_source
            return
        from asr_runtime.isolation.files import IsolatedDecoder

        with contextlib.closing(IsolatedDecoder()) as isolated:
            yield isolated.decode


class _Source:
    """What is known of a video or camera while its frames come; how the first was looked at decides the rules."""

    look: Look  # of the last frame that was scored

    def __init__(self, name: str, card: ModelCard, kind: LookKind) -> None:
        rules = card.whole if kind == "whole" and card.whole is not None else card
        self.track = Track(name, rules.decision, rules.video)
        self.last: NDArray[np.uint8] | None = None  # the picture that `look` belongs to


def _is_gone(source: Source | Unreadable) -> bool:
    return not os.path.lexists(source.name) and remote_file(source.name) is None


def _equal(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> bool:
    """Compare two pictures; those that differ mostly do so in the first rows that are looked at."""
    return one.shape == other.shape and all(np.array_equal(one[i::64], other[i::64]) for i in range(64))
