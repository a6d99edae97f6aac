"""Clients of asr-serve that stall, lie about lengths or send bombs, beside one that does not: rows 30 to 32."""

from __future__ import annotations

import contextlib
import gzip
import json
import re
import statistics
import struct
import threading
import time
import urllib.parse
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
from bombs import h264, png, resized
from child_samples import peak_megabytes
from fault_clips import MJPEG, encode, plain_frames
from runtime_samples import EXAMPLES, encoded
from serve_samples import Client, command, connect_and_send, read_to_end, request_head

from asr_runtime.media.image import decode_image

Measured = Callable[[str], None]
PHOTO = (EXAMPLES / "real/dress.jpg").read_bytes()
PATIENCE = 10.0  # seconds, of asr-serve

pytestmark = pytest.mark.heavy


@dataclass
class Honest:
    """A client that posts the same photo again and again, and what it got."""

    client: Client
    probability: float
    seconds: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    @contextlib.contextmanager
    def posting(self) -> Iterator[None]:
        stop = threading.Event()

        def post() -> None:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    (record,) = self.client.screen(PHOTO)["records"]
                    problem = "" if record.get("probability") == self.probability else json.dumps(record)
                except (OSError, AssertionError) as error:
                    problem = repr(error)
                self.seconds.append(time.monotonic() - began)
                if problem:
                    self.wrong.append(problem)
                time.sleep(0.02)

        thread = threading.Thread(target=post)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(60)

    def account(self, before: Honest) -> str:
        assert self.wrong == []
        assert max(self.seconds) < 10.0
        return (
            f"another client meanwhile: {len(self.seconds)} of {len(self.seconds)} answers right, median "
            f"{statistics.median(self.seconds):.3f} s (before {statistics.median(before.seconds):.3f} s), slowest "
            f"{max(self.seconds):.2f} s"
        )


@dataclass
class Served:
    """asr-serve with a built-in model and the limits that users have, in a separate process."""

    client: Client
    process: int
    before: Honest

    def honest(self) -> Honest:
        """Return another client that has asked nothing yet."""
        return Honest(self.client, self.before.probability)

    def megabytes(self) -> tuple[float, float]:
        """Return the most memory so far: of the server, and of the largest decoder that lives."""
        decoders = [child.pid for child in psutil.Process(self.process).children()]
        return peak_megabytes(self.process), max(map(peak_megabytes, decoders), default=0.0)


@pytest.fixture
def served() -> Iterator[Served]:
    with command("--port", 0, "--model", "asrnet-lite-tiny", "--device", "cpu", "--workers", 2) as (process, address):
        client = Client(address)
        while client.ask("GET", "/readyz")[0] != 200:
            time.sleep(0.05)
        (record,) = client.screen(PHOTO)["records"]
        before = Honest(client, record["probability"])
        with before.posting():
            time.sleep(1.0)
        yield Served(client, process.pid, before)


