"""Arguments of asr-screen -> images and videos, one at a time: files, folders, patterns, standard input."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import IO, Literal

from asr_runtime.errors import ConfigurationError, InputError, SourceError
from asr_runtime.media.formats import HEAD_BYTES, kind_by_suffix, recognise
from asr_runtime.redact import redact
from asr_runtime.sources.live import LiveSource, is_live
from asr_runtime.sources.pattern import is_pattern, match
from asr_runtime.sources.remote import RemoteFile, fetched_file
from asr_runtime.sources.standard_input import read_stdin
from asr_runtime.sources.walk import Entry, belongs_to_the_system, walk

__all__ = ["Expansion", "Source", "Unreadable", "check_sources"]


@dataclass(frozen=True, slots=True)
class Source:
    """One image or video to screen.

    Attributes:
        name: its path, or `-`.
        kind: by the first bytes; by the suffix where these are of no known format, or cannot be read.
        data: the bytes, for an image that came on standard input.
        path: where the bytes are, if not at `name`: a video of standard input or of a web server, an upload, whose
            name is free text.
    """

    name: str
    kind: Literal["image", "video"]
    data: bytes | None = None
    path: str | None = None


@dataclass(frozen=True, slots=True)
class Unreadable:
    """A source that cannot be read; the run goes on with the others."""

    name: str
    error: InputError


def check_sources(files: Sequence[str | RemoteFile], live: Sequence[LiveSource]) -> None:
    """Refuse impossible combinations of sources before anything is read.

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


