"""A signal that comes twice within a moment is one; a second one later ends the process at once."""

from __future__ import annotations

import signal
import subprocess
import sys
import time

import pytest

_PROGRAM = """
import time
from asr_runtime.interrupt import stop_on_signals
with stop_on_signals() as interrupt:
    print("ready", flush=True)
    interrupt.stop.wait()
    print(interrupt.exit_code, flush=True)
    time.sleep(20)
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_that_comes_twice_is_one_and_the_next_ends_the_process(number: signal.Signals) -> None:
    line = [sys.executable, "-c", _PROGRAM]
    with subprocess.Popen(line, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        time.sleep(0.01)  # `timeout` signals the process, then its group
        process.send_signal(number)
        assert process.stdout.readline() == f"{128 + number}\n"
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait(5) == -number
        assert process.stderr is not None
        assert process.stderr.read() == ""
