"""A webcam that is absent, busy, stalled, unplugged and plugged in again; the tests control that of a virtual machine.

This file is run twice: by pytest on the host, and as a script in the guest. There it runs
`asr-screen`, does to the webcam what the scene below says, and prints every record and the time of every step. The
tests check these.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from webcam_guest import SHARE, GuestUnavailableError, run_in_guest

Record = dict[str, Any]
Measured = Callable[[str], None]

CAMERA = "/dev/video0"
MISSING = "/dev/video9"
SCREEN = "from asr_runtime.cli import screen_command; screen_command(prog_name='asr-screen')"
PATIENCE = 30.0
"""Seconds that the scene waits for a record before it goes on without."""

EMULATION = 2.0
"""Seconds allowed beyond what is demanded: the guest's processor is emulated, some ten times slower than the host's,
and so is every step of the program and of this file. Waiting, which is most of it, takes no longer there."""


# In the guest


def _set_dropped(percent: int) -> None:
    """Set vivid's control "Percentage of Dropped Buffers": at 100 the camera streams and delivers nothing."""
    with _opened(CAMERA) as camera:
        fcntl.ioctl(camera, 0xC008561C, struct.pack("Ii", 0x00F0F040, percent))  # VIDIOC_S_CTRL


def _driver(action: str) -> None:
    """Unbind the driver from the camera, or bind it: the device file goes and comes as if a cable was pulled."""
    Path(f"/sys/bus/platform/drivers/vivid/{action}").write_text("vivid.0")


@contextlib.contextmanager
def _opened(path: str) -> Iterator[int]:
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _in_use() -> Iterator[None]:
    """Take the camera's buffers, as another program does that records with it."""
    with _opened(CAMERA) as camera:
        fcntl.ioctl(camera, 0xC0145608, bytearray(struct.pack("5I", 2, 1, 1, 0, 0)))  # VIDIOC_REQBUFS
        yield


