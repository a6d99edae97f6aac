"""SOURCE arguments -> images and videos, one at a time: files, folders, patterns, standard input."""

from __future__ import annotations

import fnmatch
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Literal

from asr_runtime.errors import ConfigurationError, InputError, SourceError
from asr_runtime.media.image import IMAGE_SUFFIXES
from asr_runtime.media.video import VIDEO_SUFFIXES
from asr_runtime.redact import redact
from asr_runtime.sources.live import LiveSource, is_live

__all__ = ["Source", "Unreadable", "check_sources", "expand"]

_WILD = re.compile(r"[*?\[]")
_CHUNK = 1 << 16


@dataclass(frozen=True, slots=True)
class Source:
    """One image or video to screen.

    Attributes:
        name: its path, or `-`.
        kind: by the suffix; what is named outright and has no known suffix is taken for an image.
        data: the bytes, for an image that came on standard input.
        path: where the bytes are, if not at `name`; for uploads, whose name is free text.
    """

    name: str
    kind: Literal["image", "video"]
    data: bytes | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A source that leads to nothing; the others go on."""

    name: str
    error: InputError


def check_sources(files: Sequence[str], live: Sequence[LiveSource]) -> None:
    """Refuse what can be refused before anything is read.

    Raises:
        ConfigurationError: no source at all, `-` twice, or two live sources of one name.
    """
    if not files and not live:
        raise ConfigurationError(
            "no source: give images, folders, patterns, videos, cameras (rtsp://, http://, /dev/video0, 0), "
            "or - for standard input"
        )
    if list(files).count("-") > 1:
        raise ConfigurationError("source -: standard input can be read only once")
    names = [source.name for source in live]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise ConfigurationError(
            f"source {twice}: two live sources of this name; give each once, or a name of its own with --sources"
        )


def expand(arguments: Sequence[str], stdin: IO[bytes] | None = None) -> Iterator[Source | Unreadable]:
    """Turn arguments into sources lazily, in the order given; a folder is listed while it is screened.

    Args:
        arguments: image file, video file, folder (with all below it), glob pattern (`*`, `?`, `[...]`, `**`),
            or `-`: standard input, the bytes of one image or a list of paths, one a line.
        stdin: unbuffered binary stream that `-` reads; None: the standard input of the process.

    Yields:
        A `Source`, or `Unreadable` for what does not exist or holds nothing to screen.
    """
    for argument in arguments:
        if argument == "-":
            yield from _from_stdin(stdin)
        else:
            yield from _from_path(argument)


def _from_path(argument: str) -> Iterator[Source | Unreadable]:
    # A list on standard input, or a pattern, may lead here with anything.
    if is_live(argument):
        shown = redact(argument)
        yield Unreadable(shown, SourceError(f"{shown}: a live source cannot stand in a list; name it as an argument"))
    elif os.path.isdir(argument):  # noqa: PTH112 (no exception for a NUL character)
        yield from _from_folder(argument)
    elif _WILD.search(argument) and not os.path.lexists(argument):
        found = False
        for path in _glob(argument):
            found = True
            yield from _from_folder(path) if os.path.isdir(path) else iter([_file(path)])  # noqa: PTH112
        if not found:
            yield Unreadable(argument, SourceError(f"{argument}: no file matches this pattern"))
    elif not os.path.lexists(argument):
        yield Unreadable(argument, SourceError(f"{argument}: no such file or folder"))
    else:
        yield _file(argument)


def _file(path: str) -> Source:
    return Source(path, "video" if _suffix(path) in VIDEO_SUFFIXES else "image")


def _suffix(name: str) -> str:
    return Path(name).suffix.lower()


def _from_folder(folder: str) -> Iterator[Source | Unreadable]:
    found = False
    for directory in _folders(folder):
        if isinstance(directory, Unreadable):
            found = True
            yield directory
            continue
        for entry in _entries(directory):
            if _suffix(entry.name) in IMAGE_SUFFIXES | VIDEO_SUFFIXES and not _is_folder(entry):
                found = True
                yield _file(entry.path)
    if not found:
        yield Unreadable(folder, SourceError(f"{folder}: the folder holds no image and no video"))


def _folders(top: str) -> Iterator[str | Unreadable]:
    """Yield `top` and every folder below it, each once: links may lead back up, or twice to one place."""
    seen: set[tuple[int, int]] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            status = Path(folder).stat()
            if (status.st_dev, status.st_ino) in seen:
                continue
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:
                below = [entry.path for entry in entries if _is_folder(entry)]
        except OSError as error:
            yield Unreadable(folder, SourceError(f"{folder}: cannot be listed ({error.strerror})"))
            continue
        yield folder
        waiting.extend(sorted(below, reverse=True))


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            yield from entries
    except OSError:
        return  # `_folders` could list it just before: it has gone, with all it held


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False  # a link in a loop, for one; it is told when it is read


def _glob(pattern: str) -> Iterator[str]:
    """Match a pattern part by part. `glob.iglob` follows links under `**` and never ends in a loop of two."""
    path = Path(pattern)
    parts = list(path.parts)
    start = parts.pop(0) if path.is_absolute() else ""
    return _match(start, parts)


def _match(base: str, parts: list[str]) -> Iterator[str]:
    if not parts:
        yield base
        return
    part, rest = parts[0], parts[1:]
    if part == "**":
        for folder in _folders(base or "."):
            if isinstance(folder, str):
                shown = folder if base else folder[2:]  # without the "./"
                yield from _match(shown, rest or ["*"])
    elif not _WILD.search(part):
        path = os.path.join(base, part)  # noqa: PTH118 (Path would drop a leading "./")
        if os.path.lexists(path):
            yield from _match(path, rest)
    else:
        for entry in _entries(base or "."):
            hidden = entry.name.startswith(".") and not part.startswith(".")
            if fnmatch.fnmatchcase(entry.name, part) and not hidden and (not rest or _is_folder(entry)):
                yield from _match(os.path.join(base, entry.name), rest)  # noqa: PTH118


def _from_stdin(stdin: IO[bytes] | None) -> Iterator[Source | Unreadable]:
    # Unbuffered: a thread that waits inside sys.stdin.buffer holds its lock, and Python aborts at exit.
    stream = open(0, "rb", buffering=0, closefd=False) if stdin is None else stdin  # noqa: SIM115
    head = b""
    while len(head) < 32 and b"\n" not in head and (chunk := stream.read(_CHUNK)):
        head += chunk
    if _begins_image(head):
        chunks = [head]
        while chunk := stream.read(_CHUNK):
            chunks.append(chunk)
        yield Source("-", "image", b"".join(chunks))
        return
    empty = True
    for line in _lines(head, stream):
        if line.strip():
            empty = False
            yield from _from_path(os.fsdecode(line))
    if empty:
        yield Unreadable("-", SourceError("-: standard input is empty, expected an image or a list of paths"))


def _lines(head: bytes, stream: IO[bytes]) -> Iterator[bytes]:
    while True:
        *lines, head = head.split(b"\n")
        yield from (line.rstrip(b"\r") for line in lines)
        chunk = stream.read(_CHUNK)
        if not chunk:
            yield head
            return
        head += chunk


def _begins_image(head: bytes) -> bool:
    """Recognise the known formats; a list of paths holds no NUL and does not begin with 0x89 or 0xFF."""
    if head.startswith((b"\xff\xd8\xff", b"\x89PNG\r\n")):
        return True
    is_known = head.startswith((b"BM", b"II*\0", b"MM\0*", b"RIFF")) or head[4:8] == b"ftyp"
    return is_known and b"\0" in head[:32]
