"""The answer to a server that asks for a password: Basic (RFC 7617) and Digest (RFC 7616), for HTTP and RTSP alike."""

from __future__ import annotations

import base64
import hashlib
import re
import secrets
from collections.abc import Callable, Sequence
from typing import NamedTuple

__all__ = ["Challenge", "Login", "UnsupportedLoginError", "parse_challenges"]

_LONGEST = 4096  # characters of a header that are read
_ITEM = re.compile(r"""([^\s,="]+)(?:[ \t]*=[ \t]*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]*)))?""")
_HASHES: dict[str, Callable[[bytes], str]] = {
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data).hexdigest(),
    "SHA-256": lambda data: hashlib.sha256(data).hexdigest(),
    "MD5": lambda data: hashlib.md5(data, usedforsecurity=False).hexdigest(),
}
"""Strongest first. A camera that offers several is answered with the first of these."""


class UnsupportedLoginError(Exception):
    """The server offers no kind of login that is known; the message lists what it offers."""


class Challenge(NamedTuple):
    """One way to log in that a server offers.

    Attributes:
        scheme: `basic`, `digest`, ... in lower case.
        fields: its parameters, with names in lower case.
    """

    scheme: str
    fields: dict[str, str]


def parse_challenges(headers: Sequence[str]) -> list[Challenge]:
    """Read the `WWW-Authenticate` headers of an answer; one header may hold several challenges.

    Args:
        headers: their values. Only the first 4,096 characters of each are read.

    >>> parse_challenges(['Digest realm="a, b", nonce=1, Basic realm="c"'])[1]
    Challenge(scheme='basic', fields={'realm': 'c'})
    """
    challenges: list[Challenge] = []
    for header in headers:
        for item in _ITEM.finditer(header[:_LONGEST]):
            name, quoted, plain = item.groups()
            if quoted is None and plain is None:
                challenges.append(Challenge(name.lower(), {}))
            elif challenges:
                value = re.sub(r"\\(.)", r"\1", quoted) if quoted is not None else plain
                challenges[-1].fields.setdefault(name.lower(), value)
    return challenges


class Login:
    """A user and a password, and the challenge that was answered last.

    Args:
        user: as it is, not percent-encoded.
        password: likewise.
        basic_first: send the password as Basic before the server asks, as receivers of webhooks expect it.
    """

    def __init__(self, user: str, password: str, *, basic_first: bool = False) -> None:
        self._user, self._password = user, password
        self._challenge = Challenge("basic", {}) if basic_first else None
        self._count = 0

    def __repr__(self) -> str:
        return "Login(***)"

    def accept(self, headers: Sequence[str]) -> bool:
        """Choose how to answer a server that asks: the strongest digest, otherwise Basic.

        Args:
            headers: values of `WWW-Authenticate`; none stand for Basic.

        Returns:
            Whether there is something new to try: Basic is tried once.

        Raises:
            UnsupportedLoginError: no way of those offered is known.
        """
        offers = parse_challenges(headers) or [Challenge("basic", {})]
        known = [offer for offer in offers if offer.scheme == "basic" or _is_known_digest(offer)]
        if not known:
            names = ", ".join(dict.fromkeys(_name(offer) for offer in offers))
            raise UnsupportedLoginError(
                f"it asks for a login of the kind {names[:200]}; known are Basic and Digest with MD5 or SHA-256"
            )
        before, self._challenge, self._count = self._challenge, min(known, key=_weakness), 0
        return not (before and before.scheme == self._challenge.scheme == "basic")

    def authorization(self, method: str, target: str, body: bytes = b"") -> str | None:
        """Return the `Authorization` header of a request; None before a challenge was accepted.

        Args:
            method: of the request.
            target: what its first line asks for, exactly.
            body: its content.
        """
        if self._challenge is None:
            return None
        if self._challenge.scheme == "basic":
            return "Basic " + base64.b64encode(f"{self._user}:{self._password}".encode()).decode()
        self._count += 1
        return self._digest(self._challenge.fields, method, target, body, f"{self._count:08x}", secrets.token_hex(8))

    def _digest(
        self, fields: dict[str, str], method: str, target: str, body: bytes, count: str, client_nonce: str
    ) -> str:
        realm, nonce = fields.get("realm", ""), fields.get("nonce", "")
        digest, is_session = _algorithm(fields)
        quality = _quality(fields)
        secret = digest(f"{self._user}:{realm}:{self._password}".encode())
        if is_session:
            secret = digest(f"{secret}:{nonce}:{client_nonce}".encode())
        request = f"{method}:{target}" + (f":{digest(body)}" if quality == "auth-int" else "")
        middle = f"{nonce}:{count}:{client_nonce}:{quality}" if quality else nonce
        response = digest(f"{secret}:{middle}:{digest(request.encode())}".encode())
        hides_user = fields.get("userhash", "").lower() == "true"
        user = digest(f"{self._user}:{realm}".encode()) if hides_user else self._user
        quoted = {"username": user, "realm": realm, "nonce": nonce, "uri": target, "response": response}
        if "opaque" in fields:
            quoted["opaque"] = fields["opaque"]
        if quality or is_session:
            quoted["cnonce"] = client_nonce
        parts = [f'{name}="{_escaped(value)}"' for name, value in quoted.items()]
        parts += [f"algorithm={fields['algorithm']}"] if "algorithm" in fields else []
        parts += [f"qop={quality}", f"nc={count}"] if quality else []
        parts += ["userhash=true"] if hides_user else []
        return "Digest " + ", ".join(parts)


def _algorithm(fields: dict[str, str]) -> tuple[Callable[[bytes], str], bool]:
    name = fields.get("algorithm", "MD5").upper()
    return _HASHES[name.removesuffix("-SESS")], name.endswith("-SESS")


def _quality(fields: dict[str, str]) -> str:
    """Return the quality of protection that is answered; empty for servers from before it was known."""
    offers = [offer.strip().lower() for offer in fields.get("qop", "").split(",")]
    return next((quality for quality in ("auth", "auth-int") if quality in offers), "")


def _is_known_digest(offer: Challenge) -> bool:
    name = offer.fields.get("algorithm", "MD5").upper().removesuffix("-SESS")
    is_known = name in _HASHES and (name != "SHA-512-256" or "sha512_256" in hashlib.algorithms_available)
    return offer.scheme == "digest" and is_known and (not offer.fields.get("qop") or bool(_quality(offer.fields)))


def _weakness(offer: Challenge) -> int:
    if offer.scheme == "basic":
        return len(_HASHES)
    return list(_HASHES).index(offer.fields.get("algorithm", "MD5").upper().removesuffix("-SESS"))


def _name(offer: Challenge) -> str:
    details = [offer.fields[key] for key in ("algorithm", "qop") if offer.fields.get(key)]
    return " ".join([offer.scheme, *details]) if offer.scheme == "digest" else offer.scheme


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"')
