"""The life of a live source, with streams that do what a test wants; real cameras are in tests/faults."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_runtime.cameras import camera as camera_module
from asr_runtime.cameras.camera import Camera, LiveFailure, LiveFrame, _Lag
from asr_runtime.cameras.inbox import Inbox
from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.records import StateRecord
from asr_runtime.sources.live import LiveSource

SOURCE = LiveSource("door", "rtsp://user:secret@10.0.0.1/1")
Script = Iterator[float | Exception | None]


class Scripted:
    """A stream whose reads give the script's times, or raise its errors."""

    def __init__(self, script: Script) -> None:
        self._script = script
        self.closed = threading.Event()

    def grab(self) -> float | None:
        step = next(self._script, SourceError("the source ended the stream"))
        if isinstance(step, SourceError):
            raise step
        self._garbage = isinstance(step, DecodeError)
        return None if isinstance(step, Exception) else step

    def retrieve(self) -> NDArray[np.uint8]:
        if self._garbage:
            raise DecodeError("frame: not a complete image")
        return np.zeros((8, 8, 3), np.uint8)

    def close(self) -> None:
        self.closed.set()


def paced(steps: int, seconds: float = 0.01, own_time: float | None = None) -> Script:
    for i in range(steps):
        time.sleep(seconds)
        yield None if own_time is None else own_time + i * seconds


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., tuple[Camera, Inbox[object], list[Scripted]]]]:
    monkeypatch.setattr(camera_module, "_DELAYS", (0.05, 0.1))
    cameras = []

    def begin(*scripts: Script | Exception, **options: object) -> tuple[Camera, Inbox[object], list[Scripted]]:
        waiting, opened = iter(scripts), []

        def connect(url: str) -> Scripted:
            script = next(waiting, SourceError("connection refused"))
            if isinstance(script, Exception):
                raise script
            opened.append(Scripted(script))
            return opened[-1]

        inbox: Inbox[object] = Inbox(2)
        camera = Camera(SOURCE, inbox, connect=connect, **options)  # type: ignore[arg-type]
        cameras.append(camera)
        camera.start()
        return camera, inbox, opened

    yield begin
    for camera in cameras:
        camera.leave()
        assert camera.join(5)


def until(inbox: Inbox[object], state: str, limit: float = 5.0) -> list[object]:
    """Take items until the camera is in `state`."""
    items: list[object] = []
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if (item := inbox.take(0.1)) is not None:
            items.append(item)
            if isinstance(item, StateRecord) and item.state == state:
                return items
    raise AssertionError(f"no {state} in {items}")


Start = Callable[..., tuple[Camera, Inbox[object], list[Scripted]]]


def test_a_lost_camera_is_opened_again_and_its_frames_are_counted(start: Start) -> None:
    camera, inbox, opened = start(paced(5), SourceError("connection refused"), paced(5), paced(5))
    items = [*until(inbox, "lost"), *until(inbox, "lost"), *until(inbox, "lost"), *until(inbox, "lost")]
    states = [item.state for item in items if isinstance(item, StateRecord)]
    assert states == ["connecting", "live", "lost", "connecting", "lost", *["connecting", "live", "lost"] * 2]
    assert not any(item.given_up for item in items if isinstance(item, StateRecord))
    lost = [item for item in items if isinstance(item, StateRecord) and item.state == "lost"]
    assert all(item.retry is not None and 0.8 * 0.05 <= item.retry <= 1.2 * 0.1 for item in lost)
    assert "refused" in lost[1].detail
    assert camera.reconnects == 2
    assert all(stream.closed.is_set() for stream in opened)
    frames = [item.frame for item in items if isinstance(item, LiveFrame)]
    assert frames == sorted(set(frames))
    assert camera.received == 15


def test_without_reconnect_a_lost_camera_is_given_up(start: Start) -> None:
    camera, inbox, _ = start(SourceError("no such thing at rtsp://user:secret@10.0.0.1/1"), reconnect=False)
    *_, last = until(inbox, "lost")
    assert isinstance(last, StateRecord)
    assert last.given_up
    assert last.retry is None
    assert "secret" not in last.detail
    assert camera.given_up
    assert camera.join(5)


