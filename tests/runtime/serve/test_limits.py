"""Clients that stall, lie or send too much cost only themselves."""

from __future__ import annotations

import json
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from runtime_samples import build_model, encoded, shade
from serve_samples import Client, Serve, connect_and_send, read_to_end, request_head

WHITE, BLACK = (encoded(shade(level, 32, 48), ".png") for level in (255, 0))
PATIENCE = 0.4


@pytest.fixture(scope="module")
def small(serve: Serve) -> Iterator[Client]:
    with serve(patience=PATIENCE, request_bytes=100_000, upload_bytes=150_000, files=3, open_files=4) as client:
        client.screen(WHITE)
        yield client


def head(length: int | str, *more: str) -> bytes:
    return request_head(f"Content-Length: {length}", *more)


@pytest.mark.parametrize(
    "sent", [b"", b"POST /v1", b"POST /v1/screen HTTP/1.1\r\nHost: localhost\r\n"], ids=["nothing", "half", "headers"]
)
def test_a_client_that_sends_no_request_is_cut_off(small: Client, sent: bytes) -> None:
    started = time.monotonic()
    assert read_to_end(connect_and_send(small, sent)) == b""
    assert time.monotonic() - started < 5


def test_headers_that_drip_do_not_keep_a_connection(small: Client) -> None:
    connection = connect_and_send(small, b"GET / HTTP/1.1\r\n")
    started = time.monotonic()

    def drip() -> None:
        while time.monotonic() - started < 10:
            connection.sendall(b"X-Drip: 1\r\n")
            time.sleep(PATIENCE / 5)

    with connection, pytest.raises(OSError):  # noqa: PT011 (reset, or broken pipe)
        drip()


def test_a_body_that_stalls_is_refused_and_forgotten(small: Client) -> None:
    for answer in (
        read_to_end(connect_and_send(small, head(50_000) + WHITE)),
        read_to_end(
            connect_and_send(small, head(50_000, "Content-Type: multipart/form-data; boundary=x") + b"--x\r\nContent-")
        ),
        read_to_end(connect_and_send(small, request_head("Transfer-Encoding: chunked") + b"5\r\nab")),
    ):
        assert b" 408 " in answer.splitlines()[0]
        assert b"the body came too slowly" in answer
    assert b"asr_upload_bytes 0.0" in small.ask("GET", "/metrics")[2]


def test_a_body_that_is_too_long_is_refused_before_it_is_read(small: Client) -> None:
    for length, status in (("100001", b" 413 "), ("9" * 19, b" 413 "), ("9" * 40, b" 400 "), ("-1", b" 400 ")):
        with connect_and_send(small, head(length)) as connection:
            assert status in connection.recv(65536).splitlines()[0]


def test_a_chunked_body_is_counted(small: Client) -> None:
    chunk = b"c350\r\n" + bytes(50_000) + b"\r\n"
    sent = b"POST /v1/screen HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n" + 3 * chunk
    assert b" 413 " in read_to_end(connect_and_send(small, sent)).splitlines()[0]


def test_a_body_longer_than_it_says_is_no_second_request(small: Client) -> None:
    answer = read_to_end(connect_and_send(small, head(len(BLACK)) + BLACK + b"and more\r\n\r\n"))
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b'"verdict": "real"' in answer
    assert b"HTTP/1.1 400" in answer


def test_files_and_bytes_of_all_clients_are_counted(small: Client) -> None:
    part = b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.png"\r\n\r\n' + WHITE + b"\r\n"
    kind = {"Content-Type": "multipart/form-data; boundary=x"}
    assert small.ask("POST", "/v1/screen", 4 * part + b"--x--\r\n", kind)[0] == 413
    waiting = [connect_and_send(small, head(90_000) + bytes(80_000)) for _ in range(2)]
    assert any(b" 429 " in c.recv(65536).splitlines()[0] for c in waiting)
    for connection in waiting:
        read_to_end(connection)
    assert small.screen(BLACK)["records"][0]["verdict"] == "real"


def test_the_next_request_beyond_the_queue_is_answered_429_and_later_ones_are_not(serve: Serve) -> None:
    with serve(model=build_model(work=20), workers=1, waiting=2) as client:
        statuses: list[tuple[int, dict[str, str]]] = []

        def ask() -> None:
            statuses.append(client.ask("POST", "/v1/screen", WHITE)[:2])

        client.screen(WHITE)
        threads = [threading.Thread(target=ask) for _ in range(12)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        refused = [headers for status, headers in statuses if status == 429]
        assert {status for status, _ in statuses} == {200, 429}
        assert all(int(headers["retry-after"]) >= 1 for headers in refused)
        assert client.screen(BLACK)["summary"]["scored"] == 1


def test_clients_that_do_not_read_or_go_away_do_not_hold_up_others(serve: Serve, clip_bytes: bytes) -> None:
    query = b"POST /v1/screen?format=jsonl&name=c.avi HTTP/1.1\r\nHost: localhost\r\n"
    request = query + b"Content-Length: %d\r\n\r\n" % len(clip_bytes) + clip_bytes
    with serve(workers=1, patience=PATIENCE) as client:
        deaf = []
        for _ in range(4):
            connection = socket.socket()
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            connection.connect((client.host, client.port))
            connection.sendall(request)
            deaf.append(connection)
        connect_and_send(client, request).close()
        assert client.screen(BLACK)["records"][0]["verdict"] == "real"
        assert client.screener is not None
        until = time.monotonic() + 10
        while client.screener.open_jobs:
            assert time.monotonic() < until
            time.sleep(0.02)
        for connection in deaf:
            connection.close()


@pytest.fixture(scope="module")
def clip_bytes(clip: object) -> bytes:
    from pathlib import Path

    return Path(str(clip)).read_bytes()


def test_a_refused_body_is_explained_in_json(small: Client) -> None:
    status, _, body = small.ask("POST", "/v1/screen", bytes(100_001))
    assert (status, json.loads(body)["error"]) == (413, "the body has 100001 bytes, expected at most 100000")
