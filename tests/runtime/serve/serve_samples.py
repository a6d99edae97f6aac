"""What the tests of the server share: a client, and the command as a process."""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import socket
import subprocess
from collections.abc import Callable, Iterator
from typing import Any

from runtime_samples import environment, serve_line

from asr_runtime.serve.screener import Screener


class Client:
    """Asks a server; every request has a connection of its own."""

    def __init__(self, address: str, screener: Screener | None = None) -> None:
        self.address = address
        self.host, _, port = address.rpartition(":")
        self.port = int(port)
        self.screener = screener

    def ask(
        self, method: str, path: str, body: bytes | None = None, headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        connection = http.client.HTTPConnection(self.host, self.port, timeout=30)
        with contextlib.closing(connection):
            connection.request(method, path, body, headers or {})
            answer = connection.getresponse()
            return answer.status, {k.lower(): v for k, v in answer.getheaders()}, answer.read()

    def screen(self, body: bytes, query: str = "", headers: dict[str, str] | None = None) -> dict[str, Any]:
        status, _, text = self.ask("POST", f"/v1/screen?{query}", body, headers)
        assert status == 200, text
        answer: dict[str, Any] = json.loads(text)
        return answer


def request_head(*headers: str) -> bytes:
    """Return the head of a request that posts a picture."""
    return "\r\n".join(["POST /v1/screen HTTP/1.1", "Host: localhost", *headers, "", ""]).encode()


def connect_and_send(client: Client, sent: bytes) -> socket.socket:
    connection = socket.create_connection((client.host, client.port), timeout=60)
    with contextlib.suppress(OSError):  # refused before all was sent
        connection.sendall(sent)
    return connection


def read_to_end(connection: socket.socket) -> bytes:
    """Read until the server closes, or drops, the connection."""
    parts = []
    with connection, contextlib.suppress(ConnectionResetError, BrokenPipeError):
        while part := connection.recv(65536):
            parts.append(part)
    return b"".join(parts)


Serve = Callable[..., contextlib.AbstractContextManager[Client]]


@contextlib.contextmanager
def command(*arguments: object) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """Run asr-serve and wait until it takes requests; gives the process and HOST:PORT."""
    process = subprocess.Popen(serve_line(*arguments), stderr=subprocess.PIPE, text=True, env=environment())
    with process:
        try:
            assert process.stderr is not None
            line = process.stderr.readline()
            address = re.search(r"http://(\S+?)/", line)
            assert address, line + process.stderr.read()
            yield process, address[1]
        finally:
            process.kill()
