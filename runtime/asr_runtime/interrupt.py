"""SIGINT and SIGTERM end a run early and in order: the current frame, the summary, the exit code."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType

__all__ = ["Interrupt", "stop_on_signals"]


class Interrupt:
    """What the signal handlers leave behind.

    Attributes:
        stop: set when a signal came.
        exit_code: 128 + its number; None before.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.exit_code: int | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Interrupt]:
    """Set `stop` on the first SIGINT or SIGTERM; a second one ends the process at once, as without this."""
    interrupt = Interrupt()

    def receive(number: int, frame: FrameType | None) -> None:
        interrupt.exit_code = 128 + number
        interrupt.stop.set()
        for each in before:
            signal.signal(each, signal.SIG_DFL)

    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield interrupt
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
