"""A small HTTP server for pages that are read by machines: GET and HEAD, one answer per connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import socket
import threading
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus

from asr_runtime.errors import ConfigurationError, OutputError
from asr_runtime.http.urls import checked_host
from asr_runtime.redact import one_line

__all__ = ["Answer", "HttpServer", "listen"]

_TIME = 5.0  # seconds of a connection, from the first byte to the last
_REQUEST = 8192  # bytes of a request line with its headers
_ADDRESS = re.compile(r"(?:(?:\[(?P<ipv6>[^\[\]]*)\]|(?P<host>[^\[\]]+)):)?(?P<port>[0-9]{1,9})")
_CONNECTIONS = 32  # open at a time; beyond it the oldest is cut


@dataclass(frozen=True, slots=True)
class Answer:
    """What a path is answered with."""

    status: int
    body: bytes
    content_type: str


class HttpServer:
    """Serves from one daemon thread. Its time and memory per client, and the number of clients, are bounded.

    Args:
        address: `[HOST:]PORT`; without a host 127.0.0.1, and port 0 is a free one.
        answer: of a path, called in the thread; must be quick.

    Attributes:
        address: `HOST:PORT` that is served.

    Raises:
        ConfigurationError: the address is none.
        OutputError: it cannot be listened on.
    """

    def __init__(self, address: str, answer: Callable[[str], Answer]) -> None:
        self._answer = answer
        self._open: dict[asyncio.Task[None], None] = {}  # in the order they came
        self._socket = listen(address)
        host, port = self._socket.getsockname()[:2]
        self.address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        self._loop = asyncio.new_event_loop()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="asr-metrics", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Cut what is open and free the port."""
        with contextlib.suppress(RuntimeError):  # closed before
            self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(1.0)

    def _run(self) -> None:
        with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
            runner.run(self._serve())

    async def _serve(self) -> None:
        server = await asyncio.start_server(self._connected, sock=self._socket, limit=_REQUEST)
        await self._stop.wait()
        server.close()
        for task in self._open:
            task.cancel()

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._open) >= _CONNECTIONS:
            oldest = next(iter(self._open))
            del self._open[oldest]
            oldest.cancel()
        self._open[task] = None
        try:
            async with asyncio.timeout(_TIME):
                await self._converse(reader, writer)
        except (TimeoutError, OSError, EOFError, asyncio.LimitOverrunError, asyncio.CancelledError):
            pass  # the client left, was too slow, sent too much, or was cut to make room
        finally:
            self._open.pop(task, None)
            writer.transport.abort()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        request = await reader.readuntil(b"\r\n\r\n")
        method, answer = self._reply(request)
        head = [
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}",
            f"Content-Type: {answer.content_type}",
            f"Content-Length: {len(answer.body)}",
            "Cache-Control: no-store",
            "Connection: close",
        ]
        if answer.status == HTTPStatus.METHOD_NOT_ALLOWED:
            head.append("Allow: GET, HEAD")
        writer.write("\r\n".join([*head, "", ""]).encode() + (b"" if method == "HEAD" else answer.body))
        await writer.drain()
        writer.write_eof()
        # The client closes when it has read all; an abort before that could take the rest from it.
        while await reader.read(_REQUEST):
            pass

    def _reply(self, request: bytes) -> tuple[str, Answer]:
        text = "text/plain; charset=utf-8"
        words = request.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            return "", Answer(HTTPStatus.BAD_REQUEST, b"expected an HTTP/1 request\n", text)
        method, target, _ = words
        if method not in ("GET", "HEAD"):
            return method, Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"expected GET or HEAD\n", text)
        return method, self._answer(target.partition("?")[0])


def listen(address: str) -> socket.socket:
    """Listen on `[HOST:]PORT`; without a host on 127.0.0.1, and port 0 is a free one.

    Raises:
        ConfigurationError: the address is none.
        OutputError: it cannot be listened on.
    """
    match = _ADDRESS.fullmatch(address.strip())
    try:
        host = checked_host(match["ipv6"] or match["host"] or "127.0.0.1") if match else ""
        port = int(match["port"]) if match else -1
    except ValueError:
        port = -1
    if not 0 <= port <= 65535:
        raise ConfigurationError(f"address {one_line(address)}: expected [HOST:]PORT with a port from 0 to 65535")
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return socket.create_server((host, port), family=family)
    except OSError as error:
        is_name = isinstance(error, socket.gaierror)
        reason = error.strerror if is_name else os.strerror(error.errno or 0)
        raise OutputError(
            f"address {address}: cannot be listened on ({reason}); choose another port, or 0 for a free one"
        ) from None
