"""Access to pages of this machine: open on loopback; with a token where other machines can reach them."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from asr_runtime.errors import ConfigurationError

__all__ = ["is_loopback", "read_token"]

_SHORTEST = 16  # characters


def read_token(path: str) -> str:
    """Read the token that viewers must present: the file's first line.

    Raises:
        ConfigurationError: the file cannot be read, or holds fewer than 16 characters.
    """
    try:
        token = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"token file {path}: cannot be read ({error})") from None
    if len(token) < _SHORTEST or not token.isascii() or not token.isprintable():
        raise ConfigurationError(f"token file {path}: expected a line of {_SHORTEST} or more printable ASCII letters")
    return token


def is_loopback(host: str) -> bool:
    """Whether a host of a URL names this machine alone: localhost, 127.0.0.0/8 or ::1."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
