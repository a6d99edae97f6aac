"""The server's side of a login, Basic (RFC 7617) and Digest (RFC 7616): it asks for a password, checks the answer."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Callable

_REALM, _NONCE = "camera", "5d41402abc4b2a76"


def question(scheme: str, quality: str = "auth") -> str:
    """Give the `WWW-Authenticate` header; a scheme is `Basic`, `Digest` or `Digest ALGORITHM`."""
    if scheme == "Basic":
        return f'Basic realm="{_REALM}"'
    algorithm = scheme.partition(" ")[2] or "MD5"
    qop = f', qop="{quality}"' if quality else ""
    return f'Digest realm="{_REALM}", nonce="{_NONCE}"{qop}, algorithm={algorithm}'


def is_let_in(header: str, user: str, password: str, scheme: str, method: str = "GET", body: bytes = b"") -> bool:
    """Judge an `Authorization` header."""
    if scheme == "Basic":
        return header == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    if not header.startswith("Digest "):
        return False
    sent = {key: quoted or plain for key, quoted, plain in re.findall(r'(\w+)=(?:"((?:\\.|[^"])*)"|([^\s,]+))', header)}
    algorithm = scheme.partition(" ")[2] or "MD5"
    digest = _digest("sha256" if algorithm.startswith("SHA-256") else "md5")
    secret = digest(f"{user}:{_REALM}:{password}")
    if algorithm.endswith("-sess"):
        secret = digest(f"{secret}:{_NONCE}:{sent.get('cnonce')}")
    request = f"{method}:{sent.get('uri')}"
    if sent.get("qop") == "auth-int":
        request += f":{digest(body.decode())}"
    middle = f"{_NONCE}:{sent.get('nc')}:{sent.get('cnonce')}:{sent.get('qop')}" if sent.get("qop") else _NONCE
    return sent.get("username") == user and sent.get("response") == digest(f"{secret}:{middle}:{digest(request)}")


def _digest(name: str) -> Callable[[str], str]:
    return lambda text: hashlib.new(name, text.encode(), usedforsecurity=False).hexdigest()
