"""The body of an MJPEG stream (`multipart/x-mixed-replace`) -> JPEG files, as the bytes come in."""

from __future__ import annotations

import re

from asr_runtime.errors import SourceError

__all__ = ["MAX_PART", "MultipartReader"]

MAX_PART = 1 << 25
"""Bytes of the largest part that is waited for: eight times a good 4K JPEG."""

_END_OF_JPEG = b"\xff\xd9"
_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_LENGTH = re.compile(rb"[0-9]{1,15}")
_BEGINS_HEADER = re.compile(rb"[A-Za-z-]{1,40}[ \t]*:|\r?\n")
_LONGEST_NAME = 50
_LONGEST_BOUNDARY = 200
_LONGEST_HEADER = 1 << 14
_BOUNDARY = re.compile(rb"[!-9;-~]{1,200}")  # printable, without blanks and colons
_MOST_SEGMENTS = 1000  # of a JPEG; scanners of hostile data must end
_IN_PICTURE = (b"\xda", b"\xd9")  # start of the scan, end of the picture


class MultipartReader:
    """Cuts a stream into its parts.

    A part with a `Content-Length` is there with its last byte, whatever is inside it; one without, with the end marker
    of a JPEG at the end of what has come, or with the next boundary. A wrong length costs that part only. A stream
    that begins with another boundary than its header names is cut at the one that it uses, as FFmpeg does.

    Args:
        boundary: the separator without its leading dashes, as in `Content-Type`; some cameras write the dashes there
            too.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary.lstrip(b"-")
        self._data = bytearray()
        self._searched = 0  # bytes that hold no delimiter, from the start of the body or of the data
        self._has_begun = False

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came and return the parts that it completes, in order.

        Raises:
            SourceError: `MAX_PART` bytes came without an end of the part.
        """
        self._data += data
        parts = []
        if self._begins():
            while (part := self._next()) is not None:
                if part:
                    parts.append(part)
        if len(self._data) > MAX_PART:
            raise SourceError(f"a picture of the stream does not end within {MAX_PART} bytes")
        return parts

    def _begins(self) -> bool:
        """Wait for the first line that is not empty, and take it for the boundary if the header of a part follows."""
        if self._has_begun:
            return True
        line, newline, rest = bytes(self._data[:_LONGEST_HEADER]).lstrip(b"\r\n").partition(b"\n")
        if not newline or not _BEGINS_HEADER.match(rest):
            # A stream that begins with something else has no such line: then the header of the stream is right.
            may_come = b"\n" not in rest and len(rest) < _LONGEST_NAME and len(self._data) < _LONGEST_HEADER
            self._has_begun = not (may_come and (newline or len(line) < _LONGEST_BOUNDARY))
            return self._has_begun
        line = line.strip()
        if _BOUNDARY.fullmatch(line) and self._delimiter not in line:
            self._delimiter = line
        self._has_begun = True
        return True

    def _next(self) -> bytes | None:
        """Cut off the first part; b"" for one without content, None if it is not complete."""
        start = self._data.find(self._delimiter)
        if start < 0:
            del self._data[: -len(self._delimiter)]
            return None
        del self._data[:start]
        body, length = self._header(len(self._delimiter))
        if body is None:
            return None
        if length is not None and length <= MAX_PART:
            following = self._following(body)
            if len(self._data) < body + length and not self._ends_before(body, following):
                return None
            if len(self._data) >= body + length and self._may_end(body + length):
                return self._cut(body, body + length)
        if (following := self._following(body)) >= 0:
            return self._cut(body, following)
        if length is None and self._ends_with_picture() and not self._ends_in_thumbnail(body):
            return self._cut(body, len(self._data))
        return None

    def _following(self, body: int) -> int:
        """Return where the next delimiter is, -1 if there is none yet; searches only what was not searched before."""
        following = self._data.find(self._delimiter, max(body, self._searched))
        self._searched = len(self._data) - len(self._delimiter) if following < 0 else following
        return following

    def _ends_before(self, body: int, following: int) -> bool:
        """Whether a picture is whole before the delimiter inside its announced length, which then is wrong."""
        if following < 0:
            return False
        end = _end_of_jpeg(self._data, body)
        return end is not None and end <= following and not self._data[end:following].strip(b"\r\n")

    def _may_end(self, at: int) -> bool:
        """Whether a part ends here: a delimiter follows, or what has come looks like it so far."""
        if rest := self._data[at : at + 2 + len(self._delimiter)].lstrip(b"\r\n"):
            return rest.startswith(self._delimiter) or self._delimiter.startswith(rest)
        return self._data.endswith((b"\r", b"\n", _END_OF_JPEG))

    def _ends_with_picture(self) -> bool:
        return self._data[-6:].rstrip(b"\r\n").endswith(_END_OF_JPEG)

    def _ends_in_thumbnail(self, body: int) -> bool:
        """Whether what has come ends in a segment before the picture proper; EXIF keeps a JPEG in one."""
        at = body + 2
        for _ in range(_MOST_SEGMENTS):
            if self._data[at : at + 1] != b"\xff" or self._data[at + 1 : at + 2] in _IN_PICTURE:
                break
            at += 2 + int.from_bytes(self._data[at + 2 : at + 4], "big")
        return at > len(self._data)

    def _header(self, at: int) -> tuple[int | None, int | None]:
        """Find where the body begins, and how long its header says it is."""
        ends = [
            (end, size)
            for mark, size in ((b"\r\n\r\n", 4), (b"\n\n", 2))
            if (end := self._data.find(mark, at, at + _LONGEST_HEADER)) >= 0
        ]
        if not ends:
            return None, None
        end, size = min(ends)
        for line in bytes(self._data[at:end]).splitlines():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and _LENGTH.fullmatch(value.strip()):
                return end + size, int(value)
        return end + size, None

    def _cut(self, body: int, end: int) -> bytes:
        part = bytes(self._data[body:end])
        del self._data[:end]
        self._searched = 0
        return part.rstrip(b"\r\n") if not part.endswith(_END_OF_JPEG) else part


def _end_of_jpeg(data: bytearray, start: int) -> int | None:
    """Return where a JPEG ends by its own structure; None if it does not end, or is none."""
    if data[start : start + 2] != b"\xff\xd8":
        return None
    at = start + 2
    for _ in range(_MOST_SEGMENTS):
        if data[at : at + 1] != b"\xff":
            return None
        kind = data[at + 1 : at + 2]
        if kind == b"\xd9":
            return at + 2
        at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
        if kind == b"\xda":  # the compressed data go on to the next marker that is none of theirs
            marker = _MARKER.search(data, at)
            if marker is None:
                return None
            at = marker.start()
    return None
