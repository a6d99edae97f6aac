"""What a video file says of itself: a copy that broke off holds fewer bytes than its container says."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

__all__ = ["declared_end", "is_avi", "missing_bytes", "read_at", "read_vint"]

# Top-level boxes of MP4 and QuickTime; anything else after the first is trailing data, not a broken box.
_BOXES = frozenset(
    {
        b"ftyp",
        b"moov",
        b"mdat",
        b"moof",
        b"mfra",
        b"free",
        b"skip",
        b"wide",
        b"uuid",
        b"meta",
        b"sidx",
        b"styp",
    }
)
_MOST_BOXES = 100_000  # of a fragmented recording of a day; a hostile file of empty boxes ends here too


def missing_bytes(path: str) -> int:
    """Count the bytes that an MP4/QuickTime, AVI or Matroska/WebM file lacks by its own account.

    FFmpeg ends such a file without an error, and frame counts and durations are estimates in many containers.

    Returns:
        Number of bytes that are missing; 0 for a whole file and for containers that declare no length.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return max(0, declared_end(file) - file.seek(0, 2))


def is_avi(path: str) -> bool:
    """Tell an AVI file: its frames have no presentation times, only the order in which they were coded.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        return read_at(file, 0, 4) == b"RIFF"


def declared_end(file: BinaryIO) -> int:
    """Return where an MP4/QuickTime, AVI or Matroska/WebM file ends by its own account; 0: it does not say."""
    size = file.seek(0, 2)
    head = read_at(file, 0, 12)
    if head[4:8] in _BOXES:
        return _end_of_boxes(file, size)
    if head[:4] == b"RIFF":
        return _end_of_riff(file, size)
    if head[:4] == b"\x1aE\xdf\xa3":
        return _end_of_segment(file)
    return 0


def read_at(file: BinaryIO, position: int, count: int) -> bytes:
    """Read `count` bytes from `position` on, fewer at the end of the file."""
    file.seek(position)
    return file.read(count)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    end = 0
    for _ in range(_MOST_BOXES):
        if end >= size:
            break
        head = read_at(file, end, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows the name
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] not in _BOXES or length < 8:  # a length of 0 reaches to the end of the file
            break
        end += length
    return end


def _end_of_riff(file: BinaryIO, size: int) -> int:
    end = 0
    for _ in range(_MOST_BOXES):
        if end >= size:
            break
        head = read_at(file, end, 8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length in (0, 0xFFFFFFFF):  # the writer was killed, or wrote to a pipe
            break
        end += 8 + length
    return end


def _end_of_segment(file: BinaryIO) -> int:
    """Return where the Matroska segment ends; 0 where its length was left open."""
    header_length, header_size = read_vint(read_at(file, 4, 8))
    segment = 4 + header_size + header_length
    if read_at(file, segment, 4) != b"\x18S\x80g":
        return 0
    length, length_size = read_vint(read_at(file, segment + 4, 8))
    unknown = (1 << (7 * length_size)) - 1
    return 0 if length == unknown else segment + 4 + length_size + length


def read_vint(data: bytes) -> tuple[int, int]:
    """Read one EBML variable-length integer: its value and its size in bytes."""
    if not data or data[0] == 0:
        return 0, 1
    size = 9 - data[0].bit_length()
    return int.from_bytes(data[:size], "big") & ((1 << (7 * size)) - 1), size
