"""One thread per live source: it offers the newest frame, reports the state of the source, and reconnects.

The state follows from the age of the newest frame, not from what a read returns:

    connecting -> live -> stalled (no frame for `STALLED_AFTER` s) -> live, or lost
         ^                                                              |
         +----- after 0.5, 1, 2, 4, 5, 5, ... s (20% jitter) -----------+
"""

from __future__ import annotations

import math
import random
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.cameras.inbox import Inbox
from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.records import SourceState, StateRecord
from asr_runtime.redact import redact
from asr_runtime.sources.live import LiveSource

if TYPE_CHECKING:
    from asr_runtime.cameras.streams import Stream

__all__ = ["MAX_AGE", "STALLED_AFTER", "Camera", "LiveFailure", "LiveFrame"]

MAX_AGE = 0.5
"""Seconds from reception after which a frame is no longer scored."""
STALLED_AFTER = 2.0
"""Seconds without a frame after which a source is stalled."""
_LOST_AFTER = 4.0  # seconds in which data arrive but no frame can be decoded; a larger lag means that the clock was set
_DELAYS = (0.5, 1.0, 2.0, 4.0, 5.0)
_JITTER = 0.2
_STEADY = 2.0  # seconds of frames after which the delays start again from the shortest


@dataclass(frozen=True, slots=True)
class LiveFrame:
    """A frame of a live source.

    Attributes:
        camera: the camera that gave it.
        image: uint8 `(H, W, 3)`, BGR.
        frame: index from 0 among all frames received, over all connections.
        time: Unix time of reception, seconds.
        received: the same by `time.monotonic`.
    """

    camera: Camera
    image: NDArray[np.uint8]
    frame: int
    time: float
    received: float


@dataclass(frozen=True, slots=True)
class LiveFailure:
    """A frame of a live source that could not be decoded."""

    camera: Camera
    error: DecodeError
    frame: int


