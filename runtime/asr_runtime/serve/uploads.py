"""Request bodies -> files in memory. Nothing is written to a disk."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import time
from collections.abc import AsyncIterator, Callable, Iterable
from typing import Literal, Self, TypeVar

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import Request

from asr_runtime.media.formats import HEAD_BYTES, kind_by_suffix, recognise
from asr_runtime.serve.limits import Limits, RefusedError
from asr_runtime.sources.expand import Source

__all__ = ["Budget", "Upload", "close_all", "read_uploads"]

_LONGEST_NAME = 255
_LONGEST_HEADERS = 16 << 10  # bytes of the headers of one part
T = TypeVar("T")
_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


class Budget:
    """Bytes and files of request bodies that are in memory, of all requests together.

    Attributes:
        bytes: in use.
        files: in use.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.bytes = self.files = 0

    def take(self, bytes_: int, files: int = 0) -> None:
        """Take room. Raises `RefusedError` if there is none."""
        if self.bytes + bytes_ > self._limits.upload_bytes or self.files + files > self._limits.open_files:
            raise RefusedError(429, "the uploads of all clients fill the room for them; try again later", 1)
        self.bytes += bytes_
        self.files += files

    def give_back(self, bytes_: int, files: int) -> None:
        """Return room."""
        self.bytes -= bytes_
        self.files -= files


class Upload:
    """One file in anonymous memory (`memfd`), which a decoding process reads by a path of this process.

    Args:
        name: as the client calls it; free text.
        content_type: as the client says; used where neither the bytes nor the name say what it is.
        budget: of memory.
    """

    def __init__(self, name: str, content_type: str, budget: Budget) -> None:
        self.name = clean_name(name)
        self._content_type = content_type
        self._budget = budget
        self._bytes = 0
        budget.take(0, files=1)
        self._file = os.memfd_create("asr-upload", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)

    def write(self, part: bytes) -> None:
        """Append bytes. Raises `RefusedError` if there is no room."""
        self._budget.take(len(part))
        self._bytes += len(part)
        left = memoryview(part)
        while left:
            left = left[os.write(self._file, left) :]

    def seal(self) -> None:
        """End writing: from now on no process can change the file."""
        fcntl.fcntl(self._file, fcntl.F_ADD_SEALS, _SEALS)

    @property
    def source(self) -> Source:
        """The file as something to decode."""
        return Source(self.name, self._kind(), path=f"/proc/{os.getpid()}/fd/{self._file}")

    def close(self) -> None:
        """Free the memory."""
        if self._file >= 0:
            os.close(self._file)
            self._budget.give_back(self._bytes, files=1)
            self._file = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _kind(self) -> Literal["image", "video"]:
        head = os.pread(self._file, HEAD_BYTES, 0)
        if (form := recognise(head, self.name)) is not None:
            return form.kind
        return kind_by_suffix(self.name, head) or ("video" if self._content_type.startswith("video/") else "image")


def close_all(uploads: Iterable[Upload]) -> None:
    """Free the memory of some files."""
    for upload in uploads:
        upload.close()


def clean_name(name: str) -> str:
    """Return a name that fits in one line: without control characters, and not longer than 255 characters."""
    return "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in name)[:_LONGEST_NAME] or "upload"


