"""SIGINT and SIGTERM end a training in order: all files stay complete, and a line says how to go on."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType

from asr_runtime.interrupt import SAME_SIGNAL

__all__ = ["stop_on_signal"]

log = logging.getLogger("asr_train")


class _StoppedError(BaseException):
    """Raised by the signal handler, wherever training is."""


@contextlib.contextmanager
def stop_on_signal(how_to_go_on: Callable[[], str | None]) -> Iterator[Callable[[], None]]:
    """End the program with exit code 130 or 143 when SIGINT or SIGTERM comes; a second signal ends it at once.

    A terminal, `timeout`, systemd and SLURM send the signal to the reading processes as well. These end by it without
    a message, and whatever error follows the signal (a lost worker, for one) counts as the stop. Outside the main
    thread no signal is waited for.

    Args:
        how_to_go_on: called after the stop; what the log says, None for nothing.

    Yields:
        A function that raises if a signal came and its exception was lost on the way (in a finaliser, for one).
    """
    received: list[int] = []
    owner = os.getpid()

    def receive(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a reading process, which was forked with this handler
            os._exit(128 + number)
        if received:
            return  # within the moment in which it counts as the first
        received.append(number)
        # PyTorch's raises wherever the program is when a reader ends. Without any, Python prints an error about it.
        signal.signal(signal.SIGCHLD, lambda *_: None)
        time.sleep(SAME_SIGNAL)
        for each in before:
            signal.signal(each, signal.SIG_DFL)
        raise _StoppedError

    def check() -> None:
        if received:
            raise _StoppedError

    before = {}
    if threading.current_thread() is threading.main_thread():
        before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield check
    except BaseException:
        if not received:
            raise
        if (advice := how_to_go_on()) is not None:
            log.warning("stopped by %s; %s", signal.Signals(received[0]).name, advice)
        raise SystemExit(128 + received[0]) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
