"""A live source in a separate process gives the same pictures; a stream that breaks it ends that connection only."""

from __future__ import annotations

import itertools
import os
import signal
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from child_samples import children, is_gone, write_child
from live_samples import free_port, serving, until
from runtime_samples import black_png, encoded, environment, picture, read_stamp, stamped

from asr_runtime import Detector, screen
from asr_runtime.cameras.camera import Camera, LiveFrame
from asr_runtime.cameras.inbox import Inbox
from asr_runtime.cameras.streams import Stream, open_stream
from asr_runtime.errors import DecodeError, InputError, SourceError
from asr_runtime.isolation.stream import IsolatedStream
from asr_runtime.media.image import decode_image
from asr_runtime.media.video import MAX_FRAME_PIXELS
from asr_runtime.records import FrameRecord, SourceState, StateRecord
from asr_runtime.screening.screen import open_isolated_stream
from asr_runtime.sources.live import LiveSource

STAMPED = [encoded(stamped(index), ".jpg") for index in range(100)]
MIB = 1 << 20


def child() -> int:
    """Process id of the stream that was opened last."""
    return children("asr_runtime.isolation.stream")[-1]


@contextmanager
def mjpeg(*pictures: bytes, lasting: bool = True, interval: float = 0.04) -> Iterator[str]:
    """An HTTP camera that sends these pictures, over and over if it is `lasting`; gives its URL."""
    over = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if self.path != "/camera":
                self.send_error(404)
                return
            self.send_response(200)
            self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=picture")
            self.end_headers()
            for data in itertools.cycle(pictures) if lasting else pictures:
                try:
                    self.wfile.write(b"--picture\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(data), data))
                except OSError:
                    return
                if over.wait(interval):
                    return

        def log_message(self, *arguments: Any) -> None:
            pass

    with serving(Handler) as root:
        try:
            yield f"{root}/camera"
        finally:
            over.set()


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with mjpeg(*STAMPED) as place:
        yield place


@pytest.fixture
def stream(url: str) -> Iterator[IsolatedStream]:
    with closing(IsolatedStream(url, read_timeout=2.0)) as opened:
        yield opened


def failure(attempt: Callable[[], object]) -> tuple[type[InputError], str]:
    with pytest.raises(InputError) as caught:
        attempt()
    return caught.type, str(caught.value)


def test_pictures_are_those_of_the_source(stream: IsolatedStream) -> None:
    for _ in range(10):
        assert stream.grab() is None
        image = stream.retrieve()
        assert np.array_equal(image, decode_image(STAMPED[read_stamp(image)], "frame"))
        assert image.flags.writeable
        assert image.flags.owndata


def test_what_cannot_be_opened_says_the_same_as_in_this_process(url: str) -> None:
    wrong = [
        f"http://127.0.0.1:{free_port()}/camera",
        f"rtsp://127.0.0.1:{free_port()}/camera",
        f"{url}-that-is-not",
        "/dev/video99",
    ]
    for each in wrong:
        assert failure(partial(IsolatedStream, each)) == failure(partial(open_stream, each))
    assert not children("asr_runtime.isolation.stream")


@pytest.mark.parametrize("connect", [open_stream, IsolatedStream])
def test_a_damaged_and_a_giant_picture_are_skipped_and_the_end_is_reported(connect: Callable[[str], Stream]) -> None:
    giant = black_png(8200)
    with (
        mjpeg(STAMPED[1], b"\xff\xd8 nothing", giant, STAMPED[2], lasting=False) as place,
        closing(connect(place)) as it,
    ):
        outcomes = []
        for _ in range(4):
            it.grab()
            try:
                outcomes.append(str(read_stamp(it.retrieve())))
            except DecodeError as error:
                outcomes.append(str(error))
        kind, end = failure(it.grab)
    assert outcomes[0] == "1"
    assert outcomes[1].startswith("frame: not a complete image")
    assert outcomes[2] == f"a frame of more than {MAX_FRAME_PIXELS} pixels"
    assert outcomes[3] == "2"
    assert (kind, end) == (SourceError, "the source ended the stream")


class Watched:
    """A camera in a separate process, and the states and frames that it gives."""

    def __init__(self, name: str, url: str) -> None:
        self._inbox: Inbox[Any] = Inbox(2)
        self.camera = Camera(LiveSource(name, url), self._inbox, connect=open_isolated_stream)
        self.states: list[StateRecord] = []
        self.frames = 0
        self.camera.start()

    def has(self, state: SourceState, times: int = 1) -> bool:
        """Take what came, and say whether the camera was so often in this state."""
        while (item := self._inbox.take(0)) is not None:
            if isinstance(item, StateRecord):
                self.states.append(item)
            self.frames += isinstance(item, LiveFrame)
        return sum(each.state == state for each in self.states) >= times

    def close(self) -> None:
        self.camera.leave()
        assert self.camera.join(5)


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_stream_that_dies_is_lost_and_comes_back_and_no_other_is(url: str, number: signal.Signals) -> None:
    with closing(Watched("door", url)) as door:
        until(lambda: door.has("live"))
        pid = child()
        with closing(Watched("yard", url)) as yard:
            until(lambda: yard.has("live"))
            os.kill(pid, number)
            until(lambda: door.has("live", 2))
            seen = yard.frames
            until(lambda: not yard.has("lost") and yard.frames > seen + 5)
            assert pid not in children("asr_runtime.isolation.stream")
            assert len(children("asr_runtime.isolation.stream")) == 2
            assert [each.state for each in yard.states] == ["connecting", "live"]
    assert [each.state for each in door.states] == ["connecting", "live", "lost", "connecting", "live"]
    lost = door.states[2]
    assert lost.detail == f"decoding crashed (signal {int(number)}); the stream may be damaged, or made to do this"
    assert lost.retry == pytest.approx(0.5, rel=0.2)
    assert door.camera.reconnects == 1
    assert not children("asr_runtime.isolation.stream")


def test_a_stream_that_hangs_is_ended(url: str) -> None:
    with closing(IsolatedStream(url, read_timeout=0.5)) as stream:
        stream.grab()
        pid = child()
        os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        assert "no frame within 0.5 s of decoding" in failure(stream.retrieve)[1]
        assert 0.5 <= time.monotonic() - began < 2
        assert is_gone(pid)
        assert "decoding was closed" in failure(stream.grab)[1]


def test_a_stream_that_hangs_can_be_closed(stream: IsolatedStream) -> None:
    pid = child()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 2
    assert is_gone(pid)


def test_a_picture_that_needs_more_memory_than_allowed_ends_the_stream() -> None:
    with mjpeg(STAMPED[0], black_png(16_000)) as place, closing(IsolatedStream(place, memory=256 * MIB)) as stream:
        stream.grab()
        stream.retrieve()
        stream.grab()
        expected = "decoding takes more than 256 MiB of memory; scale it down"
        assert failure(stream.retrieve) == (SourceError, expected)


def test_a_password_is_handed_over_unseen(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "hunter2")
    with closing(IsolatedStream(url.replace("://", "://viewer:hunter2@"))) as stream:
        stream.grab()
        folder = Path(f"/proc/{child()}")
        for name in ("cmdline", "environ"):
            seen = (folder / name).read_bytes()
            assert b"python" in seen.lower()
            assert b"hunter2" not in seen
            assert b"viewer" not in seen
        os.kill(child(), signal.SIGKILL)
        assert "hunter2" not in failure(stream.grab)[1]
    assert "hunter2" not in failure(lambda: IsolatedStream(f"rtsp://viewer:hunter2@127.0.0.1:{free_port()}/"))[1]


def test_the_process_is_limited_and_hears_no_ctrl_c(stream: IsolatedStream) -> None:
    limit = psutil.Process(child()).rlimit
    assert limit(psutil.RLIMIT_CORE) == limit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert limit(psutil.RLIMIT_NOFILE) == (64, 64)
    assert 1 << 30 < limit(psutil.RLIMIT_AS)[1] < 2 << 30
    assert "onnxruntime" not in Path(f"/proc/{child()}/maps").read_text()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child(), number)
    stream.grab()


