"""Passwords out of anything that is shown, and out of the URLs that are opened in one piece with them."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

__all__ = ["percent_encoded", "redact"]

# A password may hold blanks: to the last "@" before the next URL, and then to the next blank. What was hidden before,
# and the words that our messages put for a password, hold none.
_HIDDEN = r"\*\*\*@|USER:PASSWORD@"
_URL = re.compile(
    rf"([A-Za-z][A-Za-z0-9+.-]*)://(?!(?:{_HIDDEN})[^\s@]*(?:\s|$))((?:(?:(?!\s\W*[\w+.-]+://).)*@)?\S*)",
    re.DOTALL,
)
_END = r"(?=[/?#]|:?$)"
_ADDRESS = re.compile(rf"(?:\[[0-9A-Fa-f:.]+\]|localhost|\d+(?:\.\d+){{3}})(?::\d+)?{_END}")
# What is hardly a piece of a password: an address, a name with a dot, a name with a port.
_HOST = re.compile(rf"{_ADDRESS.pattern}|[\w-]+(?:\.[\w-]+)+(?::\d+)?{_END}|[\w.-]+:\d+{_END}")


def redact(text: str) -> str:
    """Hide what may be a secret in every URL of a text.

    The user part goes, and all after a `?` or `#` that is left, where cameras take passwords and tokens too. A
    password may hold `@`, `/`, `#`, `?` and blanks unencoded. Where that lets a URL be read in two ways, nothing but
    an address is left of it.

    >>> redact("rtsp://admin:p@ss/w#rd?@10.0.0.7:554/cam?token=1: refused")
    'rtsp://***@10.0.0.7:554/cam?*** refused'
    >>> redact("http://10.0.0.7/cam?token=p@ss/word")
    'http://10.0.0.7/***'
    """
    return _URL.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    authority = _authority(rest)
    starts = [0, *(at + 1 for at in _ats(rest))]
    hosts = [start for start in starts if _HOST.match(rest, start)]
    if "@" not in rest[len(authority) :] or hosts == starts[-1:]:
        shown = re.split(r"[?#]", rest[starts[-1] :], maxsplit=1)
        return f"{scheme}://{'***@' if len(starts) > 1 else ''}{shown[0]}{'?***' if len(shown) > 1 else ''}"
    for start in starts:
        if address := _ADDRESS.match(rest, start):
            return f"{scheme}://{'***@' if start else ''}{address[0]}/***"
    return f"{scheme}://***"


def percent_encoded(url: str) -> str:
    """Encode what a user part must not hold, so that the URL can be opened.

    A URL that is right by RFC 3986 is kept. Otherwise the user part ends at the first `@` that a host follows. A
    password that is percent-encoded already is kept.

    >>> percent_encoded("rtsp://admin:p@ss/w#rd?@10.0.0.7/cam")
    'rtsp://admin:p%40ss%2Fw%23rd%3F@10.0.0.7/cam'
    """
    scheme, separator, rest = url.partition("://")
    end = _end_of_user(rest) if separator else None
    if end is None:
        return url
    user, colon, password = rest[:end].partition(":")
    return f"{scheme}://{_quoted(user)}{colon}{_quoted(password)}@{rest[end + 1 :]}"


def _end_of_user(rest: str) -> int | None:
    authority = _authority(rest)
    end = authority.rfind("@")
    if _HOST.match(rest, end + 1):
        return end if end >= 0 else None
    later = [at for at in _ats(rest) if at >= len(authority) and _HOST.match(rest, at + 1)]
    return later[0] if later else (end if end >= 0 else None)


def _authority(rest: str) -> str:
    """Return what RFC 3986 takes for user and host."""
    return re.split(r"[/?#]", rest, maxsplit=1)[0]


def _ats(text: str) -> list[int]:
    return [at for at, letter in enumerate(text) if letter == "@"]


def _quoted(text: str) -> str:
    is_encoded = "%" in text and not re.search(r"%(?![0-9A-Fa-f]{2})", text)
    return quote(unquote(text) if is_encoded else text, safe="")
