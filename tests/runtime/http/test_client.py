"""The HTTP client against servers that are slow, too large, that redirect, ask for passwords or send nonsense."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest
from http_login import is_let_in, question
from live_samples import free_port

from asr_runtime.errors import ConfigurationError
from asr_runtime.http.client import fetch, open_url
from asr_runtime.http.connection import HttpError


class Server:
    """Answers every request with what a function makes of its head; `heads` are those that came."""

    def __init__(self, answer: Callable[[str], bytes | None], drip: float = 0) -> None:
        self.heads: list[str] = []
        self._answer, self._drip = answer, drip
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=32)
        self.over = threading.Event()
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._listener.close()

    def _serve(self) -> None:
        while not self.over.is_set():
            try:
                connection = self._listener.accept()[0]
            except OSError:
                return
            threading.Thread(target=self._converse, args=[connection], daemon=True).start()

    def _converse(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(1 << 16)
            self.heads.append(head.decode())
            if (answer := self._answer(head.decode())) is None:
                self.over.wait(20)
            elif self._drip:
                for byte in answer:
                    connection.sendall(bytes([byte]))
                    if self.over.wait(self._drip):
                        return
            else:
                connection.sendall(answer)


@contextmanager
def serving(answer: Callable[[str], bytes | None], drip: float = 0) -> Iterator[Server]:
    server = Server(answer, drip)
    try:
        yield server
    finally:
        server.close()


def reply(body: bytes = b"", status: str = "200 OK", *headers: str, length: int | None = -1) -> bytes:
    lines = [f"HTTP/1.1 {status}", "Content-Type: image/jpeg", *headers]
    lines += [] if length is None else [f"Content-Length: {len(body) if length < 0 else length}"]
    return "\r\n".join([*lines, "", ""]).encode() + body


def redirect(target: str, status: int = 302) -> bytes:
    return reply(b"", f"{status} Moved", f"Location: {target}")


def path_of(head: str) -> str:
    return head.split(" ")[1]


def test_a_file_is_fetched_with_its_type() -> None:
    with serving(lambda head: reply(b"picture")) as server:
        fetched = fetch(server.url + "/a b.jpg?x=ü", 5, 100)
    assert (fetched.data, fetched.media_type) == (b"picture", "image/jpeg")
    assert path_of(server.heads[0]) == "/a%20b.jpg?x=%C3%BC"
    assert f"Host: {server.url.removeprefix('http://')}\r\n" in server.heads[0]


def test_a_body_without_a_length_ends_with_its_connection() -> None:
    with serving(lambda head: reply(b"picture", length=None)) as server:
        assert fetch(server.url, 5, 100).data == b"picture"


@pytest.mark.parametrize("length", [-1, None])
def test_a_file_that_is_too_large_is_refused(length: int | None) -> None:
    with serving(lambda head: reply(bytes(1_000_001), length=length)) as server:
        with pytest.raises(HttpError, match="larger than 1 MB"):
            fetch(server.url, 5, 1_000_000)
        assert len(fetch(server.url, 5, 1_000_001).data) == 1_000_001


def test_an_announced_size_that_is_too_large_is_not_waited_for() -> None:
    with serving(lambda head: reply(b"", length=10**15)) as server, pytest.raises(HttpError, match="larger than"):
        fetch(server.url, 20, 1000)


def test_a_file_that_is_cut_short_is_an_error() -> None:
    with serving(lambda head: reply(b"pict", length=7)) as server, pytest.raises(HttpError, match="cut short: 4 of 7"):
        fetch(server.url, 5, 100)


def test_a_damaged_length_of_a_chunk_is_put_into_words() -> None:
    chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\nhello\r\n"
    with serving(lambda head: chunked) as server, pytest.raises(HttpError, match="its answer is cut short or damaged"):
        fetch(server.url, 5, 100)


@pytest.mark.parametrize(
    "answer", [b"", b"HTTP/1.1 200 OK\r\nX: y\r\n\r\nbody that goes on", b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 90]
)
def test_a_server_that_sends_a_byte_now_and_then_holds_nobody_up(answer: bytes) -> None:
    with serving(lambda head: (answer or None) and answer * 9, drip=0.05) as server:
        started = time.monotonic()
        with pytest.raises(HttpError, match=r"within 0\.5 s"):
            fetch(server.url, 0.5, 1 << 20)
        assert 0.4 < time.monotonic() - started < 3


def test_a_tls_handshake_that_never_ends_holds_nobody_up() -> None:
    with serving(lambda head: None) as server, pytest.raises(HttpError, match=r"no answer within 0\.5 s"):
        open_url(server.url.replace("http:", "https:"), 0.5)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
def test_a_redirect_on_the_same_host_is_followed_to_fetch_a_file(status: int) -> None:
    with serving(lambda head: reply(b"picture") if path_of(head) == "/b?c" else redirect("/b?c", status)) as server:
        fetched = fetch(server.url + "/a", 5, 100)
    assert (fetched.data, fetched.url) == (b"picture", server.url + "/b?c")


def test_redirects_have_an_end() -> None:
    with serving(lambda head: redirect("/again")) as server, pytest.raises(HttpError, match="more than 3 times"):
        fetch(server.url, 5, 100)
    assert len(server.heads) == 4


def test_no_server_points_to_another_host_or_port() -> None:
    with serving(lambda head: reply(b"secret")) as other:
        port = other.url.rpartition(":")[2]
        for target in (
            other.url,
            f"//127.0.0.1:{port}/x",
            f"http://localhost:{port}/",
            f"https://127.0.0.1:{port}/",
            "file:///etc/passwd",
            "http://[abc/x",
            "http://me:secret@" + "x" * 20_000 + "/",
            "http://" + "a@" * 8_000,
        ):
            with serving(lambda head, target=target: redirect(target)) as server:
                started = time.monotonic()
                for ask in (lambda url: fetch(url, 5, 100), lambda url: open_url(url, 5)):
                    with pytest.raises(HttpError, match=r"it redirects to .*, which is not followed") as refusal:
                        ask(server.url)
                    assert refusal.value.status == 302
                    assert len(str(refusal.value)) < 500
                    assert "secret" not in str(refusal.value)
                assert time.monotonic() - started < 2
        assert other.heads == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (reply(b"", "302 Found"), r"it redirects without saying where \(302\): check the URL"),
        (redirect(""), r"it redirects without saying where \(302\): check the URL"),
        (reply(b"", "304 Not Modified", "Location: /b"), "the server answered 304 Not Modified"),
        (reply(b"", "300 Choices"), "the server answered 300 Choices"),
    ],
)
def test_an_answer_that_leads_nowhere_is_no_redirect(answer: bytes, message: str) -> None:
    with serving(lambda head: answer) as server, pytest.raises(HttpError, match=message):
        fetch(server.url, 5, 100)
    assert len(server.heads) == 1


def test_only_a_fetch_follows() -> None:
    with serving(lambda head: redirect("/b")) as server, pytest.raises(HttpError, match="it redirects to /b"):
        open_url(server.url, 5)
    assert len(server.heads) == 1


@pytest.mark.parametrize("scheme", ["Basic", "Digest", "Digest SHA-256", "Digest SHA-256-sess", "Digest MD5-sess"])
@pytest.mark.parametrize("quality", ["auth", "auth-int", "auth,auth-int", ""])
def test_a_password_is_sent_the_way_that_the_server_asks_for(scheme: str, quality: str) -> None:
    def answer(head: str) -> bytes:
        fields = dict(line.split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
        if is_let_in(fields.get("Authorization", ""), "me", "p@ss ü", scheme):
            return reply(b"picture")
        return reply(b"", "401 Unauthorized", f"WWW-Authenticate: {question(scheme, quality)}")

    with serving(answer) as server:
        place = server.url.removeprefix("http://")
        assert fetch(f"http://me:p@ss ü@{place}/a", 5, 100).data == b"picture"
        with pytest.raises(HttpError, match=r"wrong user or password \(401\)"):
            fetch(f"http://me:wrong@{place}/a", 5, 100)
        with pytest.raises(HttpError, match=r"it asks for a password \(401\): give"):
            fetch(server.url, 5, 100)


def test_a_login_that_is_not_known_is_named() -> None:
    unknown = "WWW-Authenticate: Digest algorithm=SHA-3, nonce=a"
    with serving(lambda head: reply(b"", "401 No", unknown)) as server, pytest.raises(HttpError, match="digest SHA-3"):
        fetch(server.url.replace("//", "//me:secret@"), 5, 100)


@pytest.mark.parametrize(
    ("status", "words"),
    [("404 Not Found", r"nothing at this path \(404\)"), ("503 Busy", "the server answered 503 Busy"), ("204 No", "")],
)
def test_other_answers_are_put_into_words(status: str, words: str) -> None:
    with serving(lambda head: reply(b"", status)) as server:
        if words:
            with pytest.raises(HttpError, match=words):
                fetch(server.url, 5, 100)
        else:
            assert fetch(server.url, 5, 100).data == b""


@pytest.mark.parametrize(
    "nonsense",
    [
        b"no HTTP at all\r\n\r\n",
        b"\0" * 100,
        b"HTTP/1.1 abc\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 200 + b"\r\n",
    ],
)
def test_a_server_that_talks_nonsense_is_an_error_in_one_line(nonsense: bytes) -> None:
    with serving(lambda head: nonsense) as server, pytest.raises(HttpError) as failure:
        fetch(server.url, 5, 100)
    assert str(failure.value)
    assert str(failure.value).isprintable()


def test_nobody_there_is_an_error() -> None:
    with pytest.raises(HttpError, match="Connection refused: nothing listens there"):
        open_url(f"http://127.0.0.1:{free_port()}/", 5)


def test_proxies_of_the_environment_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    with serving(lambda head: reply(b"picture")) as server:
        assert fetch(server.url, 5, 100).data == b"picture"


def test_a_url_that_cannot_be_is_refused_before_anything_is_connected() -> None:
    for url in ("http://[abc/x", "file:///etc/passwd", "http://h:0/"):
        with pytest.raises(ConfigurationError):
            fetch(url, 5, 100)


@pytest.mark.parametrize("header", ["multipart/x-mixed-replace;" + ';a="' * 16_000, "x" * 60_000, "/", ";" * 60_000])
def test_a_long_content_type_costs_no_time(header: str) -> None:
    answer = b"HTTP/1.1 200 OK\r\nContent-Type: " + header.encode() + b"\r\nContent-Length: 0\r\n\r\n"
    with serving(lambda head: answer) as server:
        started = time.monotonic()
        response = open_url(server.url, 5)
        assert isinstance(response.parameter("boundary"), str)
        response.close()
        assert time.monotonic() - started < 1