@pytest.mark.fault(30)
def test_clients_that_stall_are_cut_off_and_hold_up_no_one(served: Served, measured: Measured) -> None:
    size = f"Content-Length: {len(PHOTO)}"
    half = PHOTO[: len(PHOTO) // 2]
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n'
    kinds = {
        "nothing": b"",
        "half a request line": b"POST /v1/scr",
        "half the headers": b"POST /v1/screen HTTP/1.1\r\nHost: localhost\r\n",
        "half the body": request_head(size) + half,
        "half a form": request_head(size, "Content-Type: multipart/form-data; boundary=x") + part + half,
        "half a chunk": request_head("Transfer-Encoding: chunked") + b"fffff\r\n" + half,
    }
    honest = served.honest()
    with honest.posting():
        began = time.monotonic()
        connections = [(kind, connect_and_send(served.client, sent)) for _ in range(10) for kind, sent in kinds.items()]
        answers: list[tuple[str, bytes]] = []
        for kind, connection in connections:
            answers.append((kind, read_to_end(connection)))
        seconds = time.monotonic() - began
    for kind, text in answers:
        is_body = kind in ("half the body", "half a form", "half a chunk")
        assert text.startswith(b"HTTP/1.1 408 ") if is_body else text == b"", (kind, text)
    assert PATIENCE - 1 < seconds < PATIENCE + 20
    assert b"asr_upload_bytes 0.0" in served.client.ask("GET", "/metrics")[2]
    measured(f"{len(answers)} clients that stall in {len(kinds)} ways: all cut off after {seconds:.1f} s")
    measured(honest.account(served.before))


@pytest.mark.fault(31)
def test_clients_that_lie_about_lengths_cost_only_themselves(served: Served, measured: Measured) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + PHOTO
    form = "Content-Type: multipart/form-data; boundary=x"
    size = len(PHOTO)
    lies = {
        "more than allowed": (request_head(f"Content-Length: {1 << 40}"), (413,)),
        "more than a number holds": (request_head("Content-Length: " + "9" * 40), (400,)),
        "below 0": (request_head("Content-Length: -1"), (400,)),
        "two lengths": (request_head(f"Content-Length: {size}", "Content-Length: 5") + PHOTO, (400,)),
        "a length and chunks": (
            request_head("Content-Length: 5", "Transfer-Encoding: chunked") + b"3\r\nabc\r\n0\r\n\r\n",
            (200, 400),
        ),
        "less than it sends": (request_head(f"Content-Length: {size}") + PHOTO + b"more\r\n\r\n", (200,)),
        "a chunk of 2^400 bytes": (request_head("Transfer-Encoding: chunked") + b"f" * 100 + b"\r\nabc", (400,)),
        "a chunk below 0": (request_head("Transfer-Encoding: chunked") + b"-5\r\nabc", (400,)),
        "a form without an end": (request_head(f"Content-Length: {len(part)}", form) + part, (400,)),
        "101 files": (
            request_head(f"Content-Length: {101 * (len(part) + 2) + 7}", form) + 101 * (part + b"\r\n") + b"--x--\r\n",
            (413,),
        ),
    }
    honest = served.honest()
    slowest = 0.0
    with honest.posting():
        for _ in range(6):
            for kind, (sent, statuses) in lies.items():
                began = time.monotonic()
                connection = connect_and_send(served.client, sent)
                status = connection.recv(65536).split(b" ")[1:2]
                slowest = max(slowest, time.monotonic() - began)
                connection.close()
                assert [int(number) in statuses for number in status] == [True], (kind, status)
        for _ in range(20):  # announce more than they send, and disconnect
            connect_and_send(served.client, request_head("Content-Length: 9000000") + PHOTO).close()
    deadline = time.monotonic() + 5
    while b"asr_upload_bytes 0.0" not in served.client.ask("GET", "/metrics")[2]:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    server, _ = served.megabytes()
    measured(f"{6 * len(lies)} requests that lie in {len(lies)} ways: answered within {slowest:.2f} s; 20 that leave")
    measured(f"{honest.account(served.before)}; server at {server:.0f} MB")


@pytest.fixture
def bombs(tmp_path: Path) -> dict[str, bytes]:
    photo = decode_image(PHOTO, "photo")
    files = {"30,000.png": png(30_000, 30_000), "noise.png.gz": gzip.compress(bytes(100 << 20))}
    for suffix in (".jpg", ".bmp", ".avif"):
        files[f"30,000{suffix}"] = resized(encoded(photo, suffix), 30_000)
    files["16,000.h264"] = h264(16_000)
    jpegs = encode(tmp_path / "jpegs.avi", plain_frames(3), "160x64", *MJPEG).read_bytes()
    claims = re.sub(rb"(\xff\xc0\0\x11\x08)....", rb"\1" + struct.pack(">HH", 16_000, 16_000), jpegs, flags=re.DOTALL)
    return {**files, "says 160.avi": claims}


@pytest.mark.fault(32)
def test_each_bomb_is_an_error_and_other_clients_are_served(
    served: Served, bombs: dict[str, bytes], measured: Measured
) -> None:
    honest = served.honest()
    slowest = ("", 0.0)
    with honest.posting():
        for name, data in bombs.items():
            began = time.monotonic()
            (record,) = served.client.screen(data, "name=" + urllib.parse.quote(name))["records"]
            slowest = max(slowest, (name, time.monotonic() - began), key=lambda pair: pair[1])
            assert (record["type"], record.get("probability")) == ("error", None), (name, record)
        # The largest picture that is allowed: 64 megapixels in a small file, all black, which is nothing to judge.
        (record,) = served.client.screen(png(8_192, 8_192), "name=largest.png")["records"]
        assert (record["type"], record.get("verdict")) == ("image", "unsure"), record
    server, decoder = served.megabytes()
    assert slowest[1] < 30
    assert server < 1500
    sizes = sum(map(len, bombs.values())) / 1e6
    measured(f"{len(bombs)} bombs, {sizes:.1f} MB in all: each an error, slowest {slowest[1]:.2f} s ({slowest[0]})")
    measured(f"{honest.account(served.before)}; server at most {server:.0f} MB, a decoder {decoder:.0f} MB")