def test_the_process_does_not_outlive_its_parent_in_a_blocked_read() -> None:
    code = """
import os, sys
from pathlib import Path
from asr_runtime.isolation.stream import IsolatedStream
stream = IsolatedStream(sys.argv[1])
stream.grab()
print(Path(f"/proc/self/task/{os.getpid()}/children").read_text(), flush=True)
stream.grab()
"""
    with mjpeg(STAMPED[0], interval=60) as silent:
        command = [sys.executable, "-c", code, silent]
        parent = subprocess.Popen(command, env=environment(), stdout=subprocess.PIPE, text=True)
        with parent:
            assert parent.stdout is not None
            pid = int(parent.stdout.readline())
            time.sleep(0.2)
            parent.kill()
        assert is_gone(pid)


def test_many_connections_leave_no_process_and_no_descriptor(url: str) -> None:
    IsolatedStream(url).close()
    before = psutil.Process().num_fds()
    for number in (None, signal.SIGKILL, None, signal.SIGSEGV):
        with closing(IsolatedStream(url)) as stream:
            stream.grab()
            if number:
                os.kill(child(), number)
                assert f"signal {int(number)}" in failure(stream.grab)[1]
    assert not children("asr_runtime.isolation.stream")
    assert psutil.Process().num_fds() == before


