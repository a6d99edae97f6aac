"""Connections to cameras that give a picture for each request, or ask for a digest of another kind, on real sockets."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress

import pytest
from http_login import is_let_in, question
from runtime_samples import encoded, picture

from asr_runtime.cameras.streams import open_stream
from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.isolation.stream import IsolatedStream


@contextmanager
def camera(answer: Callable[[str], bytes], scheme: str = "http") -> Iterator[tuple[str, list[str]]]:
    """Serve answers to the heads of requests; gives the URL, with a login, and the heads that came."""
    heads: list[str] = []

    def converse(connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while data := connection.recv(1 << 16):
                head += data
                if head.endswith(b"\r\n\r\n"):
                    heads.append(head.decode())
                    connection.sendall(answer(head.decode()))
                    if scheme == "http":
                        return
                    head = b""

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=converse, args=[listener.accept()[0]], daemon=True).start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        yield f"{scheme}://me:secret@127.0.0.1:{listener.getsockname()[1]}/camera", heads
        listener.shutdown(socket.SHUT_RDWR)


def http(body: bytes, kind: str = "image/jpeg", status: str = "200 OK", header: str = "X: y") -> bytes:
    return (
        f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{header}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    )


def header_of(head: str, name: str = "Authorization") -> str:
    fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
    return fields.get(name, "")


@pytest.mark.parametrize("connect", [open_stream, IsolatedStream])
def test_a_camera_that_gives_a_picture_for_each_request_is_polled(connect: Callable[..., object]) -> None:
    shots = iter([*[encoded(picture(seed), ".jpg") for seed in range(4)], b"\xff\xd8 no picture"])
    with camera(lambda head: http(next(shots))) as (url, heads):
        stream = connect(url, fps=5)
        with closing(stream):
            started = time.monotonic()
            shapes = []
            for _ in range(3):
                stream.grab()
                shapes.append(stream.retrieve().shape)
            assert time.monotonic() - started >= 0.35
            stream.grab()
            with pytest.raises(DecodeError):
                stream.retrieve()
    assert shapes == [(48, 64, 3)] * 3
    assert len(heads) == 5


@pytest.mark.parametrize("fps", [None, 0.01, 1e9])
def test_a_camera_is_polled_neither_too_often_nor_too_rarely(fps: float | None) -> None:
    with (
        camera(lambda head: http(encoded(picture(), ".jpg"))) as (url, heads),
        closing(open_stream(url, fps)) as stream,
    ):
        started = time.monotonic()
        for _ in range(3):
            stream.grab()
        assert 0.19 < time.monotonic() - started < 5
    assert len(heads) == 4


def test_a_polled_camera_that_asks_for_a_password_asks_once() -> None:
    def answer(head: str) -> bytes:
        if is_let_in(header_of(head), "me", "secret", "Digest SHA-256"):
            return http(encoded(picture(), ".jpg"))
        return http(b"", status="401 No", header=f"WWW-Authenticate: {question('Digest SHA-256')}")

    with camera(answer) as (url, heads), closing(open_stream(url, 10)) as stream:
        for _ in range(3):
            stream.grab()
            assert stream.retrieve().shape == (48, 64, 3)
    assert len([head for head in heads if not header_of(head)]) == 2, "when it was opened, and when polling began"


def test_a_polled_camera_that_is_lost_says_why() -> None:
    answers = iter([http(b"x"), http(b"x", status="503 Busy")])
    with camera(lambda head: next(answers)) as (url, _), closing(open_stream(url)) as stream:  # noqa: SIM117
        with pytest.raises(SourceError, match="the server answered 503 Busy"):
            stream.grab()


@pytest.mark.parametrize(
    ("offers", "named"),
    [
        (["Digest SHA-256"], "it asks for a digest with SHA-256, which OpenCV's FFmpeg does not know over RTSP"),
        (["Digest MD5", "Digest SHA-256-sess"], "it asks for a digest with SHA-256-sess, which"),
        (["Digest SHA-256", "Digest MD5"], "gives no video"),
        (["Digest MD5-sess"], "gives no video"),
        (["Basic"], "gives no video"),
    ],
)
def test_a_digest_that_ffmpeg_does_not_know_is_named(offers: list[str], named: str) -> None:
    best = next(offer for offer in sorted(offers, key=lambda offer: "SHA" not in offer))

    def answer(head: str) -> bytes:
        number = header_of(head, "CSeq")
        if head.startswith("OPTIONS") or is_let_in(header_of(head), "me", "secret", best, method="DESCRIBE"):
            return f"RTSP/1.0 200 OK\r\nCSeq: {number}\r\nContent-Length: 0\r\n\r\n".encode()
        questions = "".join(f"WWW-Authenticate: {question(offer)}\r\n" for offer in offers)
        return f"RTSP/1.0 401 Unauthorized\r\nCSeq: {number}\r\n{questions}\r\n".encode()

    with camera(answer, "rtsp") as (url, _), pytest.raises(SourceError, match=named):
        open_stream(url)
    with camera(answer, "rtsp") as (url, _), pytest.raises(SourceError, match=r"wrong user or password \(401\)"):
        open_stream(url.replace("secret", "wrong"))


def test_headers_of_an_rtsp_server_cost_no_time() -> None:
    blanks = " " * 60_000
    answer = f"RTSP/1.0 302 Moved\r\nX: y{blanks}z\r\nLocation:{blanks}rtsp://u:secret@h/{'a@' * 1000}\r\n\r\n".encode()
    with camera(lambda head: answer[:65_000], "rtsp") as (url, _):
        started = time.monotonic()
        with pytest.raises(SourceError) as failure:
            open_stream(url)
        assert time.monotonic() - started < 6
    assert "secret" not in str(failure.value)
    assert len(str(failure.value)) < 500
