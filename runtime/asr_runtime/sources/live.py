"""Which arguments are live sources, and their names."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from asr_runtime.errors import ConfigurationError
from asr_runtime.http.urls import checked_url
from asr_runtime.redact import redact

__all__ = ["LiveSource", "is_live", "live_source", "named_sources"]

_SCHEMES = ("rtsp", "rtsps", "http", "https")
_URL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
_DEVICE = re.compile(r"/dev/video[0-9]+|/dev/v4l/by-(?:id|path)/[^/]+")  # there or not: it may be plugged in later
_VIDEO4LINUX = 81  # major number of the devices, to which a rule of udev may give any name
_INDEX = re.compile(r"[0-9]{1,9}")


@dataclass(frozen=True, slots=True)
class LiveSource:
    """A camera.

    Attributes:
        name: its name in records: the name that was given, or the URL without its password.
        url: what is opened; may hold a password, so it is never shown.
    """

    name: str
    url: str

    def __repr__(self) -> str:
        return f"LiveSource({self.name!r})"


def is_live(argument: str) -> bool:
    """Whether an argument is a live source: a URL, a video device, or a camera's index (if no file has that name)."""
    is_index = _INDEX.fullmatch(argument) is not None and not os.path.lexists(argument)
    is_named = _URL.match(argument) is not None or _DEVICE.fullmatch(argument) is not None
    return is_index or is_named or (argument.startswith("/dev/") and _is_video_device(argument))


def _is_video_device(path: str) -> bool:
    try:
        status = Path(path).stat()
    except (OSError, ValueError):
        return False
    return stat.S_ISCHR(status.st_mode) and os.major(status.st_rdev) == _VIDEO4LINUX


def live_source(argument: str, name: str | None = None) -> LiveSource:
    """Make a live source of a URL (`rtsp://`, `http://`), a video device (`/dev/video0`, `/dev/v4l/...`) or an index.

    Raises:
        ConfigurationError: another kind of URL, or one that cannot be right.
    """
    if _URL.match(argument) is None:
        path = f"/dev/video{int(argument)}" if _INDEX.fullmatch(argument) else argument
        return LiveSource(name or argument, path)
    url = checked_url(argument, _SCHEMES, "source").geturl()
    return LiveSource(name or redact(url), url)


def named_sources(path: str | os.PathLike[str]) -> list[LiveSource]:
    """Read a TOML file of live sources; each line is `name = "rtsp://..."`.

    Raises:
        ConfigurationError: the file cannot be read, is no TOML, or a value is no live source.
    """
    import tomllib

    where = os.fspath(path)
    try:
        table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"sources {where}: cannot be read ({error.strerror})") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        reason = re.sub(r"'.*'", "...", str(error))
        raise ConfigurationError(f'sources {where}: {reason}; expected lines name = "rtsp://HOST/..."') from None
    sources = []
    for name, url in table.items():
        if not isinstance(url, str | int) or not is_live(str(url)):
            raise ConfigurationError(f"sources {where}: {name}: expected a URL, a video device or a camera's index")
        try:
            sources.append(live_source(str(url), name))
        except ConfigurationError as error:
            raise ConfigurationError(f"sources {where}: {name}: {error}") from None
    if not sources:
        raise ConfigurationError(f'sources {where}: no source in it; expected lines name = "rtsp://HOST/..."')
    return sources
