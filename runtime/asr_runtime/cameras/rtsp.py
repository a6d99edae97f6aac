"""Checks an RTSP source before it is opened: OpenCV gives no reason for failures and follows redirects to any host."""

from __future__ import annotations

import re
import socket
import time
from typing import NamedTuple
from urllib.parse import urlsplit

from asr_runtime.http.client import login_of, redirection
from asr_runtime.http.connection import connection_failure
from asr_runtime.http.login import UnsupportedLoginError, parse_challenges
from asr_runtime.redact import one_line

__all__ = ["explain_rtsp"]

_PORTS = {"rtsp": 554, "rtsps": 322}
_MOST = 1 << 16  # bytes of an answer
_MEANING = {
    404: "nothing at this path (404): check the URL",
    451: "the server does not understand the request (451)",
    453: "the server has no bandwidth left (453)",
    503: "the camera is not available now (503)",
}


def explain_rtsp(url: str, timeout: float) -> str | None:
    """Ask the server of `url` to describe its stream and put its refusal into words, without the URL.

    Args:
        url: `rtsp://`; of an encrypted one nothing is asked.
        timeout: seconds to connect, and again for all answers.

    Returns:
        Why it is not to be opened; None if nothing is wrong with it.
    """
    parts = urlsplit(url)
    place = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 554)
    if parts.scheme == "rtsps":
        return None
    try:
        with socket.create_connection(place, timeout=timeout) as connection:
            return _refusal(_Conversation(connection, timeout), url)
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except socket.gaierror as error:
        return f"unknown host ({error.strerror})"
    except ConnectionRefusedError as error:
        return connection_failure(error)
    except (OSError, ValueError) as error:
        return f"the connection broke ({connection_failure(error)})"


def _refusal(server: _Conversation, url: str) -> str | None:
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    answer = server.ask("OPTIONS", bare)
    if not 300 <= answer.status < 400:
        answer = server.ask("DESCRIBE", bare)
    if answer.status == 401 and (login := login_of(parts)):
        challenges = answer.values("WWW-Authenticate")
        try:
            login.accept(challenges)
        except UnsupportedLoginError as error:
            return one_line(str(error))
        answer = server.ask("DESCRIBE", bare, login.authorization("DESCRIBE", bare) or "")
        if answer.status == 401:
            return "wrong user or password (401)"
        if refusal := _beyond_ffmpeg(challenges):
            return refusal
    if answer.status == 401:
        return "it asks for a password (401): give rtsp://USER:PASSWORD@HOST/..."
    if 300 <= answer.status < 400:
        return redirection(next(iter(answer.values("Location")), ""), answer.status)
    return _MEANING.get(answer.status)


def _beyond_ffmpeg(headers: list[str]) -> str | None:
    """Say which digest FFmpeg will be asked for if it does not know it: of several it takes the last, and knows MD5."""
    digests = [offer for offer in parse_challenges(headers) if offer.scheme == "digest"]
    algorithm = digests[-1].fields.get("algorithm", "MD5") if digests else "MD5"
    if algorithm.upper() in ("MD5", "MD5-SESS"):
        return None
    return (
        f"it asks for a digest with {one_line(algorithm, 30)}, which OpenCV's FFmpeg does not know over RTSP: "
        "choose MD5 (or Basic) alone in the camera's settings"
    )


class _Answer(NamedTuple):
    """The head of an answer."""

    status: int
    lines: list[str]

    def values(self, name: str) -> list[str]:
        """Return the values of all headers of this name."""
        fields = (line.partition(":") for line in self.lines)
        return [value.strip() for key, _, value in fields if key.strip().lower() == name.lower()]


class _Conversation:
    """Requests to a server over one connection."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection = connection
        self._give_up = time.monotonic() + timeout
        self._asked = 0

    def ask(self, method: str, url: str, authorization: str = "") -> _Answer:
        """Send a request and return the head of the answer."""
        self._asked += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._asked}", "Accept: application/sdp"]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        self._connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = bytearray()
        while (end := answer.find(b"\r\n\r\n", max(0, len(answer) - 4099))) < 0:
            if len(answer) > _MOST or not (data := self._receive(4096)):
                raise ValueError("this is no RTSP server")
            answer += data
        first, *lines = answer[:end].decode("latin-1").split("\r\n")
        status = re.match(r"RTSP/[0-9]\.[0-9] ([0-9]{3})", first)
        if status is None:
            raise ValueError("this is no RTSP server")
        head = _Answer(int(status[1]), lines)
        length = next(iter(head.values("Content-Length")), "")
        left = int(length) - (len(answer) - end - 4) if re.fullmatch("[0-9]{1,5}", length) else 0
        while left > 0 and (data := self._receive(left)):
            left -= len(data)
        return head

    def _receive(self, count: int) -> bytes:
        left = self._give_up - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv(count)