class _Screening:
    """`asr-screen` on one camera; its records, with the time of their arrival, and what was done to the camera."""

    def __init__(self, *arguments: str) -> None:
        command = [sys.executable, "-c", SCREEN, *arguments, "--model", f"{SHARE}/model.onnx", "--format", "jsonl"]
        self.events: dict[str, float] = {"start": time.time()}
        self.records: list[Record] = []
        self.stderr = ""
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self._readers = [threading.Thread(target=self._read_records), threading.Thread(target=self._read_stderr)]
        for reader in self._readers:
            reader.start()

    def _read_records(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self.records.append(json.loads(line) | {"arrived": time.time()})

    def _read_stderr(self) -> None:
        assert self.process.stderr
        self.stderr = self.process.stderr.read()

    def now(self, event: str) -> None:
        self.events[event] = time.time()

    def wait(self, event: str, **wanted: str) -> None:
        """Wait for a record like `wanted` that arrives after `event`."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.process.poll() is None:
            if _matching(self.records, self.events[event], **wanted):
                return
            time.sleep(0.02)

    def open_cameras(self) -> int:
        """Return how many descriptors of the process lead to a camera."""
        count = 0
        for link in Path(f"/proc/{self.process.pid}/fd").iterdir():
            with contextlib.suppress(FileNotFoundError):
                count += str(link.readlink()).startswith("/dev/video")
        return count

    def end(self) -> Record:
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        self.process.kill()
        for reader in self._readers:
            reader.join()
        return {
            "records": self.records,
            "events": self.events,
            "stderr": self.stderr,
            "exit_code": self.process.returncode,
        }


def _matching(records: list[Record], since: float = 0.0, **wanted: str) -> list[Record]:
    return [r for r in list(records) if r["arrived"] >= since and wanted.items() <= r.items()]


def _play_absent() -> Record:
    return _Screening(MISSING, "--no-reconnect").end()


def _play_camera() -> Record:
    with _in_use():
        screening = _Screening(CAMERA)
        screening.wait("start", type="state", state="lost")
        time.sleep(2)  # it is busy for some attempts
    screening.now("free")
    screening.wait("free", type="frame")

    time.sleep(1)
    _set_dropped(100)
    screening.now("stall")
    screening.wait("stall", type="state", state="stalled")
    time.sleep(1)
    screening.now("resume")
    _set_dropped(0)
    screening.wait("resume", type="frame")

    time.sleep(1)
    screening.now("unplug")
    _driver("unbind")
    screening.wait("unplug", type="state", state="lost")
    time.sleep(2)
    open_while_unplugged = screening.open_cameras()
    screening.now("plug in")
    _driver("bind")
    screening.wait("plug in", type="frame")

    time.sleep(1)
    open_at_end = screening.open_cameras()
    screening.process.terminate()
    return screening.end() | {"open_while_unplugged": open_while_unplugged, "open_at_end": open_at_end}


if __name__ == "__main__":
    print(json.dumps({"absent": _play_absent(), "camera": _play_camera()}))


# On the host


class Part:
    """What `asr-screen` wrote in one part of the scene."""

    def __init__(self, played: Record) -> None:
        self.records: list[Record] = played["records"]
        self.events: dict[str, float] = played["events"]
        self.exit_code: int = played["exit_code"]
        self.played = played

    def first(self, event: str, **wanted: str) -> tuple[Record, float]:
        """Return the first record like `wanted` that arrived after `event`, and how many seconds after."""
        since = self.events[event]
        records = _matching(self.records, since, **wanted)
        assert records, f"no {wanted} after {event!r}: {self}"
        return records[0], records[0]["arrived"] - since

    def __str__(self) -> str:
        states = [r for r in self.records if r["type"] != "frame"]
        frames = len(self.records) - len(states)
        return f"{frames} frames, {self.events}, {states}, {self.played['stderr']}"


@pytest.fixture(scope="module")
def scene() -> dict[str, Any]:
    from runtime_samples import build_model  # not in the guest, where ONNX would take its time

    try:
        result = run_in_guest(Path(__file__), timeout=280, files={"model.onnx": build_model()})
    except GuestUnavailableError as error:
        pytest.skip(str(error))
    assert result.exit_code == 0, result.output
    return json.loads(result.output) | {"seconds": result.seconds}


@pytest.fixture
def absent(scene: dict[str, Any]) -> Part:
    return Part(scene["absent"])


@pytest.fixture
def camera(scene: dict[str, Any]) -> Part:
    return Part(scene["camera"])


@pytest.mark.heavy
@pytest.mark.fault(19)
def test_an_absent_webcam_is_given_up_at_once(absent: Part, scene: dict[str, Any], measured: Measured) -> None:
    measured(f"the guest: {scene['seconds']:.0f} s")
    connecting, _ = absent.first("start", type="state", state="connecting")
    lost, _ = absent.first("start", type="state", state="lost")
    delay = lost["arrived"] - connecting["arrived"]
    assert MISSING in lost["source"] + lost["detail"]
    assert delay < 1 + EMULATION
    assert lost.get("given_up")
    assert absent.exit_code == 4, absent
    measured(f"absent: lost after {delay:.2f} s ({lost['detail']}), exit 4")


@pytest.mark.heavy
@pytest.mark.fault(19)
def test_a_busy_webcam_is_lost_and_scored_when_it_is_free(camera: Part, measured: Measured) -> None:
    connecting, _ = camera.first("start", type="state", state="connecting")
    lost, _ = camera.first("start", type="state", state="lost")
    delay = lost["arrived"] - connecting["arrived"]
    assert "busy" in lost["detail"].lower()
    assert delay < 1 + EMULATION
    assert lost["retry"] <= 5
    _, live = camera.first("free", type="state", state="live")
    _, scored = camera.first("free", type="frame")
    assert scored < 8 + EMULATION
    measured(f"busy: lost after {delay:.2f} s ({lost['detail']}); free: live after {live:.1f} s, scored {scored:.1f} s")


@pytest.mark.heavy
@pytest.mark.fault(19)
def test_a_webcam_that_delivers_nothing_is_stalled_and_no_old_frame_is_scored(camera: Part, measured: Measured) -> None:
    stalled, delay = camera.first("stall", type="state", state="stalled")
    assert delay < 6 + EMULATION
    _, scored = camera.first("resume", type="frame")
    assert scored < 8 + EMULATION
    between = [
        r for r in _matching(camera.records, stalled["arrived"], type="frame") if r["arrived"] < camera.events["resume"]
    ]
    assert not between, "scored while the camera stood still"
    measured(f"stalled after {delay:.1f} s ({stalled['detail']}); resumed: scored after {scored:.1f} s")


@pytest.mark.heavy
@pytest.mark.fault(19)
def test_an_unplugged_webcam_is_released_and_scored_when_it_is_back(camera: Part, measured: Measured) -> None:
    lost, delay = camera.first("unplug", type="state", state="lost")
    assert delay < 1 + EMULATION
    assert lost["retry"] <= 5
    # A descriptor kept open would also keep the number: the camera would come back as /dev/video1.
    assert camera.played["open_while_unplugged"] == 0
    _, live = camera.first("plug in", type="state", state="live")
    _, scored = camera.first("plug in", type="frame")
    assert scored < 8 + EMULATION
    assert camera.played["open_at_end"] == 1
    measured(f"unplugged: lost after {delay:.2f} s ({lost['detail']}); back: live {live:.1f} s, scored {scored:.1f} s")


@pytest.mark.heavy
@pytest.mark.fault(19)
def test_a_signal_ends_the_run_with_a_summary(camera: Part, measured: Measured) -> None:
    assert camera.exit_code == 143, camera
    assert camera.records[-1]["type"] == "summary"
    oldest = max(r["age"] for r in camera.records if r["type"] == "frame")
    measured(f"{camera.records[-1]['reconnects']} reconnects, oldest frame scored {oldest:.2f} s")
