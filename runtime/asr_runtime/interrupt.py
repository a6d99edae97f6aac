"""SIGINT and SIGTERM end a run in order: after the current frame, with the summary and an exit code."""

from __future__ import annotations

import contextlib
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

__all__ = ["SAME_SIGNAL", "Interrupt", "handled_signals", "stop_on_signals"]

SAME_SIGNAL = 0.1
"""Seconds in which a second signal counts as the first: `timeout` signals the process, and then its group."""

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Interrupt:
    """Whether a signal came, and the exit code for it.

    Attributes:
        stop: set when a signal came.
        exit_code: 128 + the number of the signal; None before.
    """

    def __init__(self) -> None:
        self.stop = threading.Event()
        self.exit_code: int | None = None


@contextlib.contextmanager
def stop_on_signals() -> Iterator[Interrupt]:
    """Set `stop` on the first SIGINT or SIGTERM; a second one ends the process at once."""
    interrupt = Interrupt()

    def receive(number: int, frame: FrameType | None) -> None:
        interrupt.exit_code = 128 + number
        interrupt.stop.set()
        time.sleep(SAME_SIGNAL)
        for each in _SIGNALS:
            signal.signal(each, signal.SIG_DFL)

    with handled_signals(receive):
        yield interrupt


@contextlib.contextmanager
def handled_signals(receive: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Call `receive` on SIGINT and SIGTERM; afterwards the handlers are those from before."""
    last = -SAME_SIGNAL

    def once(number: int, frame: FrameType | None) -> None:
        nonlocal last
        if time.monotonic() - last >= SAME_SIGNAL:
            last = time.monotonic()
            receive(number, frame)

    before = {number: signal.signal(number, once) for number in _SIGNALS}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
