"""Connections that are cut when their time is over, and the reason why one failed, in words."""

from __future__ import annotations

import contextlib
import socket
import ssl
import threading
import time
from http.client import BadStatusLine, HTTPConnection, HTTPSConnection, IncompleteRead

from asr_runtime.errors import SourceError
from asr_runtime.redact import one_line

__all__ = ["EncryptedConnection", "HttpError", "PlainConnection", "TimeLimit", "connection_failure"]


class HttpError(SourceError):
    """A request that failed; the message is one line, without the URL and without a secret.

    Attributes:
        status: of the answer; None if there was none.
        reason: the words beside the status, in one line.
    """

    def __init__(self, message: str, status: int | None = None, reason: str = "", location: str = "") -> None:
        super().__init__(message)
        self.status, self.reason = status, reason
        self.location = location  # where a redirect leads; may hold a secret


class TimeLimit:
    """A time after which connections are cut, even if a byte arrives now and then.

    The time-out of a socket starts again with every byte, so a thread cuts the connections.
    """

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds
        self.is_over = False
        self._until = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = threading.Timer(seconds, self._cut)
        self._timer.daemon = True

    def __enter__(self) -> TimeLimit:
        self._timer.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self._timer.cancel()
        with self._lock:
            for copy in self._sockets:
                copy.close()
            self._sockets.clear()

    def connect(self, host: str, port: int) -> socket.socket:
        """Connect to the first address of a host that answers, and watch the connection."""
        failure: OSError = OSError("the name has no address")
        addresses = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for tried, (family, kind, protocol, _, address) in enumerate(addresses):
            if (left := self._until - time.monotonic()) <= 0:
                raise TimeoutError
            connection = socket.socket(family, kind, protocol)
            try:
                connection.settimeout(left / (len(addresses) - tried))
                connection.connect(address)
                connection.settimeout(self.seconds)
                connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                self._watch(connection)
                return connection
            except OSError as error:
                connection.close()
                failure = error
        raise failure

    def _watch(self, connection: socket.socket) -> None:
        copy = connection.dup()  # TLS takes the descriptor away from the socket that was connected
        with self._lock:
            self._sockets.append(copy)
        if self.is_over:
            self._cut()

    def _cut(self) -> None:
        self.is_over = True
        with self._lock:
            for each in self._sockets:
                with contextlib.suppress(OSError):
                    each.shutdown(socket.SHUT_RDWR)

    def failure(self, error: Exception) -> HttpError:
        """Return the error for an exception of the connection."""
        if isinstance(error, HttpError):
            return error
        if self.is_over or isinstance(error, TimeoutError):
            return HttpError(f"no answer within {self.seconds:g} s")
        return HttpError(connection_failure(error))


class PlainConnection(HTTPConnection):
    """HTTP within a time limit, which is set before the first request."""

    limit: TimeLimit

    def connect(self) -> None:
        """Connect within the limit."""
        self.sock = self.limit.connect(self.host, self.port)


class EncryptedConnection(HTTPSConnection, PlainConnection):
    """HTTPS within a time limit."""


def connection_failure(error: BaseException) -> str:
    """Return why a connection failed, in one line and without a secret."""
    if isinstance(error, IncompleteRead):
        return "its answer is cut short or damaged; try again"
    if isinstance(error, ConnectionRefusedError):
        return "Connection refused: nothing listens there"
    if isinstance(error, ssl.SSLCertVerificationError):
        return f"its certificate is not trusted ({error.verify_message}); SSL_CERT_FILE can name another authority"
    if isinstance(error, BadStatusLine):
        return "it does not answer as an HTTP server does"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return one_line(str(text))
