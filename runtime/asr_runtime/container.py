"""Does a video file hold as many bytes as its container says? A copy that broke off does not."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

__all__ = ["missing_bytes"]

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


def missing_bytes(path: str) -> int:
    """Count the bytes that an MP4/QuickTime, AVI or Matroska/WebM file lacks by its own account.

    FFmpeg ends such a file without an error, and frame counts and durations are estimates in many containers.

    Returns:
        Number of bytes that are missing; 0 for a whole file and for containers that declare no length.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        size = file.seek(0, 2)
        head = _at(file, 0, 12)
        if head[4:8] in _BOXES:
            end = _end_of_boxes(file, size)
        elif head[:4] == b"RIFF":
            end = _end_of_riff(file, size)
        elif head[:4] == b"\x1aE\xdf\xa3":
            end = _end_of_segment(file)
        else:
            end = 0
    return max(0, end - size)


def _at(file: BinaryIO, position: int, count: int) -> bytes:
    file.seek(position)
    return file.read(count)


def _end_of_boxes(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        head = _at(file, end, 16)
        length = int.from_bytes(head[:4], "big")
        if length == 1:  # a 64-bit length follows the name
            length = int.from_bytes(head[8:16], "big")
        if head[4:8] not in _BOXES or length < 8:  # a length of 0 reaches to the end of the file
            break
        end += length
    return end


def _end_of_riff(file: BinaryIO, size: int) -> int:
    end = 0
    while end < size:
        head = _at(file, end, 8)
        length = int.from_bytes(head[4:8], "little")
        if head[:4] != b"RIFF" or length == 0:  # 0: the writer was killed before it knew
            break
        end += 8 + length
    return end


def _end_of_segment(file: BinaryIO) -> int:
    """Return where the Matroska segment ends; 0 where its length was left open."""
    header_length, header_size = _vint(_at(file, 4, 8))
    segment = 4 + header_size + header_length
    if _at(file, segment, 4) != b"\x18S\x80g":
        return 0
    length, length_size = _vint(_at(file, segment + 4, 8))
    unknown = (1 << (7 * length_size)) - 1
    return 0 if length == unknown else segment + 4 + length_size + length


def _vint(data: bytes) -> tuple[int, int]:
    """Read one EBML variable-length integer: its value and its size in bytes."""
    if not data or data[0] == 0:
        return 0, 1
    size = 9 - data[0].bit_length()
    return int.from_bytes(data[:size], "big") & ((1 << (7 * size)) - 1), size
