"""Standard input -> a picture, a video, or the entries of a list; anything else is one error."""

from __future__ import annotations

import contextlib
import os
import select
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from asr_runtime.errors import SourceError
from asr_runtime.media.formats import HEAD_BYTES, Format, recognise
from asr_runtime.media.image import MAX_IMAGE_BYTES

__all__ = ["Media", "read_stdin"]

_CHUNK = 1 << 16
_MOMENT = 0.05  # seconds
_LONGEST_ENTRY = 4096  # bytes; the longest path of Linux
_BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_EXPECTED = "expected the bytes of a picture or video, or a list of paths, one a line or NUL-separated"


@dataclass(frozen=True, slots=True)
class Media:
    """One picture or video that came on standard input.

    Attributes:
        form: what it is.
        data: the bytes of a picture.
        path: the file that a video was written to, there until the next item is asked for.
    """

    form: Format
    data: bytes | None = None
    path: str | None = None


def read_stdin(stream: IO[bytes] | None) -> Iterator[Media | str]:
    """Read standard input.

    Args:
        stream: unbuffered binary stream; None: the standard input of the process.

    Yields:
        One `Media`, or the entries of a list as they come. Whether an entry names a file is for the caller to see,
        but a list of several entries none of which does is no list.

    Raises:
        SourceError: neither, or it cannot be read; what was yielded before stays right.
    """
    try:
        # Unbuffered: a thread that waits inside sys.stdin.buffer holds its lock, and Python aborts at exit.
        yield from _read(open(0, "rb", buffering=0, closefd=False) if stream is None else stream)  # noqa: SIM115
    except OSError as error:
        raise SourceError(f"-: standard input cannot be read ({error.strerror}), {_EXPECTED}") from None


def _read(stream: IO[bytes]) -> Iterator[Media | str]:
    head, ended = _read_head(stream)
    form = recognise(head)
    if form is not None and form.kind == "image":
        yield Media(form, data=_read_all(head, stream))
    elif form is not None:
        with _spooled(head, stream) as path:
            yield Media(form, path=path)
    elif not head.strip(b"\r\n"):
        raise SourceError(f"-: standard input is empty, {_EXPECTED}")
    else:
        yield from _entries(head, stream, ended)


def _read_head(stream: IO[bytes]) -> tuple[bytes, bool]:
    """Read enough bytes to recognise the input, and return whether that was all.

    What writes a list may wait before it goes on: after a first entry only what comes at once is read.
    """
    head = b""
    while len(head) < HEAD_BYTES:
        if _begins_list(head) and not _has_more(stream):
            return head, False
        chunk = stream.read(_CHUNK)
        if not chunk:
            return head, True
        head += chunk
    return head, False


def _begins_list(head: bytes) -> bool:
    line, end, _ = head.partition(b"\n")
    name, end_of_name, rest = head.partition(b"\0")
    is_name = bool(end_of_name) and not rest.startswith(b"\0") and _names_a_file(name)
    return recognise(head) is None and ((bool(end) and not _has_controls(line)) or is_name)


def _has_more(stream: IO[bytes]) -> bool:
    """Whether bytes, or the end, come within a moment; a stream that is no file is always asked."""
    try:
        return bool(select.select([stream.fileno()], [], [], _MOMENT)[0])
    except (OSError, ValueError):
        return True


def _read_all(head: bytes, stream: IO[bytes]) -> bytes:
    chunks, size = [head], len(head)
    while chunk := stream.read(_CHUNK):
        chunks.append(chunk)
        size += len(chunk)
        if size > MAX_IMAGE_BYTES:
            raise SourceError(f"-: more than {MAX_IMAGE_BYTES} bytes, expected an image of at most that")
    return b"".join(chunks)


@contextlib.contextmanager
def _spooled(head: bytes, stream: IO[bytes]) -> Iterator[str]:
    """Write a video to a temporary file: decoders jump to and fro in it."""
    handle, path = tempfile.mkstemp(prefix="asr-screen-")
    try:
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(head)
                while chunk := stream.read(_CHUNK):
                    file.write(chunk)
        except OSError as error:
            raise SourceError(
                f"-: the video cannot be kept in {tempfile.gettempdir()} ({error.strerror}); give it as a file, or set "
                "TMPDIR to a folder with more room"
            ) from None
        yield path
    finally:
        Path(path).unlink(missing_ok=True)


def _entries(head: bytes, stream: IO[bytes], ended: bool) -> Iterator[str]:
    """Yield the entries of a list, once its beginning has shown that it is one."""
    if head[:2] in (b"\xff\xfe", b"\xfe\xff"):
        raise SourceError("-: a text in UTF-16; expected a list of paths in UTF-8")
    head = head.removeprefix(_BYTE_ORDER_MARK)
    separator = b"\0" if b"\0" in head else b"\n"
    if not _is_list(head, separator, ended):
        raise SourceError(f"-: neither a picture, nor a video, nor a list of files; {_EXPECTED}")
    for entry in _split(head, stream, separator):
        is_entry = entry or separator == b"\n"
        if not is_entry or len(entry) > _LONGEST_ENTRY or (separator == b"\n" and _has_controls(entry)):
            raise SourceError(f"-: what follows is no list of files any more; {_EXPECTED}")
        if entry.strip():
            yield os.fsdecode(entry)


def _is_list(head: bytes, separator: bytes, ended: bool) -> bool:
    """Judge the beginning of what may be a list: names of a length that paths have, one of which is a file's."""
    whole = head if ended else head.rpartition(separator)[0] or head
    names = [name for name in whole.removesuffix(separator).split(separator) if name or separator == b"\0"]
    names = [name.rstrip(b"\r") for name in names] if separator == b"\n" else names
    if any(len(name) > _LONGEST_ENTRY or (separator == b"\n" and _has_controls(name)) for name in names):
        return False
    if separator == b"\n" and sum(bool(name.strip()) for name in names) == 1:
        return True  # a single file that is not there is another error
    return (separator == b"\n" or b"" not in names) and any(_names_a_file(name) for name in names)


def _split(head: bytes, stream: IO[bytes], separator: bytes) -> Iterator[bytes]:
    """Yield what stands between separators, and what follows the last one if that is not empty."""
    while True:
        *entries, head = head.split(separator)
        yield from (entry.rstrip(b"\r") if separator == b"\n" else entry for entry in entries)
        chunk = stream.read(_CHUNK) if len(head) <= _LONGEST_ENTRY else b""
        if not chunk:
            if head:
                yield head.rstrip(b"\r") if separator == b"\n" else head
            return
        head += chunk


def _names_a_file(entry: bytes) -> bool:
    # A link that leads nowhere was meant, a folder as well; but "." or "/" occurs in data of any kind.
    try:
        return os.path.lexists(entry) and entry.strip(b"./\\") != b""
    except ValueError:
        return False


def _has_controls(entry: bytes) -> bool:
    """Whether a line holds control characters other than a tab: names on disk may, but then NULs separate them."""
    return any(byte < 32 and byte not in b"\t\r" for byte in entry) or b"\x7f" in entry