def test_a_run_opens_its_cameras_so_and_leaves_none(url: str, detector: Detector) -> None:
    records = screen([url], detector, isolate=True, duration=20)
    frame = next(record for record in records if isinstance(record, FrameRecord))
    assert frame.age is not None
    pid = child()
    records.close()
    assert is_gone(pid)


def answer(kind: bytes, own_time: float = 0.0, height: int = 0, width: int = 0, text: int = 0) -> bytes:
    return struct.pack("<cdIII", kind, own_time, height, width, text)


OPENED = answer(b"r") + answer(b"o")
GRABBED = OPENED + answer(b"g")
NONSENSE = {
    "other bytes": b"\x80\x04\x95" * 100,
    "a picture before the stream is open": answer(b"r") + answer(b"p", 0, 1, 1) + bytes(3),
    "open twice": OPENED + answer(b"o"),
    "a picture for a time": OPENED + answer(b"p", 0, 1, 1) + bytes(3),
    "a time that never comes": OPENED + answer(b"g", float("inf")),
    "a time with a size": OPENED + answer(b"g", 0, 1, 1),
    "a picture of no pixels": GRABBED + answer(b"p", 0, 1, 0),
    "more pixels than a frame may have": GRABBED + answer(b"p", 0, 1 << 14, (1 << 12) + 1),
    "more pixels than there are": GRABBED + answer(b"p", 0, (1 << 32) - 1, (1 << 32) - 1),
    "lost in place of a picture": GRABBED + answer(b"S"),
    "a text without end": GRABBED + answer(b"D", text=1 << 31),
}


@pytest.fixture
def replace_child(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[bytes], None]:
    """Make every child one that was taken over and answers with these bytes."""

    def replace(data: bytes) -> None:
        monkeypatch.setattr(sys, "executable", str(write_child(tmp_path, data)))

    return replace


def read_one() -> None:
    with closing(IsolatedStream("rtsp://127.0.0.1/")) as stream:
        stream.grab()
        stream.retrieve()


@pytest.mark.parametrize("nonsense", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_stream_that_took_over_its_process_is_not_believed(
    replace_child: Callable[[bytes], None], nonsense: bytes
) -> None:
    replace_child(nonsense)
    began = time.monotonic()
    kind, message = failure(read_one)
    assert time.monotonic() - began < 3
    assert kind is SourceError
    assert message.startswith("decoding crashed (its answer is malformed); ")


def test_a_reason_brings_no_control_characters(replace_child: Callable[[bytes], None]) -> None:
    reason = b"gone\x1b[2J\nlive\xff\x00"
    replace_child(answer(b"r") + answer(b"S", text=len(reason)) + reason)
    assert failure(read_one) == (SourceError, "gone [2J live  ")


def test_a_process_that_does_not_start_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert "decoding crashed (exit status 1)" in failure(read_one)[1]
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    assert "decoding does not start" in failure(read_one)[1]


def test_a_large_picture_arrives_as_it_is() -> None:
    data = encoded(picture(1, 1080, 1920), ".jpg")
    with mjpeg(data) as place, closing(IsolatedStream(place)) as stream:
        stream.grab()
        assert np.array_equal(stream.retrieve(), decode_image(data, "frame"))