class Expansion:
    """Turns arguments into sources lazily, in the order given, each file once; folders are listed while screened.

    The same rule applies to a file that is named, matched by a pattern, or lies in a folder: its first bytes decide its
    format. A picture or a video, also by its suffix alone, is a source. Other files, and those of the operating system,
    are counted in `ignored`. Within a folder or pattern, sources are sorted by the characters of their paths.

    Args:
        arguments: image file, video file, folder (with all below it), glob pattern (`*`, `?`, `[...]`, `**`),
            `-`: standard input, see `sources.standard_input`, or a file on a web server.
        stdin: unbuffered binary stream that `-` reads; None: the standard input of the process.
        folders_in_list: a list on standard input may name folders.

    Attributes:
        ignored: files, and folders of the operating system, that were left out so far.
    """

    def __init__(
        self, arguments: Sequence[str | RemoteFile], stdin: IO[bytes] | None = None, *, folders_in_list: bool = False
    ) -> None:
        self.ignored = 0
        self._arguments, self._stdin, self._folders_in_list = arguments, stdin, folders_in_list
        self._given: set[bytes] = set()  # digests of the true paths of files
        self._repeated = 0  # files that were given before
        self._folder, self._true_folder = "", os.path.realpath(".")  # of the file before

    def __iter__(self) -> Iterator[Source | Unreadable]:
        """Yield a `Source`, or `Unreadable` for what does not exist, holds nothing to screen, or cannot be listed."""
        is_empty = True
        for argument in self._arguments:
            for item in self.from_argument(argument):
                is_empty = False
                yield item
        if is_empty and self.ignored:
            name = str(self._arguments[0])
            others = f" (and {self.ignored - 1} more)" if self.ignored > 1 else ""
            yield Unreadable(
                name, SourceError(f"{name}{others}: neither a picture nor a video, so there is nothing to screen")
            )

    def arrived(self, path: str) -> Iterator[Source | Unreadable]:
        """Yield what a file holds that came, or changed, in a watched folder; a changed one is given again."""
        if _is_of_the_system(path, is_folder=False):
            self.ignored += 1
        else:
            yield from self._from_file(path, is_again=True)

    def from_argument(self, argument: str | RemoteFile) -> Iterator[Source | Unreadable]:
        """Yield what one argument leads to."""
        if isinstance(argument, RemoteFile):
            return self._from_server(argument)
        return self._from_stdin() if argument == "-" else self._from_path(argument)

    def _from_server(self, remote: RemoteFile) -> Iterator[Source | Unreadable]:
        if not self._note(os.fsencode(remote.url)):
            return
        try:
            with fetched_file(remote) as file:
                yield Source(remote.name, file.kind, file.data, file.path)
        except SourceError as error:
            yield Unreadable(remote.name, error)

    def _from_path(self, argument: str) -> Iterator[Source | Unreadable]:
        if os.path.isdir(argument):  # noqa: PTH112 (no exception for a NUL character)
            yield from self._named_folder(argument)
        elif is_pattern(argument) and not os.path.lexists(argument):
            entries = iter(match(argument))
            first = next(entries, None)
            if first is None:
                yield Unreadable(argument, SourceError(f"{argument}: no file matches this pattern"))
                return
            yield from self._from_entry(first)
            for entry in entries:
                yield from self._from_entry(entry)
        else:
            yield from self._named(argument)

    def _named_folder(self, folder: str) -> Iterator[Source | Unreadable]:
        if _is_of_the_system(folder, is_folder=True):
            self.ignored += 1
            return
        repeated, ignored, is_empty = self._repeated, self.ignored, True
        for item in self._from_folder(folder):
            is_empty = False
            yield item
        if is_empty and self._repeated == repeated:
            count = self.ignored - ignored
            others = f" ({count} other files)" if count else ""
            yield Unreadable(folder, SourceError(f"{folder}: the folder holds no image and no video{others}"))

    def _named(self, path: str) -> Iterator[Source | Unreadable]:
        if not os.path.lexists(path):
            yield Unreadable(path, SourceError(f"{path or 'a source without a name'}: no such file or folder"))
        elif _is_of_the_system(path, is_folder=False):
            self.ignored += 1
        else:
            yield from self._from_file(path, is_named=True)

    def _from_entry(self, entry: Entry) -> Iterator[Source | Unreadable]:
        if entry.kind == "system":
            self.ignored += 1
        elif entry.kind == "closed":
            yield Unreadable(entry.path, SourceError(f"{entry.path}: cannot be listed ({entry.reason})"))
        elif entry.kind == "folder":
            yield from self._from_folder(entry.path)
        else:
            yield from self._from_file(entry.path)

    def _from_folder(self, folder: str) -> Iterator[Source | Unreadable]:
        for entry in walk(folder):
            yield from self._from_entry(entry)

    def _from_file(self, path: str, *, is_named: bool = False, is_again: bool = False) -> Iterator[Source | Unreadable]:
        """Yield what a file holds, if it holds something and has not been given before."""
        head = _head(path)
        if isinstance(head, bytes):
            form = recognise(head, path)
            kind = form.kind if form is not None else kind_by_suffix(path, head)
        else:  # it cannot be read, or is no regular file: the error follows when it is decoded
            kind = kind_by_suffix(path, None) or ("image" if is_named or head == "unreadable" else None)
        if kind is None:
            self.ignored += 1
        elif is_again or not isinstance(head, bytes) or self._is_new(path):
            yield Source(path, kind)

    def _is_new(self, path: str) -> bool:
        """Remember a file; False if it was given before, under any name."""
        folder, name = os.path.split(path)
        if folder != self._folder:
            self._folder, self._true_folder = folder, os.path.realpath(folder or ".")
        place = os.path.join(self._true_folder, name)  # noqa: PTH118
        if os.path.islink(place):  # noqa: PTH114
            place = os.path.realpath(place)
        return self._note(os.fsencode(place))

    def _note(self, place: bytes) -> bool:
        digest = hashlib.blake2b(place, digest_size=16).digest()  # a third of the memory of the path
        is_new = digest not in self._given
        self._given.add(digest)
        self._repeated += not is_new
        return is_new

    def _from_stdin(self) -> Iterator[Source | Unreadable]:
        try:
            for item in read_stdin(self._stdin):
                if isinstance(item, str):
                    yield from self.from_list(item)
                else:
                    yield Source("-", item.form.kind, item.data, item.path)
        except SourceError as error:
            yield Unreadable("-", error)

    def from_list(self, entry: str) -> Iterator[Source | Unreadable]:
        """Yield what one entry of a list names: an existing file. It expands no pattern."""
        if is_live(entry):
            shown = redact(entry)
            yield Unreadable(
                shown, SourceError(f"{shown}: a URL or a camera cannot stand in a list; name it as an argument")
            )
        elif not os.path.isdir(entry):  # noqa: PTH112
            yield from self._named(entry)
        elif self._folders_in_list:
            yield from self._named_folder(entry)
        else:
            yield Unreadable(
                entry, SourceError(f"{entry}: a folder in a list; to go through folders give --folders-in-list")
            )


def _is_of_the_system(path: str, *, is_folder: bool) -> bool:
    return belongs_to_the_system(os.path.basename(path.rstrip("/")), is_folder)  # noqa: PTH119


def _head(path: str) -> bytes | Literal["unreadable", "irregular"]:
    """Return the first bytes of a regular file; opening a fifo or some devices would wait for ever."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):  # noqa: PTH116 (twice as fast, of 100,000 files)
            return "irregular"
        handle = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            return os.read(handle, HEAD_BYTES)
        finally:
            os.close(handle)
    except (OSError, ValueError) as error:
        leads_nowhere = isinstance(error, OSError) and error.errno in (errno.ENOENT, errno.ELOOP)
        return "irregular" if leads_nowhere else "unreadable"