async def read_uploads(request: Request, name: str, limits: Limits, budget: Budget) -> list[Upload]:
    """Read a request body: a multipart form with files, or otherwise the bytes of one file.

    Args:
        request: whose body was not read yet.
        name: of the file, if the body is one.
        limits: of the server.
        budget: of memory.

    Returns:
        The files, at least one; close them.

    Raises:
        RefusedError: the body is too long, too slow, empty, or no valid form.
        starlette.requests.ClientDisconnect: the client went away.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isdigit() or int(declared) > limits.request_bytes:
        raise RefusedError(413, f"the body has {declared} bytes, expected at most {limits.request_bytes}")
    content_type = request.headers.get("content-type", "")
    kind, options = parse_options_header(content_type)
    is_form = kind == b"multipart/form-data"
    form = _Form(options.get(b"boundary", b""), limits, budget) if is_form else None
    uploads = form.uploads if form is not None else [Upload(name, content_type.lower(), budget)]
    with contextlib.ExitStack() as on_failure:
        on_failure.callback(close_all, uploads)
        write = form.write if form is not None else uploads[0].write
        empty = True
        async for chunk in _chunks(request, limits):
            empty = empty and not chunk
            write(chunk)
        if form is not None:
            form.finish()
        if empty or not uploads:
            raise RefusedError(400, "no file came; send the bytes of one as the body, or files in a multipart form")
        for upload in uploads:
            upload.seal()
        on_failure.pop_all()
    return uploads


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Yield the parts of a body while they come fast enough."""
    started, count = time.monotonic(), 0
    parts = request.stream()
    while True:
        left = started + limits.patience + count / limits.bytes_per_second - time.monotonic()
        try:
            async with asyncio.timeout(min(limits.patience, max(0.0, left))):
                part = await anext(parts)
        except StopAsyncIteration:
            return
        except TimeoutError:
            raise RefusedError(
                408,
                f"the body came too slowly: {count} bytes in {time.monotonic() - started:.0f} s, then a pause; "
                f"expected {limits.bytes_per_second} bytes/s and no pause of {limits.patience:g} s",
            ) from None
        count += len(part)
        if count > limits.request_bytes:
            raise RefusedError(413, f"the body is longer than {limits.request_bytes} bytes")
        yield part


class _Form:
    """A multipart form that is being read; fields that are no files are left out."""

    def __init__(self, boundary: bytes, limits: Limits, budget: Budget) -> None:
        self.uploads: list[Upload] = []
        self._limits, self._budget = limits, budget
        self._header, self._value, self._headers = b"", b"", dict[bytes, bytes]()
        self._header_bytes = 0
        self._current: Upload | None = None
        self._ended = False
        if not boundary:
            raise RefusedError(400, "the multipart form has no boundary in its Content-Type")
        self._parser = self._checked(
            lambda: MultipartParser(
                boundary,
                {
                    "on_part_begin": self._begin,
                    "on_header_field": self._on_header,
                    "on_header_value": self._on_value,
                    "on_header_end": self._end_header,
                    "on_headers_finished": self._open,
                    "on_part_data": self._on_data,
                    "on_end": self._end,
                },
            )
        )

    def write(self, part: bytes) -> None:
        """Take in the next part of the body. Raises `RefusedError`."""
        self._checked(lambda: self._parser.write(part))

    def finish(self) -> None:
        """End the form. Raises `RefusedError` if it is not complete."""
        self._checked(self._parser.finalize)
        if not self._ended:
            raise RefusedError(400, "the multipart form is cut short")

    def _checked(self, act: Callable[[], T]) -> T:
        try:
            return act()
        except FormParserError as error:
            raise RefusedError(400, f"not a valid multipart form ({error})") from None

    def _begin(self) -> None:
        self._headers, self._header_bytes, self._current = {}, 0, None

    def _on_header(self, data: bytes, start: int, end: int) -> None:
        self._header += self._limited(data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._limited(data[start:end])

    def _limited(self, part: bytes) -> bytes:
        self._header_bytes += len(part)
        if self._header_bytes > _LONGEST_HEADERS:
            raise RefusedError(400, f"a part of the form has headers of more than {_LONGEST_HEADERS} bytes")
        return part

    def _end_header(self) -> None:
        self._headers[self._header.lower()] = self._value
        self._header = self._value = b""

    def _open(self) -> None:
        options = parse_options_header(self._headers.get(b"content-disposition", b""))[1]
        name = options.get(b"filename")
        if name is None and b"content-type" in self._headers:  # a file whose name is in a form that is not read
            name = options.get(b"name", b"")
        if name is None:
            return
        if len(self.uploads) == self._limits.files:
            raise RefusedError(413, f"the form has more than {self._limits.files} files")
        content_type = self._headers.get(b"content-type", b"").decode(errors="replace").lower()
        self._current = Upload(name.decode(errors="replace"), content_type, self._budget)
        self.uploads.append(self._current)

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        if self._current is not None:
            self._current.write(data[start:end])

    def _end(self) -> None:
        self._ended = True