def test_a_silent_source_is_stalled_by_the_age_of_its_newest_frame(start: Start) -> None:
    camera, inbox, _ = start(itertools.chain(paced(3), paced(1, 0.6), paced(300)), stalled_after=0.2)
    until(inbox, "live")
    began = time.monotonic()
    while time.monotonic() < began + 0.5:
        camera.watch()
        time.sleep(0.01)
    until(inbox, "stalled", 0.1)
    until(inbox, "live", 1.0)
    assert camera.reconnects == 0


def test_garbage_is_a_failure_and_no_reason_to_reconnect(start: Start) -> None:
    garbage: Script = iter([DecodeError("x")])
    camera, inbox, opened = start(itertools.chain(paced(3), garbage, paced(3)))
    items = until(inbox, "lost")
    failures = [item for item in items if isinstance(item, LiveFailure)]
    assert [failure.frame for failure in failures] == [3]
    assert len(opened) == 1
    assert camera.received == 7


def test_frames_that_nobody_takes_are_dropped_and_counted(start: Start) -> None:
    camera, inbox, _ = start(paced(20), reconnect=False)
    assert camera.join(5)
    frames = [item for item in iter(lambda: inbox.take(0), None) if isinstance(item, LiveFrame)]
    assert not frames, "the newest was withdrawn when the source was lost"
    assert (camera.received, camera.dropped) == (20, 20)


def test_a_backlog_is_dropped_by_the_times_of_the_source(start: Start) -> None:
    def hiccup() -> Script:
        for i in range(10):
            time.sleep(0.02)
            yield i * 0.02
        time.sleep(1.0)
        for i in range(10, 60):  # a second of frames in a hurry, slow enough that each could be taken
            time.sleep(0.005)
            yield i * 0.02

    camera, inbox, _ = start(hiccup(), reconnect=False)
    taken = {item.frame for item in until(inbox, "lost") if isinstance(item, LiveFrame)}
    late = set(range(10, 35))  # of the 50, those that are older than half a second against the frames before
    assert not taken & late
    assert taken & set(range(10)), "frames in time are given"
    assert camera.received == 60
    assert camera.dropped == 60 - len(taken)


def test_fps_does_not_drift(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ten frames a second of a source that gives one every 0.03 s: a frame that is late does not delay the next."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(
        camera_module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time, sleep=time.sleep)
    )

    def ticks() -> Script:
        for _ in range(1000):
            clock.now += 0.03
            yield None

    camera, _, _ = start(ticks(), fps=10, reconnect=False)
    assert camera.join(20)
    assert camera.received == 1000
    assert camera.received - camera.skipped == pytest.approx(300, abs=2)


def test_fps_thins_out_evenly(start: Start) -> None:
    camera, inbox, _ = start(paced(100, 0.01), fps=10, reconnect=False)
    frames = [item for item in until(inbox, "lost") if isinstance(item, LiveFrame)]
    gaps = np.diff([frame.received for frame in frames])
    assert 8 <= len(frames) <= 13
    assert np.median(gaps) == pytest.approx(0.1, abs=0.03)
    assert camera.skipped == 100 - len(frames) - camera.dropped


def test_a_bug_of_the_thread_is_raised_in_the_run(start: Start) -> None:
    _, inbox, _ = start(ZeroDivisionError("a bug"))
    items = [inbox.take(2), inbox.take(2)]
    assert isinstance(items[1], ZeroDivisionError)


