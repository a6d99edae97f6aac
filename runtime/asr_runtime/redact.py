"""Takes passwords out of everything that is shown, and makes URLs with unencoded passwords fit to open."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

__all__ = ["one_line", "percent_encoded", "redact"]

# What was hidden before, and the words that our messages put for a password.
_HIDDEN = re.compile(r"(?:\*\*\*@|USER:PASSWORD@)[^\s@]*(?:\s|$)")
_TOKEN = re.compile(r"\S*")
_SCHEME_LETTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+.-")
_END = r"(?=[/?#]|:?$)"
_ADDRESS = re.compile(rf"(?:\[[0-9A-Fa-f:.]+\]|localhost|\d+(?:\.\d+){{3}})(?::\d+)?{_END}")
# What is hardly a piece of a password: an address, a name with a dot, a name with a port.
_HOST = re.compile(rf"{_ADDRESS.pattern}|[\w-]+(?:\.[\w-]+)+(?::\d+)?{_END}|[\w.-]+:\d+{_END}")


def redact(text: str) -> str:
    """Hide what may be a secret in every URL of a text.

    The user part goes, and all after a `?` or `#` that is left, where cameras take passwords and tokens too. A
    password may hold `@`, `/`, `#`, `?` and blanks unencoded. Where that lets a URL be read in two ways, nothing but
    an address is left in the text.

    >>> redact("rtsp://admin:p@ss/w#rd?@10.0.0.7:554/cam?token=1: refused")
    'rtsp://***@10.0.0.7:554/cam?*** refused'
    >>> redact("http://10.0.0.7/cam?token=p@ss/word")
    'http://10.0.0.7/***'
    """
    pieces, at, without_at = [], 0, -1
    for scheme, begin, following in _urls(text):
        if scheme < at or _HIDDEN.match(text, begin):
            continue
        # A password may hold blanks: the URL goes on to the last "@" before the next one, and then to the next blank.
        user = -1 if following == without_at else text.rfind("@", begin, following)
        without_at = following if user < 0 else -1  # so that no piece of the text is searched twice
        end = _TOKEN.match(text, max(begin, user + 1)).end()  # type: ignore[union-attr]
        pieces += [text[at:scheme], _hidden(text[scheme : begin - 3], text[begin:end])]
        at = end
    return "".join([*pieces, text[at:]])


def one_line(text: str, most: int = 200) -> str:
    """Make a foreign text fit for a message: no secret, no line break, no control character, and not too long."""
    line = " ".join(redact(text).split())
    line = "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)
    return line if len(line) <= most else line[:most] + "..."


def _urls(text: str) -> list[tuple[int, int, int]]:
    """Find the URLs of a text, in time proportional to its length.

    Returns:
        For each where its scheme begins, where it goes on after `://`, and where the next URL begins that is no piece
        of its password.
    """
    places, after = [], 0
    while (colon := text.find("://", after)) >= 0:
        start = colon
        while start > after and text[start - 1] in _SCHEME_LETTERS:
            start -= 1
        while start < colon and not text[start].isalpha():
            start += 1
        if start < colon:
            places.append((start, colon + 3, _stands_apart(text, start, after)))
        after = colon + 3
    urls, following = [], len(text)
    for start, begin, stands_apart in reversed(places):
        urls.append((start, begin, following))
        following = start if stands_apart else following
    return urls[::-1]


def _stands_apart(text: str, start: int, after: int) -> bool:
    """Whether a blank, and then at most brackets and quotes, stand before a URL: it is no piece of a password."""
    while start > after and not text[start - 1].isspace():
        start -= 1
        if text[start].isalnum() or text[start] == "_":
            return False
    return start > after


def _hidden(scheme: str, rest: str) -> str:
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
