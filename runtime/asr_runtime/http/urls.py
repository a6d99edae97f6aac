"""URLs and hosts that people write, checked before anything is connected."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection
from urllib.parse import SplitResult, quote, urlsplit

from asr_runtime.errors import ConfigurationError
from asr_runtime.redact import one_line, percent_encoded

__all__ = ["checked_host", "checked_url"]

_LONGEST = 8192  # characters of a URL; servers refuse longer ones
_PLACE = re.compile(r"(?:\[(?P<ipv6>[^\[\]]*:[^\[\]]*)\]|(?P<name>[^:\[\]]*))(?::(?P<port>[0-9]*))?")
_LABEL = re.compile(r"[A-Za-z0-9_-]{1,63}")
_IPV4 = re.compile(r"[0-9]+(\.[0-9]+){3}")
_PRINTABLE = "".join(map(chr, range(0x21, 0x7F)))  # ASCII, without the blank


def checked_url(url: str, schemes: Collection[str], what: str = "URL") -> SplitResult:
    """Check a URL and return its parts, in a form that can be connected to.

    User and password, blanks and letters beyond ASCII may be percent-encoded or not; in the result they are. A host
    beyond ASCII is in its `xn--` form. The zone of an IPv6 address (`%25eth0` or `%eth0`) is given as `%eth0`.

    Args:
        url: blanks around it are left out.
        schemes: that are allowed, in lower case.
        what: the word for it in messages, for example "source".

    Raises:
        ConfigurationError: not such a URL; the message says what is wrong with it, without a secret.
    """
    text = url.strip()

    def refusal(problem: str) -> ConfigurationError:
        return ConfigurationError(f"{what} {one_line(text)}: {problem}")

    if len(text) > _LONGEST:
        raise refusal(f"expected at most {_LONGEST} characters, it has {len(text)}")
    if not all(letter.isprintable() for letter in text):
        raise refusal("expected letters that can be printed, it holds others")
    scheme, separator, _ = text.partition("://")
    scheme = scheme.lower()
    if not separator or scheme not in schemes:
        raise refusal(f"expected one of {', '.join(s + '://' for s in schemes)}")
    try:
        parts = urlsplit(percent_encoded(text))
    except ValueError:  # brackets, or letters that would become separators
        raise refusal(f"expected {scheme}://HOST/..., an IPv6 address in brackets") from None
    user, at, place = parts.netloc.rpartition("@")
    match = _PLACE.fullmatch(place)
    if match is None:
        raise refusal(f"expected {scheme}://HOST:PORT/..., an IPv6 address in brackets")
    if match["port"] and not (len(match["port"]) < 9 and 0 < int(match["port"]) < 65536):
        raise refusal("expected a port from 1 to 65535")
    try:
        host = checked_host(match["ipv6"] or match["name"])
    except ValueError as error:
        raise refusal(f"expected {scheme}://HOST/...; there is {error}") from None
    port = f":{int(match['port'])}" if match["port"] else ""
    netloc = f"{user}{at}{f'[{host}]' if ':' in host else host}{port}"
    path, query = (quote(part, safe=_PRINTABLE) for part in (parts.path, parts.query))
    return SplitResult(scheme, netloc, path, query, quote(parts.fragment, safe=_PRINTABLE))


def checked_host(host: str) -> str:
    """Check the name or the address of a host and return it as the system takes it.

    Args:
        host: a name, in any script; an IPv4 address; an IPv6 address without brackets.

    Raises:
        ValueError: it cannot be one; the message says why in a few words.
    """
    if not host:
        raise ValueError("no host")
    if ":" in host:
        address, percent, zone = host.partition("%")
        try:
            ipaddress.IPv6Address(address)
        except ValueError:
            raise ValueError("no right IPv6 address") from None
        if percent and not _LABEL.fullmatch(zone.removeprefix("25")):
            raise ValueError("no right zone of an IPv6 address")
        return f"{address}%{zone.removeprefix('25')}" if percent else address
    if _IPV4.fullmatch(host):
        try:
            return str(ipaddress.IPv4Address(host))
        except ValueError:
            raise ValueError("no right IPv4 address") from None
    try:
        name = host if host.isascii() else host.encode("idna").decode()
    except UnicodeError:
        raise ValueError("no right host name") from None
    if len(name) > 253 or not all(_LABEL.fullmatch(label) for label in name.removesuffix(".").split(".")):
        raise ValueError("no right host name")
    return name
