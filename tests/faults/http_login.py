"""What an HTTP camera asks for a password, and whether it is satisfied: Basic (RFC 7617) and Digest (RFC 7616)."""

from __future__ import annotations

import base64
import hashlib
import re

_REALM, _NONCE = "camera", "5d41402abc4b2a76"


def question(scheme: str) -> str:
    """Give the `WWW-Authenticate` header."""
    more = f', nonce="{_NONCE}", qop="auth", algorithm=MD5' if scheme == "Digest" else ""
    return f'{scheme} realm="{_REALM}"{more}'


def is_let_in(header: str, user: str, password: str, scheme: str) -> bool:
    """Judge an `Authorization` header."""
    if scheme == "Basic":
        return header == "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()
    if not header.startswith("Digest "):
        return False
    told = {key: quoted or plain for key, quoted, plain in re.findall(r'(\w+)=(?:"((?:\\.|[^"])*)"|([^\s,]+))', header)}
    secret = _md5(f"{user}:{_REALM}:{password}")
    request = _md5(f"GET:{told.get('uri')}")
    middle = f"{_NONCE}:{told.get('nc')}:{told.get('cnonce')}:{told.get('qop')}" if told.get("qop") else _NONCE
    return told.get("username") == user and told.get("response") == _md5(f"{secret}:{middle}:{request}")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
