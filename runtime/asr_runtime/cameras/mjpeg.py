"""The body of an MJPEG stream (`multipart/x-mixed-replace`) -> JPEG files, as the bytes come in."""

from __future__ import annotations

from asr_runtime.errors import SourceError

__all__ = ["MAX_PART", "MultipartReader"]

MAX_PART = 1 << 25
"""Bytes of the largest part that is waited for: eight times a good 4K JPEG."""

_END_OF_JPEG = b"\xff\xd9"
_IN_PICTURE = (b"\xda", b"\xd9")  # start of the scan, end of the picture


class MultipartReader:
    """Cuts a stream into its parts.

    A part with a `Content-Length` is there with its last byte; one without, with the end marker of a JPEG at the end
    of what has come, or with the next boundary. A wrong length costs that part only.

    Args:
        boundary: the separator without its leading dashes, as in `Content-Type`; some cameras write the dashes there
            too.
    """

    def __init__(self, boundary: bytes) -> None:
        self._delimiter = b"--" + boundary.lstrip(b"-")
        self._data = bytearray()

    def feed(self, data: bytes) -> list[bytes]:
        """Take what came and return the parts that it completes, in order.

        Raises:
            SourceError: `MAX_PART` bytes came without an end of the part.
        """
        self._data += data
        parts = []
        while (part := self._next()) is not None:
            if part:
                parts.append(part)
        if len(self._data) > MAX_PART:
            raise SourceError(f"a picture of the stream does not end within {MAX_PART} bytes")
        return parts

    def _next(self) -> bytes | None:
        """Cut off the first part; b"" for one without content, None if it is not complete."""
        start = self._data.find(self._delimiter)
        if start < 0:
            del self._data[: -len(self._delimiter)]
            return None
        head = start + len(self._delimiter)
        body, length = self._header(head)
        if body is None:
            return None
        following = self._data.find(self._delimiter, body)
        if length is not None and length <= MAX_PART and not 0 <= following < body + length:
            if len(self._data) < body + length:
                return None
            if self._may_end(body + length):
                return self._cut(body, body + length)
        if following >= 0:
            return self._cut(body, following)
        if length is None and self._data.rstrip(b"\r\n").endswith(_END_OF_JPEG) and not self._ends_in_thumbnail(body):
            return self._cut(body, len(self._data))
        return None

    def _may_end(self, at: int) -> bool:
        """Tell whether a part ends here: a delimiter follows, or what has come looks like it so far."""
        if rest := self._data[at : at + 2 + len(self._delimiter)].lstrip(b"\r\n"):
            return rest.startswith(self._delimiter) or self._delimiter.startswith(rest)
        return self._data.endswith((b"\r", b"\n", _END_OF_JPEG))

    def _ends_in_thumbnail(self, at: int) -> bool:
        """Tell whether what has come ends in a segment before the picture proper; EXIF keeps a JPEG in one."""
        at += 2
        while self._data[at : at + 1] == b"\xff" and self._data[at + 1 : at + 2] not in _IN_PICTURE:
            at += 2 + int.from_bytes(self._data[at + 2 : at + 4], "big")
        return at > len(self._data)

    def _header(self, at: int) -> tuple[int | None, int | None]:
        """Find where the body begins, and how long its header says it is."""
        ends = [
            (end, size) for mark, size in ((b"\r\n\r\n", 4), (b"\n\n", 2)) if (end := self._data.find(mark, at)) >= 0
        ]
        if not ends:
            return None, None
        end, size = min(ends)
        for line in bytes(self._data[at:end]).splitlines():
            name, _, value = line.partition(b":")
            if name.strip().lower() == b"content-length" and value.strip().isdigit():
                return end + size, int(value)
        return end + size, None

    def _cut(self, body: int, end: int) -> bytes:
        part = bytes(self._data[body:end])
        del self._data[:end]
        return part.rstrip(b"\r\n") if not part.endswith(_END_OF_JPEG) else part
