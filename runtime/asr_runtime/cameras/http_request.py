"""One question over HTTP to a camera: no redirects, no proxies of the environment, an end to every wait."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
import urllib.error
import urllib.request
from http.client import HTTPConnection, HTTPException, HTTPResponse, HTTPSConnection
from typing import Any
from urllib.parse import unquote, urlsplit

from asr_runtime.cameras.rtsp import redirection
from asr_runtime.errors import SourceError
from asr_runtime.redact import redact

__all__ = ["reason", "request"]


def request(url: str, seconds: float) -> HTTPResponse:
    """Ask for `url` and return the answer, whose body is yet to be read.

    Args:
        url: may hold a user and a password, for HTTP's basic or digest authentication.
        seconds: until the head of the answer must be there; afterwards for each read of the body.

    Raises:
        SourceError: not there, silent, or another answer than 200; the message says which, without the URL.
    """
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="").geturl()
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    if parts.username is not None:
        passwords.add_password(None, bare, unquote(parts.username), unquote(parts.password or ""))
    sockets: list[socket.socket] = []
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),
        urllib.request.HTTPBasicAuthHandler(passwords),
        urllib.request.HTTPDigestAuthHandler(passwords),
        _NoRedirect(),
        *_noting(sockets),
    )
    # Ends the request to a server that sends one byte now and then, which no time-out of a socket does.
    timer = threading.Timer(seconds, _shut, [sockets])
    timer.daemon = True
    timer.start()
    started = time.monotonic()
    try:
        response: HTTPResponse = opener.open(bare, timeout=seconds)
        return response
    except urllib.error.HTTPError as error:
        error.close()
        raise SourceError(_explain_status(error, parts.username is not None)) from None
    except (OSError, HTTPException, ValueError) as error:
        if isinstance(error, TimeoutError) or time.monotonic() - started > 0.9 * seconds:
            raise SourceError(f"no answer within {seconds:g} s") from None
        raise SourceError(reason(error)) from None
    finally:
        timer.cancel()


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """A camera that redirects may lead anywhere: its answer is shown, not followed."""

    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        return None


def _noting(sockets: list[socket.socket]) -> tuple[urllib.request.BaseHandler, ...]:
    """Make handlers whose connections add their socket to a list."""

    class Plain(HTTPConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class Encrypted(HTTPSConnection):
        def connect(self) -> None:
            super().connect()
            sockets.append(self.sock)

    class Http(urllib.request.HTTPHandler):
        def http_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Plain, req)

    class Https(urllib.request.HTTPSHandler):
        def https_open(self, req: urllib.request.Request) -> HTTPResponse:
            return self.do_open(Encrypted, req)

    return Http(), Https()


def _shut(sockets: list[socket.socket]) -> None:
    for each in sockets:
        with contextlib.suppress(OSError):
            each.shutdown(socket.SHUT_RDWR)


def _explain_status(error: urllib.error.HTTPError, with_password: bool) -> str:
    if error.code in (401, 403):
        if not with_password:
            return f"it asks for a password ({error.code}): give http://USER:PASSWORD@HOST/..."
        return f"wrong user or password ({error.code})"
    if 300 <= error.code < 400:
        return redirection(str(error.headers.get("Location", "")), error.code)
    if error.code == 404:
        return "nothing at this path (404): check the URL"
    return f"the server answered {error.code} {redact(error.reason)}"


def reason(error: BaseException) -> str:
    """Put what a connection died of into words."""
    if isinstance(error, urllib.error.URLError) and isinstance(error.reason, BaseException):
        error = error.reason
    if isinstance(error, ConnectionRefusedError):
        return "connection refused: nothing listens there"
    text = getattr(error, "strerror", None) or str(error) or type(error).__name__
    return redact(" ".join(str(text).split()))