class Camera:
    """Reads one live source in a separate thread until `leave` is called.

    Args:
        source: what to open.
        inbox: receives `LiveFrame`, `LiveFailure` and `StateRecord`; an exception if the thread has a bug.
        fps: frames wanted per second; other frames are not decoded where the source allows that. None: all frames.
        reconnect: connect again after an outage; otherwise the source is given up.
        connect: opens the source's URL.
        stalled_after: seconds without a frame after which the source counts as stalled.

    Attributes:
        received: number of frames so far.
        undecided: 1 while the newest frame is neither offered, dropped, skipped nor failed, else 0.
        dropped: frames that were too old, or replaced by newer ones.
        skipped: frames that were not decoded because of `fps`.
        reconnects: connections after the first that gave a frame.
        given_up: the source will not be opened again.
    """

    def __init__(
        self,
        source: LiveSource,
        inbox: Inbox[Any],
        *,
        fps: float | None = None,
        reconnect: bool = True,
        connect: Callable[[str], Stream],
        stalled_after: float = STALLED_AFTER,
    ) -> None:
        self.source = source
        self.received = self.undecided = self.dropped = self.skipped = self.reconnects = 0
        self.given_up = False
        self._inbox = inbox
        self._interval = 1 / fps if fps else 0.0
        self._reconnect = reconnect
        self._open = connect
        self._stalled_after = stalled_after
        self._leave = threading.Event()
        self._lock = threading.Lock()
        self._state: SourceState | None = None
        self._was_live = False
        self._newest = 0.0  # monotonic time of the newest good frame
        self._thread = threading.Thread(target=self._run, name=f"asr-camera {source.name}", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def leave(self) -> None:
        """Ask the thread to end; it ends when its current read returns."""
        self._leave.set()

    def join(self, timeout: float) -> bool:
        """Wait for the thread; returns whether it has ended."""
        self._thread.join(timeout)
        return not self._thread.is_alive()

    def watch(self) -> None:
        """Report a stall. Another thread calls this regularly, because the thread of the camera waits for the frame."""
        with self._lock:
            age = time.monotonic() - self._newest
            if self._state == "live" and age > self._stalled_after:
                self._report("stalled", f"no frame for {age:.1f} s")

    def drop(self) -> None:
        """Count a frame that will not be scored. Any thread may call this."""
        with self._lock:
            self.dropped += 1

    def _run(self) -> None:
        try:
            self._come_back()
        except BaseException as error:
            self._inbox.post(error)

    def _come_back(self) -> None:
        failures = 0
        while not self._leave.is_set():
            self._enter("connecting", "")
            began = math.inf
            try:
                stream = self._open(self.source.url)
                try:
                    began = time.monotonic()
                    self._receive(stream)
                finally:
                    stream.close()
                return
            except SourceError as error:
                reason = redact(str(error))
            if self.undecided:  # the source was lost while its frame was decoded
                self.undecided = 0
                self.drop()
            failures = 1 if self._newest - began > _STEADY else failures + 1
            if self._inbox.withdraw(self) is not None:
                self.drop()
            if not self._reconnect:
                self.given_up = True
                self._enter("lost", reason, given_up=True)
                return
            delay = _DELAYS[min(failures, len(_DELAYS)) - 1] * random.uniform(1 - _JITTER, 1 + _JITTER)
            self._enter("lost", reason, retry=delay)
            self._leave.wait(delay)

    def _receive(self, stream: Stream) -> None:
        """Read until the source is lost (`SourceError`) or the thread is to leave."""
        self._newest = time.monotonic()
        lag = _Lag()
        wanted_from: float | None = None
        while not self._leave.is_set():
            own_time = stream.grab()
            now = time.monotonic()
            number = self.received
            self.received += 1
            self.undecided = 1
            if lag.of(now, own_time) > MAX_AGE:
                self.drop()
                self.undecided = 0
                continue
            if wanted_from is not None and now < wanted_from:
                self.skipped += 1
                self.undecided = 0
                self._alive(now)
                continue
            try:
                image = stream.retrieve()
            except DecodeError as error:
                self._inbox.post(LiveFailure(self, error, number))
                self.undecided = 0
                if now - self._newest > _LOST_AFTER:
                    raise SourceError(f"no frame that can be decoded for {_LOST_AFTER:g} s") from None
                continue
            if self._interval:  # a late frame does not move the next ones
                wanted_from = max(now if wanted_from is None else wanted_from, now - self._interval) + self._interval
            self._alive(now)
            frame = LiveFrame(self, image, number, time.time(), now)
            replaced = self._inbox.offer(self, frame)
            self.undecided = 0
            if replaced is not None:
                self.drop()

    def _alive(self, now: float) -> None:
        with self._lock:
            self._newest = now
            if self._state != "live":
                if self._state == "connecting" and self._was_live:
                    self.reconnects += 1
                self._was_live = True
                self._report("live", "")

    def _enter(self, state: SourceState, detail: str, *, retry: float | None = None, given_up: bool = False) -> None:
        with self._lock:
            self._report(state, detail, retry, given_up)

    def _report(self, state: SourceState, detail: str, retry: float | None = None, given_up: bool = False) -> None:
        self._state = state
        self._inbox.post(StateRecord(self.source.name, state, time.time(), detail, retry, given_up))


class _Lag:
    """How late a frame arrives, compared with the fastest frame of the last minute by the source's own clock.

    After an interruption of the network, the frames of a whole second arrive at once; all but the last are old.
    """

    def __init__(self) -> None:
        self._delays: deque[tuple[float, float]] = deque()  # (arrival, delay), delays increasing
        self._last = -math.inf

    def of(self, arrival: float, own_time: float | None) -> float:
        if own_time is None:
            return 0.0
        delay = arrival - own_time
        if own_time < self._last or (self._delays and delay - self._delays[0][1] > _LOST_AFTER):
            self._delays.clear()  # its clock was set
        self._last = own_time
        while self._delays and (self._delays[-1][1] >= delay):
            self._delays.pop()
        self._delays.append((arrival, delay))
        while arrival - self._delays[0][0] > 60:
            self._delays.popleft()
        return delay - self._delays[0][1]
