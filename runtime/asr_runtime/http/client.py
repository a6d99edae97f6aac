"""The HTTP client of the project: every request is limited in time and size, and stays on its host.

    response = open_url("http://10.0.0.7/mjpeg", 4.0)      # a stream that the caller reads and closes
    photo = fetch("https://example.org/photo.jpg", 30.0, 1 << 26).data      # a whole file

No proxy is taken from the environment. A redirect is an error that names its target, unless `fetch` is allowed some;
it then follows them on the same host only. A password in the URL goes to that host only, as Basic or Digest asks.
The head of an answer, connection and TLS handshake included, must be there within the limit however slowly it trickles
in. Only the look-up of a name is left to the system, which may take up to 30 s.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.message import Message
from http.client import HTTPConnection, HTTPException, HTTPResponse
from io import BytesIO
from typing import IO
from urllib.parse import SplitResult, unquote, urljoin

from asr_runtime.http.connection import EncryptedConnection, HttpError, PlainConnection, TimeLimit
from asr_runtime.http.login import Login, UnsupportedLoginError
from asr_runtime.http.urls import checked_url
from asr_runtime.redact import one_line

__all__ = ["Fetched", "Response", "TooLargeError", "fetch", "login_of", "open_url", "redirection"]

_REDIRECTS = (301, 302, 303, 307, 308)
_PORTS = {"http": 80, "https": 443}
_CHUNK = 1 << 16
_LONGEST_HEADER = 1000  # characters of a header that are looked at


class TooLargeError(HttpError):
    """The body is larger than the caller allows."""


class Response:
    """An answer of status 200 to 299 whose body is still to be read.

    Attributes:
        media_type: of the body, in lower case, for example `image/jpeg`; `application/octet-stream` if none is given.
    """

    def __init__(self, response: HTTPResponse, connection: HTTPConnection) -> None:
        self._response, self._connection = response, connection
        self._kind = Message()
        self._kind["Content-Type"] = self.header("Content-Type") or "application/octet-stream"
        self.media_type = self._kind.get_content_type().lower()

    def header(self, name: str) -> str:
        """Return the first header of this name in one line, empty if there is none; long ones are cut."""
        return " ".join(str(self._response.headers.get(name, ""))[:_LONGEST_HEADER].split())

    def parameter(self, name: str) -> str:
        """Return a parameter of the header `Content-Type`, empty if it has none."""
        value = self._kind.get_param(name)
        return value if isinstance(value, str) else ""

    def read1(self, count: int) -> bytes:
        """Return the next bytes, at most `count`; waits at most the seconds of the request. Empty at the end.

        Raises:
            TimeoutError: no byte arrived.
            OSError, HTTPException, ValueError: the connection broke.
        """
        return self._response.read1(count)

    def close(self) -> None:
        """Give the connection back."""
        self._response.close()
        self._connection.close()


@dataclass(frozen=True, slots=True)
class Fetched:
    """A whole file.

    Attributes:
        data: its bytes.
        media_type: as the server names it.
        url: where it was in the end, without user and password.
    """

    data: bytes
    media_type: str
    url: str


def open_url(
    url: str,
    seconds: float,
    *,
    method: str = "GET",
    body: bytes | None = None,
    headers: Mapping[str, str] | None = None,
    login: Login | None = None,
) -> Response:
    """Send one request and return the answer, whose body is still to be read. No redirect is followed.

    Args:
        url: `http://` or `https://`, a user and a password in it percent-encoded or not.
        seconds: until the head of the answer must be there; afterwards for each read of the body.
        method: of the request.
        body: its content.
        headers: its headers, beside those that HTTP needs.
        login: answers a request for a password. Callers that send many requests pass the same one, so that the server
            need not ask each time; None: one is made from the URL.

    Raises:
        HttpError: no connection, no answer in time, a status other than 200 to 299, or a redirect; the message names
            its target.
        ConfigurationError: `url` is no URL of HTTP.
    """
    parts = checked_url(url, _PORTS)
    with TimeLimit(seconds) as limit:
        return _open(parts, limit, method, body, headers or {}, login or login_of(parts))


def login_of(parts: SplitResult, *, basic_first: bool = False) -> Login | None:
    """Make a login of the user part of a checked URL; None if it has none."""
    if parts.username is None:
        return None
    return Login(unquote(parts.username), unquote(parts.password or ""), basic_first=basic_first)


def fetch(
    url: str,
    seconds: float,
    max_bytes: int,
    *,
    redirects: int = 3,
    login: Login | None = None,
    accept: Callable[[Response], None] | None = None,
    into: IO[bytes] | None = None,
) -> Fetched:
    """Fetch a whole file.

    Args:
        url: `http://` or `https://`.
        seconds: for everything: redirects, the head and the body, however slowly they come.
        max_bytes: of the body. A larger one is refused by its announced length, or when it has grown too large.
        redirects: to follow at most. They must stay on the host and port of `url`, or lead from port 80 of a host
            to HTTPS on port 443 of the same host, so no server can point this machine at another one.
        login: as for `open_url`.
        accept: called with the head of the answer before the body is read; it may raise.
        into: gets the body instead of `Fetched.data`, which is then empty; its errors are raised as they are.

    Raises:
        HttpError: as `open_url`; also too large, too slow, or cut short.
        ConfigurationError: it is no such URL.
    """
    parts = checked_url(url, _PORTS)
    login = login or login_of(parts)
    with TimeLimit(seconds) as limit:
        for _ in range(redirects + 1):
            try:
                response = _open(parts, limit, "GET", None, {}, login)
            except HttpError as error:
                if error.status not in _REDIRECTS or (following := _same_host(parts, error.location)) is None:
                    raise
                parts = following
                continue
            with contextlib.closing(response):
                if accept is not None:
                    accept(response)
                body = BytesIO()
                _copy_body(response, limit, max_bytes, into or body)
            return Fetched(body.getvalue(), response.media_type, _bare(parts).geturl())
    raise HttpError(f"it redirects more than {redirects} times")


def _copy_body(response: Response, limit: TimeLimit, max_bytes: int, into: IO[bytes]) -> None:
    announced = response.header("Content-Length")
    length = int(announced) if announced.isascii() and announced.isdigit() and len(announced) < 20 else None
    too_large = TooLargeError(f"larger than {max_bytes / 1e6:g} MB, which is the limit")
    if length is not None and length > max_bytes:
        raise too_large
    size = 0
    while chunk := _chunk(response, limit):
        size += len(chunk)
        if size > max_bytes:
            raise too_large
        into.write(chunk)
    if limit.is_over:
        raise HttpError(f"not complete within {limit.seconds:g} s")
    if length is not None and size < length:
        raise HttpError(f"cut short: {size} of {length} bytes came")


def _chunk(response: Response, limit: TimeLimit) -> bytes:
    try:
        return response.read1(_CHUNK)
    except (OSError, HTTPException, ValueError) as error:
        raise limit.failure(error) from None


def _same_host(parts: SplitResult, location: str) -> SplitResult | None:
    """Return where a redirect leads if that is the same host; None otherwise."""
    if not location:
        return None
    try:
        target = checked_url(urljoin(_bare(parts).geturl(), location), _PORTS)
    except Exception:  # the server may send anything
        return None
    here, there = ((p.scheme, p.hostname, p.port or _PORTS[p.scheme]) for p in (parts, target))
    is_upgrade = (here[0], here[2], there[0], there[2]) == ("http", 80, "https", 443) and here[1] == there[1]
    return _bare(target) if here == there or is_upgrade else None


def _bare(parts: SplitResult) -> SplitResult:
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], fragment="")


def _open(
    parts: SplitResult,
    limit: TimeLimit,
    method: str,
    body: bytes | None,
    headers: Mapping[str, str],
    login: Login | None,
) -> Response:
    target = parts._replace(scheme="", netloc="", fragment="").geturl() or "/"
    target = target if target.startswith("/") else "/" + target
    # The zone of an IPv6 address means something on this machine only.
    host = re.sub(r"%[^\]]*", "", parts.netloc.rpartition("@")[2])
    sent = {"Host": host, "User-Agent": "asrnet-edge", "Accept": "*/*", **headers, "Connection": "close"}
    first = login.authorization(method, target, body or b"") if login else None
    response = _ask(parts, limit, method, target, body, sent | ({"Authorization": first} if first else {}))
    if response.status == 401 and login:
        try:
            asks_anew = login.accept(response.challenges)
        except UnsupportedLoginError as error:
            raise HttpError(one_line(str(error)), 401, response.reason) from None
        if asks_anew:
            again = login.authorization(method, target, body or b"")
            response = _ask(parts, limit, method, target, body, sent | {"Authorization": again or ""})
    if response.opened is None:
        raise _refusal(response, login is not None)
    return response.opened


@dataclass(frozen=True, slots=True)
class _Answer:
    """The head of an answer; `opened` if its status is 200 to 299."""

    status: int
    reason: str
    challenges: list[str]
    location: str
    opened: Response | None


def _ask(
    parts: SplitResult, limit: TimeLimit, method: str, target: str, body: bytes | None, headers: Mapping[str, str]
) -> _Answer:
    kind = EncryptedConnection if parts.scheme == "https" else PlainConnection
    connection = kind(parts.hostname or "", parts.port or _PORTS[parts.scheme], timeout=limit.seconds)
    connection.limit = limit
    try:
        connection.request(method, target, body, dict(headers))
        response = connection.getresponse()
    except (OSError, HTTPException, ValueError) as error:
        connection.close()
        raise limit.failure(error) from None
    opened = Response(response, connection) if 200 <= response.status < 300 else None
    if opened is None:
        response.close()
        connection.close()
    return _Answer(
        response.status,
        one_line(response.reason),
        [str(value) for value in response.headers.get_all("WWW-Authenticate", [])][:16],
        str(response.headers.get("Location", "")),
        opened,
    )


def _refusal(answer: _Answer, has_password: bool) -> HttpError:
    status, reason = answer.status, answer.reason
    if status in (401, 403) and not has_password:
        message = f"it asks for a password ({status}): give http://USER:PASSWORD@HOST/..."
    elif status in (401, 403):
        message = f"wrong user or password ({status})"
    elif status in _REDIRECTS:
        message = redirection(answer.location, status)
    elif status in (404, 410):
        message = f"nothing at this path ({status}): check the URL"
    else:
        message = f"the server answered {status} {reason}".rstrip()
    return HttpError(message, status, reason, answer.location)


def redirection(target: str, status: int) -> str:
    """Return the message for a redirect that is not followed; it hides secrets in the address."""
    if not target:
        return f"it redirects without saying where ({status}): check the URL"
    return f"it redirects to {one_line(target)} ({status}), which is not followed: give that URL if it is right"
