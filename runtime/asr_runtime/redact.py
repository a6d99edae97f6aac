"""Passwords out of anything that is shown, and out of the URLs that are opened in one piece with them."""

from __future__ import annotations

import re
from urllib.parse import quote, unquote

__all__ = ["percent_encoded", "redact"]

_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://(\S*)")
# Nothing sensible follows an "@" of a password this way: a name with a dot or a port, an address, localhost.
_HOST = re.compile(r"(\[[0-9A-Fa-f:.]+\]|localhost|[\w-]+(\.[\w-]+)+|[\w.-]+(?=:\d+(?:[/?#]|$)))(:\d+)?(?=[/?#]|$)")


def redact(text: str) -> str:
    """Hide what may be a secret in every URL of a text.

    The user part goes, up to the last `@`, since a password may hold `@`, `/`, `#` and `?` unencoded; so does all
    after a `?` or `#` that is left, where cameras take passwords and tokens too.

    >>> redact("rtsp://admin:p@ss/w#rd?@10.0.0.7:554/cam?token=1: refused")
    'rtsp://***@10.0.0.7:554/cam?*** refused'
    """
    return _URL.sub(_hidden, text)


def _hidden(match: re.Match[str]) -> str:
    scheme, rest = match.groups()
    _, at, place = rest.rpartition("@")
    shown = re.split(r"[?#]", place, maxsplit=1)
    return f"{scheme}://{'***@' if at else ''}{shown[0]}{'?***' if len(shown) > 1 else ''}"


def percent_encoded(url: str) -> str:
    """Encode what a user part must not hold, so that the URL can be opened.

    Where it ends is guessed: at the last `@` that a host follows, otherwise by the rules of RFC 3986. A password that
    is percent-encoded already is kept.

    >>> percent_encoded("rtsp://admin:p@ss/w#rd?@10.0.0.7/cam")
    'rtsp://admin:p%40ss%2Fw%23rd%3F@10.0.0.7/cam'
    """
    scheme, separator, rest = url.partition("://")
    ends = [at for at, letter in enumerate(rest) if letter == "@"]
    if not separator or not ends:
        return url
    hosts = [at for at in ends if _HOST.match(rest, at + 1)]
    authority = re.split(r"[/?#]", rest, maxsplit=1)[0]
    if "@" not in authority and _HOST.match(rest):
        return url
    if hosts:
        end = hosts[-1]
    elif "@" in authority:
        end = authority.rindex("@")
    else:
        return url
    user, colon, password = rest[:end].partition(":")
    return f"{scheme}://{_quoted(user)}{colon}{_quoted(password)}@{rest[end + 1 :]}"


def _quoted(text: str) -> str:
    is_encoded = "%" in text and not re.search(r"%(?![0-9A-Fa-f]{2})", text)
    return quote(unquote(text) if is_encoded else text, safe="")
