"""Why an RTSP source could not be opened: OpenCV tells nothing, so the server is asked once more."""

from __future__ import annotations

import base64
import re
import socket
import urllib.request
from urllib.parse import unquote, urlsplit

__all__ = ["explain_rtsp"]

_TIMEOUT = 1.5
_PORTS = {"rtsp": 554, "rtsps": 322}
_MEANING = {
    404: "nothing at this path (404): check the URL",
    451: "the server does not understand the request (451)",
    453: "the server has no bandwidth left (453)",
    503: "the camera is not available now (503)",
}


def explain_rtsp(url: str) -> str:
    """Ask the server of `url` to describe its stream and put its answer into words, without the URL."""
    parts = urlsplit(url)
    try:
        place = parts.hostname or "", parts.port or _PORTS.get(parts.scheme, 554)
    except ValueError:
        return "the port is no number from 0 to 65535"
    if parts.scheme == "rtsps":
        return "no stream could be opened (rtsps)"
    try:
        with socket.create_connection(place, timeout=_TIMEOUT) as connection:
            bare = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl()
            status, challenge = _describe(connection, bare, None)
            if status == 401 and parts.username is not None:
                login = unquote(parts.username), unquote(parts.password or "")
                status, _ = _describe(connection, bare, _authorization(bare, challenge, login))
                if status == 401:
                    return "wrong user or password (401)"
    except ConnectionRefusedError:
        return "connection refused: nothing listens there"
    except TimeoutError:
        return f"no answer within {_TIMEOUT:g} s"
    except socket.gaierror as error:
        return f"unknown host ({error.strerror})"
    except (OSError, ValueError) as error:
        return f"the connection broke ({getattr(error, 'strerror', None) or error})"
    if status == 401:
        return "it asks for a password (401): give rtsp://USER:PASSWORD@HOST/..."
    if status == 200:
        return "the server answers, but gives no video that can be decoded"
    return _MEANING.get(status, f"the server answered {status}")


def _describe(connection: socket.socket, url: str, authorization: str | None) -> tuple[int, str]:
    """Send DESCRIBE; returns the status and the challenge for a password."""
    lines = [f"DESCRIBE {url} RTSP/1.0", f"CSeq: {2 if authorization else 1}", "Accept: application/sdp"]
    if authorization:
        lines.append(f"Authorization: {authorization}")
    connection.sendall(("\r\n".join(lines) + "\r\n\r\n").encode())
    answer = b""
    while b"\r\n\r\n" not in answer and len(answer) < 1 << 16 and (data := connection.recv(4096)):
        answer += data
    text = answer.decode("latin-1")
    status = re.match(r"RTSP/\d\.\d (\d{3})", text)
    if status is None:
        raise ValueError("this is no RTSP server")
    challenges = re.findall(r"(?im)^WWW-Authenticate:\s*(.+?)\s*$", text)
    digest = [c for c in challenges if c.lower().startswith("digest")]
    return int(status[1]), (digest or challenges or [""])[0]


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
