"""Which arguments name live sources, and what they are called."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from asr_runtime.errors import ConfigurationError
from asr_runtime.redact import percent_encoded, redact

__all__ = ["LiveSource", "is_live", "live_source", "named_sources"]

_SCHEMES = ("rtsp", "rtsps", "http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE = re.compile(r"/dev/video\d+")


@dataclass(frozen=True, slots=True)
class LiveSource:
    """A camera.

    Attributes:
        name: what records call it: a name that was given, or the URL without its password.
        url: what is opened; may hold a password, so it is never shown.
    """

    name: str
    url: str

    def __repr__(self) -> str:
        return f"LiveSource({self.name!r})"


def is_live(argument: str) -> bool:
    """Whether an argument names a live source: a URL, a video device, or the index of a camera (unless a file)."""
    is_index = argument.isascii() and argument.isdecimal() and not os.path.lexists(argument)
    return is_index or _URL.match(argument) is not None or _DEVICE.fullmatch(argument) is not None


def live_source(argument: str, name: str | None = None) -> LiveSource:
    """Make a live source of `rtsp://...`, `http://...`, `/dev/videoN` or a camera's index.

    Raises:
        ConfigurationError: another kind of URL, or one that cannot be right.
    """
    if (match := _URL.match(argument)) is None:
        path = f"/dev/video{int(argument)}" if argument.isdecimal() else argument
        return LiveSource(name or argument, path)
    url = percent_encoded(argument)
    shown = redact(url)
    if match[1].lower() not in _SCHEMES:
        raise ConfigurationError(f"source {shown}: expected one of {', '.join(s + '://' for s in _SCHEMES)}")
    if not re.match(r"[^/?#]", url[match.end() :].rpartition("@")[2]):
        raise ConfigurationError(f"source {shown}: no host, expected {match[1]}://HOST/...")
    return LiveSource(name or shown, url)


def named_sources(path: str | os.PathLike[str]) -> list[LiveSource]:
    """Read a file of live sources: TOML, a line `name = "rtsp://..."` each.

    Raises:
        ConfigurationError: the file cannot be read, is no TOML, or a value is no live source.
    """
    import tomllib

    where = os.fspath(path)
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"sources {where}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = re.sub(r"'.*'", "...", str(error))
        raise ConfigurationError(f'sources {where}: {reason}; expected lines name = "rtsp://HOST/..."') from None
    sources = []
    for name, url in found.items():
        if not isinstance(url, str | int) or not is_live(str(url)):
            raise ConfigurationError(f"sources {where}: {name}: expected a URL, a video device or a camera's index")
        sources.append(live_source(str(url), name))
    if not sources:
        raise ConfigurationError(f'sources {where}: no source in it; expected lines name = "rtsp://HOST/..."')
    return sources
