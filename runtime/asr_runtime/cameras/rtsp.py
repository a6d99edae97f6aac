"""Why an RTSP source is not to be opened: OpenCV would not tell, and would follow a redirection to any host."""

from __future__ import annotations

import base64
import re
import socket
import time
import urllib.request
from urllib.parse import unquote, urlsplit

from asr_runtime.redact import redact

__all__ = ["explain_rtsp", "redirection"]

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
        Why it is not to be opened; None if nothing speaks against it.
    """
    parts = urlsplit(url)
    try:
        place = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 554)
    except ValueError:
        return "the port is no number from 0 to 65535"
    if parts.scheme == "rtsps":
        return None
    try:
        with socket.create_connection(place, timeout=timeout) as connection:
            return _refusal(_Conversation(connection, timeout), url)
    except ConnectionRefusedError:
        return "connection refused: nothing listens there"
    except TimeoutError:
        return f"no answer within {timeout:g} s"
    except socket.gaierror as error:
        return f"unknown host ({error.strerror})"
    except (OSError, ValueError) as error:
        return f"the connection broke ({getattr(error, 'strerror', None) or error})"


def _refusal(server: _Conversation, url: str) -> str | None:
    parts = urlsplit(url)
    bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
    status, headers = server.ask("OPTIONS", bare)
    if not 300 <= status < 400:
        status, headers = server.ask("DESCRIBE", bare)
    if status == 401 and parts.username is not None:
        login = unquote(parts.username), unquote(parts.password or "")
        try:
            authorization = _authorization(bare, _challenge(headers), login)
        except ValueError:
            return None  # a kind of digest that only FFmpeg may know
        status, headers = server.ask("DESCRIBE", bare, authorization)
        if status == 401:
            return "wrong user or password (401)"
    if status == 401:
        return "it asks for a password (401): give rtsp://USER:PASSWORD@HOST/..."
    if 300 <= status < 400:
        target = re.search(r"(?im)^Location:\s*(.+?)\s*$", headers)
        return redirection(target[1] if target else "", status)
    return _MEANING.get(status)


def redirection(target: str, status: int) -> str:
    """Put into words that a camera sends its viewers elsewhere."""
    return f"it redirects to {redact(target)} ({status}), which is not followed: give that URL if it is right"


class _Conversation:
    """Requests to a server over one connection."""

    def __init__(self, connection: socket.socket, timeout: float) -> None:
        self._connection = connection
        self._give_up = time.monotonic() + timeout
        self._asked = 0

    def ask(self, method: str, url: str, authorization: str = "") -> tuple[int, str]:
        """Send a request; returns the status and the headers of the answer."""
        self._asked += 1
        lines = [f"{method} {url} RTSP/1.0", f"CSeq: {self._asked}", "Accept: application/sdp"]
        if authorization:
            lines.append(f"Authorization: {authorization}")
        self._connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
        answer = b""
        while b"\r\n\r\n" not in answer and len(answer) < _MOST and (data := self._receive(4096)):
            answer += data
        head, _, body = answer.partition(b"\r\n\r\n")
        headers = head.decode("latin-1")
        status = re.match(r"RTSP/\d\.\d (\d{3})", headers)
        if status is None:
            raise ValueError("this is no RTSP server")
        length = re.search(r"(?im)^Content-Length:\s*(\d{1,5})\s*$", headers)
        left = int(length[1]) - len(body) if length else 0
        while left > 0 and (data := self._receive(left)):
            left -= len(data)
        return int(status[1]), headers

    def _receive(self, count: int) -> bytes:
        left = self._give_up - time.monotonic()
        if left <= 0:
            raise TimeoutError
        self._connection.settimeout(left)
        return self._connection.recv(count)


def _challenge(headers: str) -> str:
    challenges = re.findall(r"(?im)^WWW-Authenticate:\s*(.+?)\s*$", headers)
    digest = [c for c in challenges if c.lower().startswith("digest")]
    return str((digest or challenges or [""])[0])


def _authorization(url: str, challenge: str, login: tuple[str, str]) -> str:
    if not challenge.lower().startswith("digest"):
        return "Basic " + base64.b64encode(":".join(login).encode()).decode()
    asked = url.replace("rtsp:", "http:", 1)
    passwords = urllib.request.HTTPPasswordMgrWithDefaultRealm()
    passwords.add_password(None, asked, *login)
    handler = urllib.request.HTTPDigestAuthHandler(passwords)
    fields = urllib.request.parse_keqv_list(urllib.request.parse_http_list(challenge.partition(" ")[2]))
    request = urllib.request.Request(asked, method="DESCRIBE")
    request.selector = url
    return "Digest " + str(handler.get_authorization(request, fields))
