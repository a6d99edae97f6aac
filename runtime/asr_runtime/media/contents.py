"""What a video file says of its contents before anything is decoded: tracks, duration, and whether it has its index."""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from asr_runtime.media.container import read_at, read_vint

__all__ = ["Contents", "contents"]

_MOST_ITEMS = 10_000  # boxes, elements or chunks of one level
_TRANSPORT_VIDEO = frozenset((0x01, 0x02, 0x10, 0x1B, 0x24, 0x33, 0x42, 0xD1, 0xEA))  # stream types of a programme
_SEARCHED_BYTES = 1 << 21
_PACKET = re.compile(rb"\0\0\x01([\xe0-\xef])..[\x80-\x8f]", re.DOTALL)  # of a video in an MPEG program stream
_ASF_VIDEO = re.compile(
    re.escape(bytes.fromhex("9107dcb7b7a9cf118ee600c00c205365"))
    + rb".{8}"
    + re.escape(bytes.fromhex("c0ef19bc4d5bcf11a8fd00805f5c442b")),
    re.DOTALL,
)
_SEGMENT, _INFO, _TRACKS, _CLUSTER, _CUES = b"\x18S\x80g", b"\x15I\xa9f", b"\x16T\xaek", b"\x1fC\xb6u", b"\x1cS\xbbk"


@dataclass(frozen=True, slots=True)
class Contents:
    """What a container declares.

    Attributes:
        tracks: of video; 0 where it does not say.
        seconds: that the video lasts; None where it does not say.
        skipped: seconds at the beginning that are decoded but not to be shown; NaN where other parts are left out too.
        has_times: it says when a frame is shown, not only when it is decoded.
        is_alone: it has no other track, so that `seconds` are those of the video.
        lacks_index: the index that is written when a recording ends is not there.
        is_playable: it can be read without that index.
    """

    tracks: int = 0
    seconds: float | None = None
    skipped: float = 0.0
    has_times: bool = True
    is_alone: bool = False
    lacks_index: bool = False
    is_playable: bool = True


