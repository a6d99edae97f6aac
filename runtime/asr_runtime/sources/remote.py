"""Pictures and videos on a web server: fetched once, within limits, and screened as files."""

from __future__ import annotations

import os
import re
import shlex
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import IO, TYPE_CHECKING, Literal
from urllib.parse import unquote, urlsplit

from asr_runtime.errors import ConfigurationError, SourceError
from asr_runtime.http.urls import checked_url
from asr_runtime.media.formats import HEAD_BYTES, IMAGE_SUFFIXES, recognise
from asr_runtime.redact import one_line, redact

if TYPE_CHECKING:
    from asr_runtime.http.client import Response

__all__ = ["FetchedFile", "RemoteFile", "fetched_file", "remote_file"]

_URL = re.compile(r"\s*https?://", re.IGNORECASE)
# Not those under which cameras stream: .mjpg, .ts, .flv, .asf, .mpg, .h264.
_VIDEO_SUFFIXES = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi", ".wmv", ".ogv", ".3gp"})
_MOST_BYTES = {"image": 64_000_000, "video": 2_000_000_000}
_MOST_SECONDS = {"image": 30.0, "video": 600.0}
_WATCH = "to watch a camera there, name it in a --sources file"


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A picture or video on a web server.

    Attributes:
        name: what records call it: the URL without its password.
        url: what is fetched; may hold a password, so it is never shown.
        kind: by the suffix of its path.
    """

    name: str
    url: str
    kind: Literal["image", "video"]

    def __repr__(self) -> str:
        return f"RemoteFile({self.name!r})"


@dataclass(frozen=True, slots=True)
class FetchedFile:
    """What was fetched.

    Attributes:
        kind: by its first bytes.
        data: the bytes of what was fetched as a picture.
        path: where a video is, until the next source is asked for.
    """

    kind: Literal["image", "video"]
    data: bytes | None = None
    path: str | None = None


def remote_file(argument: str, *, is_watched: bool = False) -> RemoteFile | None:
    """Take a URL for a file if its path ends in the suffix of a picture or video; None: it is something else.

    Args:
        argument: of the command line. A URL that cannot be right is no file, and `sources.live` says what is wrong.
        is_watched: the user asked for a rate or a duration, so the URL of a picture is a camera that is polled.
    """
    if _URL.match(argument) is None:
        return None
    try:
        url = checked_url(argument, ("http", "https"), "source").geturl()
    except ConfigurationError:
        return None
    suffix = PurePosixPath(unquote(urlsplit(url).path)).suffix.lower()
    if suffix in _VIDEO_SUFFIXES:
        return RemoteFile(redact(url), url, "video")
    return RemoteFile(redact(url), url, "image") if suffix in IMAGE_SUFFIXES and not is_watched else None


@contextmanager
def fetched_file(remote: RemoteFile) -> Iterator[FetchedFile]:
    """Fetch a file, once. A video is stored in a file without a name, which the system removes in any case.

    Redirects are followed on the same host only.

    Raises:
        SourceError: it cannot be fetched, is too large or too slow, or is neither a picture nor a video.
    """
    with _room(remote) as room:
        _fetch_into(room, remote)
        room.seek(0)
        form = recognise(room.read(HEAD_BYTES), urlsplit(remote.url).path)
        if form is None:
            raise SourceError(f"{remote.name}: neither a picture nor a video, though its name says so")
        if not isinstance(room, BytesIO):
            yield FetchedFile(form.kind, path=_path_of(room))
        elif form.kind == "image":
            yield FetchedFile("image", data=room.getvalue())
        else:
            raise SourceError(f"{remote.name}: a video under the name of a picture{_by_hand(remote)}")


def _room(remote: RemoteFile) -> closing[IO[bytes]]:
    """Make room for the file; that of a video is one on disk, since decoders jump to and fro in it."""
    if remote.kind == "image":
        return closing(BytesIO())
    try:
        return closing(tempfile.TemporaryFile(prefix="asr-screen-"))
    except OSError as error:
        raise _no_room(remote, error) from None


def _fetch_into(room: IO[bytes], remote: RemoteFile) -> None:
    from asr_runtime.http.client import TooLargeError, fetch  # the network's modules, which other files do not need
    from asr_runtime.http.connection import HttpError

    try:
        fetch(
            remote.url,
            _MOST_SECONDS[remote.kind],
            _MOST_BYTES[remote.kind],
            accept=lambda response: _check_answer(response, remote),
            into=room,
        )
        room.flush()
    except TooLargeError as error:
        raise SourceError(f"{remote.name}: {error}{_by_hand(remote)}") from None
    except HttpError as error:
        raise SourceError(f"{remote.name}: {error}") from None
    except OSError as error:
        raise _no_room(remote, error) from None


def _check_answer(response: Response, remote: RemoteFile) -> None:
    """Refuse what the head of the answer shows to be no file."""
    kind = response.media_type
    if kind.startswith("multipart/"):
        raise SourceError(f"{remote.name}: an MJPEG stream, expected a file; {_WATCH}")
    if kind in ("text/html", "application/xhtml+xml"):
        raise SourceError(f"{remote.name}: a web page, expected a picture or a video: check the URL")
    if (encoding := response.header("Content-Encoding").strip().lower()) not in ("", "identity"):
        raise SourceError(f"{remote.name}: sent compressed ({one_line(encoding)}), unasked{_by_hand(remote)}")
    if remote.kind == "video" and not response.header("Content-Length"):
        raise SourceError(f"{remote.name}: of unknown length, so it may never end{_by_hand(remote)}; {_WATCH}")


def _by_hand(remote: RemoteFile) -> str:
    name = shlex.quote(PurePosixPath(urlsplit(remote.url).path).name)
    return f"; fetch it by hand: curl -o {name} URL, then asr-screen {name}"


def _no_room(remote: RemoteFile, error: OSError) -> SourceError:
    return SourceError(
        f"{remote.name}: cannot be kept in {tempfile.gettempdir()} ({error.strerror}); "
        "set TMPDIR to a folder with more room"
    )


def _path_of(file: IO[bytes]) -> str:
    """Return a path under which this process, and its children, can open a file that has no name."""
    handles = Path(f"/proc/{os.getpid()}/fd")
    return str((handles if handles.is_dir() else Path("/dev/fd")) / str(file.fileno()))
