"""Delivers alerts to one target: a bounded queue, a thread, attempts with growing pauses."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from collections.abc import Callable

from asr_runtime.reports.alert_targets import DeliveryError, Target

__all__ = ["Delivery"]

_PAUSES = (0.5, 1.0, 2.0, 4.0, 5.0)  # seconds after the first, second, ... failure in a row; the last one repeats
_PAUSE_AT_END = 0.2


class Delivery:
    """Delivers in order, from a daemon thread. An outage is reported once, and so is its end.

    Args:
        target: where to.
        warn: called with one line, from the thread.
        waiting: how many may wait; beyond it the oldest is dropped.
        attempts: to deliver one alert before it is given up.

    Attributes:
        name: of the target, redacted.
        undelivered: alerts that were dropped or given up.
    """

    def __init__(self, target: Target, warn: Callable[[str], None], *, waiting: int, attempts: int) -> None:
        self.name = target.name
        self.undelivered = 0
        self._target, self._warn = target, warn
        self._limit, self._attempts = waiting, attempts
        self._waiting: deque[bytes] = deque()
        self._in_flight = self._closing = self._abandoned = False
        self._failures = 0  # in a row
        self._lost_before = 0  # undelivered when the outage began
        self._changed = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="asr-alerts", daemon=True)
        self._thread.start()

    def put(self, body: bytes) -> None:
        """Queue one alert; never waits for the target."""
        with self._changed:
            if self._closing:
                self.undelivered += 1
                return
            if len(self._waiting) >= self._limit:
                self._waiting.popleft()
                self.undelivered += 1
            self._waiting.append(body)
            self._changed.notify()

    def finish(self) -> None:
        """Accept no more, and hurry."""
        with self._changed:
            self._closing = True
            self._changed.notify()

    def close(self, deadline: float) -> int:
        """Deliver what waits until `deadline` (`time.monotonic()`), then leave it; returns `undelivered`."""
        self.finish()
        self._thread.join(max(0.0, deadline - time.monotonic()))
        with self._changed:
            self._abandoned = True
            self.undelivered += len(self._waiting) + self._in_flight
            self._waiting.clear()
            self._in_flight = False
        return self.undelivered

    def _run(self) -> None:
        while (body := self._next()) is not None:
            is_delivered = self._deliver(body)
            with self._changed:
                if self._in_flight and not is_delivered:
                    self.undelivered += 1
                self._in_flight = False

    def _next(self) -> bytes | None:
        with self._changed:
            self._changed.wait_for(lambda: self._waiting or self._closing)
            if not self._waiting:
                return None
            self._in_flight = True
            return self._waiting.popleft()

    def _deliver(self, body: bytes) -> bool:
        for _ in range(self._attempts):
            if self._failures:
                self._pause(_PAUSES[min(self._failures, len(_PAUSES)) - 1])
            if self._abandoned:
                return False
            try:
                self._target.send(body)
            except DeliveryError as error:
                self._failed(error)
            else:
                self._worked()
                return True
        return False

    def _pause(self, seconds: float) -> None:
        with self._changed:
            if not self._closing:
                self._changed.wait_for(lambda: self._closing, seconds)
                return
        time.sleep(min(seconds, _PAUSE_AT_END))

    def _failed(self, error: DeliveryError) -> None:
        self._failures += 1
        if self._failures == 1 and not self._abandoned:
            self._lost_before = self.undelivered
            self._say(
                f"an alert could not be delivered ({error}); "
                f"alerts are tried again, each {self._attempts} times at most"
            )

    def _worked(self) -> None:
        if self._failures and not self._abandoned:
            lost = self.undelivered - self._lost_before
            self._say("alerts are delivered again" + (f"; {lost} were lost" if lost else ""))
        self._failures = 0

    def _say(self, text: str) -> None:
        # Nobody may read standard error any more; alerts go on.
        with contextlib.suppress(OSError, ValueError):
            self._warn(f"{self.name}: {text}")
