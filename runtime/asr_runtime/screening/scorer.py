"""Decoded pictures -> records: scores each picture, gives its verdict, combines frames over time, and counts."""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from asr_runtime.cameras.camera import MAX_AGE, LiveFailure, LiveFrame
from asr_runtime.claims import Claim
from asr_runtime.contract import ModelCard
from asr_runtime.errors import AsrError, DeadlineError, InferenceError
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.looking import Look
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, StateRecord, SummaryRecord
from asr_runtime.redact import redact
from asr_runtime.screening.feed import CameraCounts, Item
from asr_runtime.screening.parallel import Known, Looked, equal
from asr_runtime.screening.smoothing import Track
from asr_runtime.sources.steps import Decoded
from asr_runtime.windows import LookKind, Window

__all__ = ["Scorer", "Step"]

Step = tuple[Record, NDArray[np.uint8] | None]
"""A record and the picture that it scores, uint8 BGR `(H, W, 3)`; None for records without one."""

_MOST_TIMEOUTS = 3  # inferences in a row that did not end in time, after which the run ends


class Scorer:
    """Scores the pictures of one run.

    Args:
        detector: scores the pictures.
        looks: how to look at `images`, at frames of `videos` and of `cameras`, by `looking.choose_looks`.
        windows: records carry the windows that were looked at.
    """

    def __init__(self, detector: Detector, looks: dict[str, LookKind], *, windows: bool = False) -> None:
        self._detector, self._looks, self._windows = detector, looks, windows
        self._started = time.perf_counter()
        self._open: dict[str, _OpenSource] = {}
        self._dropped_reported: dict[str, int] = {}  # dropped frames of each live source that are in its records
        self._decoded_frames = self._scored = self._failed = self._skipped = self._timeouts = 0

    @property
    def is_hopeless(self) -> bool:
        """Whether inference timed out so often that going on is of no use."""
        return self._timeouts >= _MOST_TIMEOUTS

    def take(self, item: Item) -> Iterator[Step]:
        """Score a picture, or report what else happened."""
        if isinstance(item, StateRecord):
            if item.state == "lost":
                yield from self._close(item.source)
            yield item, None
        elif isinstance(item, LiveFailure):
            yield self._failure(item.camera.source.name, item.error, item.frame), None
        elif isinstance(item, LiveFrame):
            yield from self._live_frame(item)
        elif isinstance(item, Looked):
            yield from self._decoded(item.item, item.look)
        else:
            yield from self._decoded(item)

    def finish(self, cameras: CameraCounts | None = None, ignored: int = 0) -> Iterator[Step]:
        """Close the sources that are open and give the summary.

        Args:
            cameras: what the cameras of the run did.
            ignored: files in folders that were left out.
        """
        for name in list(self._open):
            yield from self._close(name)
        yield self._summary(cameras or CameraCounts(), ignored), None

    def _decoded(self, item: Decoded, known: Known = None) -> Iterator[Step]:
        self._skipped += item.skipped
        self._decoded_frames += item.skipped + (item.error is not None or item.image is not None)
        if item.ends:
            yield from self._close(item.source, item)
        if item.error is not None:
            yield self._failure(item.source, item.error), None
        elif item.image is not None and item.frame is not None:
            yield from self._frame(item.source, item.image, item.frame, item.time, known=known)
        elif item.image is not None:
            yield from self._image(item.source, item.image, item.claims, known)

    def _image(
        self, source: str, image: NDArray[np.uint8], claims: tuple[Claim, ...] | None, known: Known
    ) -> Iterator[Step]:
        try:
            look = self._look(image, self._looks["images"], known)
        except InferenceError as error:
            yield self._failure(source, InferenceError(f"{source}: {error}"), kind=error), None
            return
        self._scored += 1
        windows = self._shown(look)
        yield ImageRecord(source, look.probability, look.verdict, look.kind, windows, look.reason, claims), image

    def _live_frame(self, item: LiveFrame) -> Iterator[Step]:
        """Score a frame of a camera, unless it is too old."""
        if time.monotonic() - item.received > MAX_AGE:
            item.camera.drop()
            return
        yield from self._frame(item.camera.source.name, item.image, item.frame, item.time, item)

    def _frame(
        self,
        name: str,
        image: NDArray[np.uint8],
        frame: int,
        seconds: float,
        live: LiveFrame | None = None,
        known: Known = None,
    ) -> Iterator[Step]:
        source = self._open.get(name)
        repeated = source is not None and source.last is not None and equal(source.last, image)
        if source is None or not repeated:
            try:
                look = self._look(image, self._looks["videos" if live is None else "cameras"], known)
            except InferenceError as error:
                if source is not None:
                    source.last = None
                yield self._failure(name, InferenceError(f"{name}: {error}"), frame, kind=error), None
                return
            if source is None:
                source = self._open[name] = _OpenSource(name, self._detector.card, look.kind)
            source.last, source.look = image, look
        look = source.look
        smoothed, steady, ended = source.track.add(seconds, look.probability, image, look.reason)
        if ended is not None:
            yield ended, None
        age, dropped = None, 0
        if live is not None:
            age = time.monotonic() - live.received
            dropped = live.camera.dropped - self._dropped_reported.get(name, 0)
            self._dropped_reported[name] = live.camera.dropped
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

    def _look(self, image: NDArray[np.uint8], kind: LookKind, known: Known = None) -> Look:
        try:
            if isinstance(known, InferenceError):
                raise known
            look = known or self._detector.look(image, kind)
        except DeadlineError:
            self._timeouts += 1
            raise
        except MemoryError:
            raise InferenceError("scoring takes more memory than there is; scale the picture down") from None
        self._timeouts = 0
        return look

    def _shown(self, look: Look) -> tuple[Window, ...]:
        return look.windows if self._windows else ()

    def _failure(
        self, source: str, error: AsrError, frame: int | None = None, *, kind: AsrError | None = None
    ) -> ErrorRecord:
        self._failed += 1
        return ErrorRecord(source, type(kind or error).__name__, redact(" ".join(str(error).split())), frame)

    def _close(self, name: str, last: Decoded | None = None) -> Iterator[Step]:
        """Close a source: give its last segment and, of a video that was read to its `last` step, the verdict."""
        if (source := self._open.pop(name, None)) is None:
            return
        if (segment := source.track.end()) is not None:
            yield segment, None
        if last is not None and (video := source.track.video()) is not None:
            yield replace(video, claims=last.claims, note=last.note), None

    def _summary(self, cameras: CameraCounts, ignored: int) -> SummaryRecord:
        return SummaryRecord(
            read=self._decoded_frames + cameras.received,
            scored=self._scored,
            failed=self._failed,
            dropped=cameras.dropped,
            skipped=self._skipped + cameras.skipped,
            ignored=ignored,
            reconnects=cameras.reconnects,
            given_up=cameras.given_up + self.is_hopeless,
            seconds=time.perf_counter() - self._started,
            model=self._detector.name,
            sha256=self._detector.sha256,
            provider=self._detector.provider,
            looks=self._looks,
        )


class _OpenSource:
    """A video or camera whose frames are coming; how its first frame was looked at decides the rules."""

    look: Look  # of the last frame that was scored

    def __init__(self, name: str, card: ModelCard, kind: LookKind) -> None:
        rules = card.whole if kind != "centre" and card.whole is not None else card
        self.track = Track(name, rules.decision, rules.video)
        self.last: NDArray[np.uint8] | None = None  # the picture that `look` belongs to