def _ticking(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock for the camera that stands still unless a test moves it."""
    clock = SimpleNamespace(now=1000.0)
    monkeypatch.setattr(camera_module, "time", SimpleNamespace(monotonic=lambda: clock.now, time=time.time))
    return clock


def test_a_frame_is_as_late_as_it_is_slower_than_the_quickest() -> None:
    lag = _Lag()
    arrivals = [
        (10.0, 0.0, 0.0),
        (10.5, 0.3, 0.2),
        (11.0, 1.1, 0.0),
        (12.0, 1.5, 0.6),
        (12.1, None, 0.0),
        (12.2, 2.3, 0.0),
    ]
    for arrival, own_time, late in arrivals:
        assert lag.of(arrival, own_time) == pytest.approx(late, abs=1e-9)


def test_a_clock_that_was_set_makes_no_frame_late() -> None:
    back = _Lag()
    back.of(10.0, 5.0)
    assert (back.of(13.0, 4.9), back.of(13.5, 5.0)) == (0.0, pytest.approx(0.4))
    for jump, late in ((4.0, 4.0), (4.01, 0.0)):
        forward = _Lag()
        forward.of(10.0, 10.0)
        assert forward.of(20.0 + jump, 20.0) == late
    stands = _Lag()
    stands.of(0.0, 7.0)
    assert stands.of(0.5, 7.0) == 0.5, "the same time again is no clock that was set back"


def test_the_quickest_frame_is_that_of_the_last_minute() -> None:
    lag = _Lag()
    lag.of(0.0, 500.0)
    assert [lag.of(float(second), second + 499.0) for second in range(1, 61)] == [1.0] * 60
    assert lag.of(60.5, 559.5) == 0.0


def test_a_quicker_frame_than_those_before_it_counts_from_then_on() -> None:
    lag = _Lag()
    for arrival, delay in ((0.0, 1.0), (10.0, 1.4), (20.0, 1.2)):
        lag.of(arrival, arrival - delay)
    assert lag.of(60.5, 59.0) == pytest.approx(0.3), "1.5 s, and the quickest of the last minute took 1.2 s"


def test_a_source_that_gives_only_garbage_for_four_seconds_is_lost(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _ticking(monkeypatch)

    def garbage() -> Script:
        for _ in range(20):
            clock.now += 1.0
            yield DecodeError("x")

    camera, inbox, _ = start(garbage(), reconnect=False)
    items = until(inbox, "lost")
    assert isinstance(items[-1], StateRecord)
    assert items[-1].detail == "no frame that can be decoded for 4 s"
    assert [item.frame for item in items if isinstance(item, LiveFailure)] == [0, 1, 2, 3, 4]
    assert (camera.received, camera.dropped, camera.undecided) == (5, 0, 0)


def test_every_failure_in_a_row_waits_longer_until_frames_came_for_two_seconds(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    clock = _ticking(monkeypatch)
    asked: list[tuple[float, float]] = []
    monkeypatch.setattr(
        camera_module, "random", SimpleNamespace(uniform=lambda low, high: asked.append((low, high)) or 1.0)
    )

    def frames(seconds: float) -> Script:
        for _ in range(10):
            clock.now += seconds / 10
            yield None

    refused = SourceError("connection refused")
    camera, inbox, _ = start(refused, refused, refused, frames(1.9), frames(2.1), refused)
    lost = [next(i for i in reversed(until(inbox, "lost")) if isinstance(i, StateRecord)) for _ in range(6)]
    assert [item.retry for item in lost] == [0.05, 0.1, 0.1, 0.1, 0.05, 0.1]
    assert set(asked) == {(0.8, 1.2)}
    assert camera.reconnects == 1


def test_a_source_is_stalled_after_two_seconds_and_says_so_once(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _ticking(monkeypatch)
    hold = threading.Event()

    def one_frame() -> Script:
        yield None
        hold.wait(5)

    camera, inbox, _ = start(one_frame(), reconnect=False)
    until(inbox, "live")
    for seconds, states in ((2.0, []), (0.1, ["stalled"]), (1.0, [])):
        clock.now += seconds
        camera.watch()
        items = [inbox.take(0) for _ in range(3)]
        changes = [item for item in items if isinstance(item, StateRecord)]
        assert [item.state for item in changes] == states
        assert all(item.detail == "no frame for 2.1 s" for item in changes)
    hold.set()
    until(inbox, "lost")


def test_skipped_frames_keep_a_source_alive(start: Start, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = _ticking(monkeypatch)

    def ticks() -> Script:
        for _ in range(10):
            clock.now += 0.5
            yield None

    camera, inbox, _ = start(ticks(), fps=0.2, reconnect=False)
    until(inbox, "lost")
    assert (camera.received, camera.skipped, camera.dropped) == (10, 9, 1)
    assert camera._newest == 1005.0


def test_a_camera_is_opened_again_after_half_a_second_then_later_and_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(camera_module, "random", SimpleNamespace(uniform=lambda low, high: 1.0))

    def refused(url: str) -> Scripted:
        raise SourceError("connection refused")

    inbox: Inbox[object] = Inbox(2)
    camera = Camera(SOURCE, inbox, connect=refused)  # type: ignore[arg-type]
    waited: list[float] = []

    class Impatient(threading.Event):
        def wait(self, timeout: float | None = None) -> bool:
            waited.append(timeout or 0.0)
            if len(waited) == 7:
                self.set()
            return True

    camera._leave = Impatient()
    camera.start()
    assert camera.join(5)
    assert waited == [0.5, 1.0, 2.0, 4.0, 5.0, 5.0, 5.0]
