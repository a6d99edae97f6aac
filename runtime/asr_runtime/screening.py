"""Sources -> records: decode ahead in one thread, score in the caller's, account for everything."""

from __future__ import annotations

import math
import os
import queue
import threading
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import IO

import numpy as np
from numpy.typing import NDArray

from asr_runtime.decode import decode_image, read_image
from asr_runtime.detector import Detector
from asr_runtime.errors import AsrError, ConfigurationError, InferenceError, InputError, SourceError
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, SummaryRecord
from asr_runtime.sources import Source, Unreadable, check_sources, expand
from asr_runtime.video import VideoFile

__all__ = ["screen"]

_AHEAD = 2  # decoded frames that wait: enough to overlap decoding with inference, and a 4K frame is 25 MB
_POLL = 0.1  # seconds between looks at `stop`
_LEAVE = 0.2  # seconds the decoding thread gets to end; it is a daemon and never outlives the process


@dataclass(frozen=True, slots=True)
class _Decoded:
    """One step of the decoding thread: an image, a frame, a failure, or only `skipped` frames."""

    source: str
    image: NDArray[np.uint8] | None = None
    frame: int | None = None
    time: float = 0.0
    error: InputError | None = None
    skipped: int = 0


class _Count:
    """The running account behind the summary."""

    def __init__(self) -> None:
        self.scored = self.failed = self.skipped = 0

    def summary(self, detector: Detector, seconds: float) -> SummaryRecord:
        return SummaryRecord(
            read=self.scored + self.failed + self.skipped,
            scored=self.scored,
            failed=self.failed,
            dropped=0,
            skipped=self.skipped,
            reconnects=0,
            seconds=seconds,
            model=detector.name,
            sha256=detector.sha256,
            provider=detector.provider,
        )


def screen(
    sources: Sequence[str | os.PathLike[str]],
    detector: Detector,
    *,
    fps: float | None = None,
    stop: threading.Event | None = None,
    stdin: IO[bytes] | None = None,
) -> Generator[Record, None, None]:
    """Score every image and video frame of the sources, in order.

    Nothing is collected: folders are listed, videos decoded and records given as it goes.

    Args:
        sources: image or video file, folder, glob pattern, `-` for standard input; see `sources.expand`.
        detector: scores the frames.
        fps: frames to score per second of video; None: all.
        stop: when it is set, the run ends after the current frame, with its summary.
        stdin: unbuffered binary stream for the source `-`; None: the standard input of the process.

    Returns:
        Generator of one record per image, frame and failure, then exactly one `SummaryRecord`. A damaged
        video gives its frames and then one error that says it is partial.

    Raises:
        ConfigurationError: at once, before anything is read: no source, a live source, or `fps` not above 0.
    """
    arguments = [os.fspath(source) for source in sources]
    check_sources(arguments)
    if fps is not None and not (math.isfinite(fps) and fps > 0):
        raise ConfigurationError(f"fps {fps}: expected a number above 0")
    return _screen(arguments, detector, fps, stop or threading.Event(), stdin)


def _screen(
    arguments: list[str],
    detector: Detector,
    fps: float | None,
    stop: threading.Event,
    stdin: IO[bytes] | None,
) -> Generator[Record, None, None]:
    started = time.perf_counter()
    count = _Count()
    leave = threading.Event()  # ends the thread when the caller stops, and when it just drops this iterator
    work: queue.Queue[_Decoded | BaseException | None] = queue.Queue(_AHEAD)
    # The thread keeps signals served: Python runs their handlers in the main thread, which cv2 would block.
    thread = threading.Thread(
        target=_decode_ahead, args=(arguments, fps, stdin, work, leave), name="asr-decode", daemon=True
    )
    thread.start()
    try:
        while not stop.is_set():
            try:
                item = work.get(timeout=_POLL)
            except queue.Empty:
                continue
            if item is None:
                break
            if isinstance(item, BaseException):
                raise item
            count.skipped += item.skipped
            if (record := _score(item, detector)) is not None:
                if isinstance(record, ErrorRecord):
                    count.failed += 1
                else:
                    count.scored += 1
                yield record
        yield count.summary(detector, time.perf_counter() - started)
    finally:
        leave.set()
        thread.join(_LEAVE)


def _score(item: _Decoded, detector: Detector) -> ImageRecord | FrameRecord | ErrorRecord | None:
    if item.error is not None:
        return _failure(item.source, item.error)
    if item.image is None:
        return None
    try:
        scores = detector(item.image)
    except InferenceError as error:
        return _failure(item.source, InferenceError(f"{item.source}: {error}"), item.frame)
    probability, verdict = float(scores.probability[0]), scores.verdicts[0]
    if item.frame is None:
        return ImageRecord(item.source, probability, verdict)
    return FrameRecord(item.source, item.frame, item.time, probability, verdict)


def _failure(source: str, error: AsrError, frame: int | None = None) -> ErrorRecord:
    return ErrorRecord(source, type(error).__name__, " ".join(str(error).split()), frame)


def _decode_ahead(
    arguments: list[str],
    fps: float | None,
    stdin: IO[bytes] | None,
    work: queue.Queue[_Decoded | BaseException | None],
    leave: threading.Event,
) -> None:
    """Fill the queue until the sources end or `leave` is set; a bug in here is raised in the caller."""

    def put(item: _Decoded | BaseException | None) -> bool:
        while not leave.is_set():
            try:
                work.put(item, timeout=_POLL)
                return True
            except queue.Full:
                continue
        return False

    try:
        for source in expand(arguments, stdin):
            for item in _decode(source, fps):
                if not put(item):
                    return
        put(None)
    except BaseException as error:
        put(error)


def _decode(source: Source | Unreadable, fps: float | None) -> Iterator[_Decoded]:
    name = source.name
    if isinstance(source, Unreadable):
        yield _Decoded(name, error=source.error)
        return
    try:
        if source.kind == "video":
            yield from _decode_video(name, fps)
        elif source.data is not None:
            yield _Decoded(name, decode_image(source.data, name))
        else:
            yield _Decoded(name, read_image(name))
    except InputError as error:
        yield _Decoded(name, error=error)


def _decode_video(name: str, fps: float | None) -> Iterator[_Decoded]:
    video = VideoFile(name, fps)
    told = scored = 0
    for number, seconds, image in video:
        yield _Decoded(name, image, number, seconds, skipped=video.skipped - told)
        told = video.skipped
        scored += 1
    yield _Decoded(name, skipped=video.skipped - told)
    if damage := video.damage():
        raise SourceError(f"{name}: partial, {scored} frames were scored: {damage}")