def contents(file: BinaryIO) -> Contents:
    """Read what an MP4/QuickTime, Matroska/WebM, AVI, ASF or MPEG file declares; nothing for other files."""
    head = read_at(file, 0, 12)
    size = file.seek(0, 2)
    try:
        if head[:4] == b"\x1aE\xdf\xa3":
            return _of_matroska(file, size)
        if head[:4] == b"RIFF":
            return _of_avi(file, size)
        if head[4:8] in (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip", b"styp"):
            return _of_boxes(file, size)
        if head[:4] == b"\0\0\x01\xba":
            return Contents(len(set(_PACKET.findall(read_at(file, 0, _SEARCHED_BYTES)))))
        if head[:4] == b"\x30\x26\xb2\x75":
            return Contents(len(_ASF_VIDEO.findall(read_at(file, 0, _SEARCHED_BYTES))), has_times=False)
        return Contents(_transport_tracks(read_at(file, 0, _SEARCHED_BYTES)))
    except (struct.error, IndexError, ValueError):
        return Contents()


def _of_boxes(file: BinaryIO, size: int) -> Contents:
    """MP4 and QuickTime: frames are in `mdat`, their index in `moov`, or in one `moof` for each fragment."""
    names = set()
    moov = (0, 0)
    for name, start, end in _boxes(file, 0, size):
        names.add(name)
        if name == b"moov":
            moov = (start, end)
    if b"moov" not in names:
        return Contents(lacks_index=b"mdat" in names and b"moof" not in names, is_playable=False)
    skipped, seconds, others = [], None, 0
    for name, start, end in _boxes(file, *moov):
        if name == b"mvhd":
            seconds = _movie_seconds(read_at(file, start, min(end - start, 36)))
        elif name == b"trak":
            begins = _video_track(file, start, end)
            skipped += [] if begins is None else [begins]
            others += begins is None
    return Contents(len(skipped), seconds, skipped[0] if skipped else 0.0, is_alone=len(skipped) == 1 and not others)


def _movie_seconds(data: bytes) -> float | None:
    """Return the duration in a movie header; 0 there means that it was not known yet."""
    at, form = (20, ">IQ") if data[:1] == b"\x01" else (12, ">II")
    scale, duration = struct.unpack_from(form, data, at)
    return duration / scale if scale and duration else None


def _video_track(file: BinaryIO, start: int, end: int) -> float | None:
    """Return the seconds at the beginning of a track that its edits leave out; None: it is no video track.

    NaN where edits leave out more than that.
    """
    is_video, scale, edits = False, 1, b""
    for name, inner, inner_end in _boxes(file, start, end):
        if name == b"edts":
            edits = next((read_at(file, at, until - at) for _, at, until in _boxes(file, inner, inner_end)), b"")
        elif name == b"mdia":
            for box, at, _ in _boxes(file, inner, inner_end):
                if box == b"hdlr":
                    is_video = read_at(file, at + 8, 4) == b"vide"
                elif box == b"mdhd":
                    data = read_at(file, at, 28)
                    (scale,) = struct.unpack_from(">I", data, 20 if data[:1] == b"\x01" else 12)
    if not is_video:
        return None
    entry = ">QqI" if edits[:1] == b"\x01" else ">IiI"
    times = [time for _, time, _ in struct.iter_unpack(entry, edits[8 : len(edits)])] if len(edits) > 8 else []
    times = [time for time in times if time >= 0]  # others are pauses
    if len(times) > 1:
        return math.nan
    return times[0] / (scale or 1) if times else 0.0


def _boxes(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield the name of each box, where its contents begin and where they end."""
    for _ in range(_MOST_ITEMS):
        head = read_at(file, at, 16)
        if at + 8 > end or len(head) < 8:
            return
        length, begin = int.from_bytes(head[:4], "big"), at + 8
        if length == 1:
            length, begin = int.from_bytes(head[8:16], "big"), at + 16
        if length == 0:  # to the end of the file
            length = end - at
        if length < begin - at:
            return
        yield head[4:8], begin, min(at + length, end)
        at += length


def _of_matroska(file: BinaryIO, size: int) -> Contents:
    """Matroska and WebM: a segment without a length and without cues was never finished by the recorder."""
    kinds, seconds, has_cues = [], None, False
    length, width = read_vint(read_at(file, 4, 8))
    segment = 4 + width + length
    is_open = False
    for name, start, end, is_unknown in _elements(file, segment, size):
        if name != _SEGMENT:
            continue
        is_open = is_unknown
        for inner, at, until, _ in _elements(file, start, end):
            if inner == _TRACKS:
                kinds = _matroska_tracks(file, at, until)
            elif inner == _INFO:
                seconds = _matroska_seconds(file, at, until)
            has_cues |= inner == _CUES
    lacks_index = is_open and not has_cues
    return Contents(kinds.count(1), seconds, is_alone=kinds == [1], lacks_index=lacks_index)


def _matroska_tracks(file: BinaryIO, start: int, end: int) -> list[int]:
    """Return the type of each track: 1 for video, 2 for sound, 17 for subtitles."""
    return [
        int.from_bytes(read_at(file, at, until - at), "big")
        for name, inner, inner_end, _ in _elements(file, start, end)
        if name == b"\xae"
        for field, at, until, _ in _elements(file, inner, inner_end)
        if field == b"\x83"
    ]


def _matroska_seconds(file: BinaryIO, start: int, end: int) -> float | None:
    scale, duration = 1_000_000, 0.0
    for name, at, until, _ in _elements(file, start, end):
        data = read_at(file, at, min(until - at, 8))
        if name == b"\x2a\xd7\xb1":
            scale = int.from_bytes(data, "big")
        elif name == b"\x44\x89":
            (duration,) = struct.unpack(">d" if len(data) == 8 else ">f", data)
    return duration * scale / 1e9 or None


def _elements(file: BinaryIO, at: int, end: int) -> Iterator[tuple[bytes, int, int, bool]]:
    """Yield the identifier of each element, where its data begin and end, and whether its length was left open."""
    for _ in range(_MOST_ITEMS):
        head = read_at(file, at, 12)
        if at + 2 > end or not head or head[0] == 0:
            return
        count = 9 - head[0].bit_length()
        length, width = read_vint(head[count:])
        start = at + count + width
        is_unknown = length == (1 << (7 * width)) - 1
        until = end if is_unknown else min(start + length, end)
        yield head[:count], start, until, is_unknown
        # The clusters of a file that was streamed have no length: what follows them is looked for nowhere.
        at = until


def _of_avi(file: BinaryIO, size: int) -> Contents:
    """AVI: the length of the file stands at its beginning only when it was finished, as does its index at the end."""
    is_open = int.from_bytes(read_at(file, 4, 4), "little") in (0, 0xFFFFFFFF)
    tracks, has_index = 0, False
    at = 12
    for _ in range(_MOST_ITEMS):
        head = read_at(file, at, 12)
        length = int.from_bytes(head[4:8], "little")
        if len(head) < 8:
            break
        if head[:4] == b"LIST" and head[8:12] == b"hdrl":
            tracks = read_at(file, at, min(length, 1 << 16)).count(b"strh\x38\0\0\0vids")
        has_index |= head[:4] == b"idx1"
        if head[:4] == b"LIST" and head[8:12] == b"movi" and length in (0, 0xFFFFFFFF):
            break
        at += 8 + length + (length & 1)
    return Contents(tracks, has_times=False, lacks_index=is_open and not has_index)


def _transport_tracks(data: bytes) -> int:
    """MPEG transport stream: the video streams of all programmes that the tables at its beginning list."""
    places = [(length, first) for length in (188, 192, 204) for first in range(length)]
    packets = next(
        (p for p in places if len(s := data[p[1] : p[1] + 5 * p[0] : p[0]]) == 5 and s.count(0x47) == 5), None
    )
    if packets is None:
        return 0
    length, first = packets
    maps: set[int] = set()
    videos: set[int] = set()
    for at in range(first, len(data) - 187, length):
        packet = data[at : at + 188]
        identifier = int.from_bytes(packet[1:3], "big") & 0x1FFF
        if not packet[1] & 0x40 or not (identifier == 0 or identifier in maps):
            continue
        start = 4 + (1 + packet[4] if packet[3] & 0x20 else 0)
        table = packet[start + 1 + packet[start] :] if start < 188 else b""
        if identifier == 0:
            maps |= _programmes(table)
        else:
            videos |= _videos(table)
    return len(videos)


def _programmes(table: bytes) -> set[int]:
    """Return where the programme maps are that an association table lists."""
    end = 3 + (int.from_bytes(table[1:3], "big") & 0xFFF) - 4
    rows = (table[at : at + 4] for at in range(8, min(end, len(table) - 3), 4)) if table[:1] == b"\0" else ()
    return {int.from_bytes(row[2:], "big") & 0x1FFF for row in rows if row[:2] != b"\0\0"}


def _videos(table: bytes) -> set[int]:
    """Return the video streams of a programme map."""
    if table[:1] != b"\x02" or len(table) < 12:
        return set()
    end = min(3 + (int.from_bytes(table[1:3], "big") & 0xFFF) - 4, len(table) - 4)
    at = 12 + (int.from_bytes(table[10:12], "big") & 0xFFF)
    videos = set()
    while at < end:
        if table[at] in _TRANSPORT_VIDEO:
            videos.add(int.from_bytes(table[at + 1 : at + 3], "big") & 0x1FFF)
        at += 5 + (int.from_bytes(table[at + 3 : at + 5], "big") & 0xFFF)
    return videos
