"""Records -> alerts: one JSON object when a source turns to AI, is lost, or is back; sent in the background."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from asr_runtime.contract import Verdict
from asr_runtime.records import FrameRecord, ImageRecord, Record, StateRecord, VideoRecord
from asr_runtime.reports.alert_targets import make_target
from asr_runtime.reports.delivery import Delivery

__all__ = ["Alert", "AlertEvent", "Alerts"]

AlertEvent = Literal["ai", "lost", "live"]
_OPPOSITE: dict[AlertEvent, AlertEvent] = {"lost": "live", "live": "lost"}


@dataclass(frozen=True, slots=True)
class Alert:
    """What is sent.

    Attributes:
        event: ai: the steady verdict turned to AI; lost: a live source is gone; live: it is back.
        source: path, or name of the live source.
        time: Unix time in seconds.
        detail: one line for people.
        probability: calibrated P(AI-generated) of the frame or image; of `ai` only, as is the verdict.
        verdict: the steady verdict of a video, the verdict of an image.
        frame: index of the frame; videos only.
        position: of that frame in a video file, seconds; None for a live source.
        given_up: a lost source will not be tried again.
        suppressed: earlier alerts of this source and event that were not sent because they came too fast.
    """

    event: AlertEvent
    source: str
    time: float
    detail: str
    probability: float | None = None
    verdict: Verdict | None = None
    frame: int | None = None
    position: float | None = None
    given_up: bool = False
    suppressed: int = 0

    def to_dict(self) -> dict[str, Any]:
        """Return the JSON object of the alert; what is None is left out."""
        data: dict[str, Any] = {
            "type": "alert",
            "event": self.event,
            "source": self.source,
            "time": round(self.time, 6),
            "probability": self.probability,
            "verdict": self.verdict,
            "frame": self.frame,
            "position": None if self.position is None else round(self.position, 6),
            "detail": self.detail,
            "given_up": self.given_up or None,
            "suppressed": self.suppressed,
        }
        return {key: value for key, value in data.items() if value is not None}


class Alerts:
    """Sends alerts to every target, each from a separate thread; `observe` never waits.

    Args:
        targets: `http(s)://[user:password@]host[:port]/path`, to which the alert is POSTed, or
            `mqtt(s)://[user:password@]host[:port]/topic`.
        warn: called with one line, from another thread, when a target fails and when it works again.
        interval: seconds between two alerts of one source and event. One that comes earlier waits for the end of
            the interval, and is replaced by a newer one; every image is a separate source.
        waiting: alerts that wait for one target; beyond it the oldest is dropped.
        attempts: to deliver one alert, some 5 s apart, before it is given up.
        timeout: seconds of one attempt.

    Raises:
        ConfigurationError: a target is not one of these URLs.
        DependencyError: an MQTT target, and paho-mqtt is not installed.
    """

    def __init__(
        self,
        targets: Sequence[str],
        *,
        warn: Callable[[str], None],
        interval: float = 10.0,
        waiting: int = 1000,
        attempts: int = 30,
        timeout: float = 5.0,
    ) -> None:
        made = [make_target(target, timeout) for target in targets]
        self._deliveries = [Delivery(target, warn, waiting=waiting, attempts=attempts) for target in made]
        self._changes = _Changes()
        self._interval = interval
        self._paces: dict[tuple[str, AlertEvent], _Pace] = {}
        self._lock = threading.Lock()

    def observe(self, record: Record) -> None:
        """Take one record of the run; an alert that follows from it is queued."""
        with self._lock:
            alert = self._changes.alert(record)
            if isinstance(record, VideoRecord):
                self._release((record.source, "ai"))
                self._paces.pop((record.source, "ai"), None)
            if isinstance(record, ImageRecord) and alert is not None:
                self._send(alert)
            elif alert is not None:
                self._pace(alert)

    @property
    def undelivered(self) -> dict[str, int]:
        """How many alerts each target, by its redacted URL, did not get so far."""
        counts: dict[str, int] = {}
        for delivery in self._deliveries:
            counts[delivery.name] = counts.get(delivery.name, 0) + delivery.undelivered
        return counts

    def close(self, timeout: float = 3.0) -> int:
        """Send what waits, for at most `timeout` seconds.

        Returns:
            How many alerts were not delivered during the whole run, over all targets.
        """
        deadline = time.monotonic() + timeout
        with self._lock:
            for key in self._paces:
                self._release(key)
        for delivery in self._deliveries:
            delivery.finish()
        return sum(delivery.close(deadline) for delivery in self._deliveries)

    def _pace(self, alert: Alert) -> None:
        key = alert.source, alert.event
        if alert.event != "ai":
            self._cancel((alert.source, _OPPOSITE[alert.event]))
        pace = self._paces.setdefault(key, _Pace())
        wait = pace.last + self._interval - time.monotonic()
        pace.suppressed += pace.waiting is not None
        pace.waiting = alert
        if wait <= 0:
            self._release(key)
        elif pace.timer is None:
            pace.timer = threading.Timer(wait, self._due, [key])
            pace.timer.daemon = True
            pace.timer.start()

    def _due(self, key: tuple[str, AlertEvent]) -> None:
        with self._lock:
            self._release(key)

    def _release(self, key: tuple[str, AlertEvent]) -> None:
        pace = self._paces.get(key)
        if pace is None or pace.waiting is None:
            return
        self._send(replace(pace.waiting, suppressed=pace.suppressed))
        pace.stop()
        pace.suppressed = 0
        pace.last = time.monotonic()

    def _cancel(self, key: tuple[str, AlertEvent]) -> None:
        """Drop the alert that waits where it no longer holds: a lost source is live again, or the reverse."""
        pace = self._paces.get(key)
        if pace is not None and pace.waiting is not None:
            pace.stop()
            pace.suppressed += 1

    def _send(self, alert: Alert) -> None:
        body = json.dumps(alert.to_dict(), allow_nan=False).encode()
        for delivery in self._deliveries:
            delivery.put(body)


class _Pace:
    """When the last alert of one source and event was sent, which one waits, and how many were skipped since."""

    def __init__(self) -> None:
        self.last = float("-inf")
        self.suppressed = 0
        self.waiting: Alert | None = None
        self.timer: threading.Timer | None = None

    def stop(self) -> None:
        self.waiting = None
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class _Changes:
    """Finds the records that are news: it knows the steady verdict of each video, and which live sources are lost."""

    def __init__(self) -> None:
        self._steady: dict[str, Verdict] = {}
        self._lost: set[str] = set()

    def alert(self, record: Record) -> Alert | None:
        if isinstance(record, FrameRecord):
            return self._of_frame(record)
        if isinstance(record, StateRecord):
            return self._of_state(record)
        if isinstance(record, VideoRecord):
            self._steady.pop(record.source, None)
        if isinstance(record, ImageRecord) and record.verdict == "ai":
            return Alert("ai", record.source, time.time(), "the image is ai", record.probability, "ai")
        return None

    def _of_frame(self, record: FrameRecord) -> Alert | None:
        before = self._steady.get(record.source)
        self._steady[record.source] = record.steady
        if record.steady != "ai" or before == "ai":
            return None
        is_live = record.age is not None
        return Alert(
            "ai",
            record.source,
            record.time if is_live else time.time(),
            f"the steady verdict turned from {before} to ai" if before else "the steady verdict is ai",
            record.probability,
            "ai",
            record.frame,
            None if is_live else record.time,
        )

    def _of_state(self, record: StateRecord) -> Alert | None:
        if record.state == "lost":
            # It is tried again and again: only the first failure is news, and the last one.
            is_news = record.given_up or record.source not in self._lost
            self._lost.add(record.source)
            self._steady.pop(record.source, None)
            if is_news:
                return Alert("lost", record.source, record.time, record.detail, given_up=record.given_up)
        elif record.state == "live" and record.source in self._lost:
            self._lost.remove(record.source)
            return Alert("live", record.source, record.time, record.detail)
        return None
