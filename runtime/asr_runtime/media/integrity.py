"""Finds where the structure of a video file breaks. FFmpeg goes on at the next place that fits, without an error."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from asr_runtime.media.container import declared_end, read_at, read_vint

__all__ = ["broken_at"]

_SEGMENT, _CLUSTER = b"\x18S\x80g", b"\x1fC\xb6u"
# What else stands in a Matroska file, in its segment and in its clusters, in this order.
_ELEMENTS = frozenset(
    {b"\x1aE\xdf\xa3"}
    | {b"\x11M\x9bt", b"\x15I\xa9f", b"\x16T\xaek", b"\x1cS\xbbk", b"\x12T\xc3g", b"\x10C\xa7p", b"\x19A\xa4i"}
    | {b"\xe7", b"\xa3", b"\xa0", b"\xa7", b"\xab", b"XT", b"\xaf", b"\xec", b"\xbf"}
)
_CHUNK = re.compile(rb"\d\d[a-z]{2}|ix\d\d|idx1|[A-Z_]{4}|[a-z]{4}")
_TRANSPORT_PACKETS = (188, 192, 204)
_SYNC = 0x47
_MOST_ITEMS = 1_000_000  # about 2 s; of a longer file the beginning is looked at
_PADDING = 4096  # bytes, all 0 or all 255: padding, whatever follows


def broken_at(path: str) -> int | None:
    """Find where a container's chain of chunks, elements, tags or packets breaks.

    Damage inside a frame is not seen here: the decoder fails on it, or hides it.

    Returns:
        Position of the first byte that cannot be what should stand there, or of the last item where the file
        ends within it. None where all holds, and for containers without such a chain (MP4, Ogg, ASF, raw
        streams). Padding at the end, and what follows the declared end, is no damage.

    Raises:
        OSError: the file cannot be read.
    """
    with Path(path).open("rb") as file:
        head = read_at(file, 0, 1024)
        if packet := _transport_packet(head):
            at = _lost_sync(file, *packet)
        elif chain := _chain(head):
            at = _follow(file, *chain)
        else:
            return None
        size = declared_end(file) or file.seek(0, 2)
        return at if at < size and not _is_padding(file, at) else None


_Step = Callable[[BinaryIO, int], int]  # position of an item -> that of the next, or the same: no item there


def _chain(head: bytes) -> tuple[_Step, int] | None:
    """Say how to follow the file that begins with `head`, and from where."""
    if head[:4] == b"RIFF":
        return _after_chunk, 0
    if head[:4] == b"\x1aE\xdf\xa3":
        return _after_element, 0
    if head[:3] == b"FLV":
        return _after_tag, int.from_bytes(head[5:9], "big") + 4
    if head[:4] == b"\0\0\x01\xba":
        return _after_pack, 0
    return None


def _follow(file: BinaryIO, step: _Step, at: int) -> int:
    size = file.seek(0, 2)
    for _ in range(_MOST_ITEMS):
        if at >= size or not at < (after := step(file, at)) <= size:
            return at
        at = after
    return size


def _is_padding(file: BinaryIO, at: int) -> bool:
    rest = read_at(file, at, _PADDING)
    return rest.strip(b"\0") == b"" or rest.strip(b"\xff") == b""


def _after_chunk(file: BinaryIO, at: int) -> int:
    """AVI: name, length, data, padded to an even length; the lists that hold frames are entered."""
    head = read_at(file, at, 12)
    if not _CHUNK.fullmatch(head[:4]):
        return at
    if head[:4] in (b"RIFF", b"LIST") and head[8:12] in (b"AVI ", b"AVIX", b"movi", b"rec "):
        return at + 12
    length = int.from_bytes(head[4:8], "little")
    return at + 8 + length + (length & 1)


def _after_element(file: BinaryIO, at: int) -> int:
    """Matroska: identifier, length, data; the segment and its clusters are entered."""
    head = read_at(file, at, 12)
    count = 9 - head[0].bit_length()
    name = head[:count]
    length, size = read_vint(head[count:])
    if name in (_SEGMENT, _CLUSTER):
        return at + count + size
    return at + count + size + length if name in _ELEMENTS else at


def _after_tag(file: BinaryIO, at: int) -> int:
    """FLV: type, length, time, a stream number that is 0, data; then the length of this tag."""
    head = read_at(file, at, 11)
    if len(head) < 11 or head[0] & 0x1F not in (8, 9, 18) or head[8:11] != b"\0\0\0":
        return at
    return at + 11 + int.from_bytes(head[1:4], "big") + 4


def _after_pack(file: BinaryIO, at: int) -> int:
    """MPEG program stream: pack headers, and packets with their length."""
    head = read_at(file, at, 14)
    if head[:3] != b"\0\0\x01" or len(head) < 4 or head[3] < 0xB9:
        return at
    if head[3] == 0xB9:  # the end, of this programme
        return at + 4
    if head[3] > 0xBA:
        return at + 6 + int.from_bytes(head[4:6], "big")
    if head[4] >> 6 == 1:  # MPEG-2, with stuffing
        return at + 14 + (head[13] & 7) if len(head) == 14 else at
    return at + 12


def _transport_packet(head: bytes) -> tuple[int, int] | None:
    """Find the first packet of an MPEG transport stream and the length of packets; None: it is none."""
    for length in _TRANSPORT_PACKETS:
        for first in range(length):
            places = head[first : first + 5 * length : length]
            if len(places) >= 4 and places.count(_SYNC) == len(places):
                return first, length
    return None


def _lost_sync(file: BinaryIO, first: int, length: int) -> int:
    """Return the position of the first packet of a transport stream that does not begin with the sync byte."""
    at = first
    while data := read_at(file, at, length * 4096):
        lost = np.flatnonzero(np.frombuffer(data, np.uint8)[::length] != _SYNC)
        if lost.size:
            return at + int(lost[0]) * length
        if 0 < len(data) % length < _TRANSPORT_PACKETS[0]:  # the file ends within a packet
            return at + len(data) // length * length
        at += len(data)
    return at
