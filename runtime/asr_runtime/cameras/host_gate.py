"""A proxy on loopback that leads to cameras only: a playlist may name any host, and a server redirect to any."""

from __future__ import annotations

import contextlib
import functools
import select
import socket
import threading
from collections import Counter
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

__all__ = ["HostGate", "host_gate"]

_CHUNK = 1 << 16
_IDLE = 10.0  # seconds without a byte after which a connection is ended
_PORTS = {"http": 80, "https": 443}
_OF_ONE_HOP = frozenset({"connection", "keep-alive", "proxy-connection", "proxy-authorization", "transfer-encoding"})
_making = threading.Lock()


def host_gate() -> HostGate:
    """Return the gate of this process. Captures with the same options need not wait for each other."""
    with _making:
        return _only_gate()


@functools.cache
def _only_gate() -> HostGate:
    return HostGate()


class HostGate:
    """Lets FFmpeg reach the hosts that were admitted; any other host, or port, is refused (403) and not asked.

    Attributes:
        url: what FFmpeg's option `http_proxy` takes.
    """

    def __init__(self) -> None:
        self._server = _Server(("127.0.0.1", 0), _Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=[0.1], name="asr-host-gate", daemon=True).start()

    def admit(self, url: str) -> None:
        """Open the gate for the host and port of `url`, `http://` or `https://`."""
        with self._server.lock:
            self._server.admitted[_place(url)] += 1

    def dismiss(self, url: str) -> None:
        """Take one admission back."""
        with self._server.lock:
            self._server.admitted[_place(url)] -= 1


def _place(url: str) -> tuple[str, int]:
    parts = urlsplit(url)
    return parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 80)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    block_on_close = False

    def __init__(self, *arguments: Any) -> None:
        self.lock = threading.Lock()
        self.admitted: Counter[tuple[str, int]] = Counter()
        super().__init__(*arguments)

    def handle_error(self, *arguments: Any) -> None:
        """Report nothing when a connection breaks: FFmpeg notices it and reports it."""


class _Handler(BaseHTTPRequestHandler):
    server: _Server
    timeout = _IDLE

    def do_GET(self) -> None:
        """Fetch `http://HOST/...` for the client, which follows a redirect itself, through this proxy again."""
        parts, place = urlsplit(self.path), self._admitted(self.path)
        if parts.scheme != "http" or place is None:
            self.send_error(403)
            return
        headers = {name: value for name, value in self.headers.items() if name.lower() not in _OF_ONE_HOP}
        path = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
        server = HTTPConnection(*place, timeout=_IDLE)
        try:
            server.request("GET", path, headers=headers | {"Connection": "close"})
            answer = server.getresponse()
            self.send_response_only(answer.status)
            for name, value in answer.getheaders():
                if name.lower() not in _OF_ONE_HOP:
                    self.send_header(name, value)
            self.send_header("Connection", "close")
            self.end_headers()
            while data := answer.read1(_CHUNK):
                self.wfile.write(data)
        except (OSError, HTTPException):
            self.close_connection = True  # a half answer is not mistaken for a whole one
        finally:
            server.close()

    def do_CONNECT(self) -> None:
        """Pass an encrypted connection through."""
        if (place := self._admitted(f"https://{self.path}")) is None:
            self.send_error(403)
            return
        with contextlib.suppress(OSError), socket.create_connection(place, _IDLE) as server:
            self.send_response_only(200)
            self.end_headers()
            ways = {self.connection: server, server: self.connection}
            while ready := select.select(list(ways), [], [], _IDLE)[0]:
                for source in ready:
                    if not (data := source.recv(_CHUNK)):
                        return
                    ways[source].sendall(data)

    def _admitted(self, url: str) -> tuple[str, int] | None:
        try:
            place = _place(url)
        except ValueError:
            return None
        with self.server.lock:
            return place if self.server.admitted[place] > 0 else None

    def log_message(self, *arguments: Any) -> None:
        """Log nothing: the requests may hold passwords."""
