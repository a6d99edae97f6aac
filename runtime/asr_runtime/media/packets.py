"""Coded packets of a video, before any decoder: which codec they are of, and where one sets the size of the frames."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from asr_runtime.media.vp9 import FrameSizes, key_frame_size

__all__ = ["Codec", "Size", "codec_of", "jpeg_size"]

Size = tuple[int, int]
"""Width and height of a frame, in pixels."""

_SETUP_BYTES = 1 << 14  # parameter sets stand at the beginning of a packet
_START = b"\0\0\x01"
_JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True, slots=True)
class Codec:
    """How packets of one codec are read.

    Attributes:
        name: as people call it.
        demuxer: FFmpeg's reader of a bare stream of such packets.
        setup: the bytes of a packet that decide the size of frames, without those that cannot change it where that
            is simple; None where a packet decides nothing.
        size: the frame size in these bytes; None where only FFmpeg can read it.
        fourcc: the codec's name in an IVF file; None where packets follow each other without one.
        is_frame_each: each packet is one frame that is shown.
        cleaned: takes out of a key frame's packet what is not its own.
        follow: follows the sizes of all frames; None where only key frames change them.
    """

    name: str
    demuxer: str
    setup: Callable[[bytes], bytes | None]
    size: Callable[[bytes], Size] | None = None
    fourcc: bytes | None = None
    is_frame_each: bool = False
    cleaned: Callable[[bytes], bytes] | None = None
    follow: Callable[[], FrameSizes] | None = None

    def head(self, size: Size | None) -> bytes:
        """Return what stands before the packets of a bare stream, whose frames have `size`."""
        if self.fourcc is None:
            return b""
        width, height = size or (0, 0)
        shape = width.to_bytes(2, "little") + height.to_bytes(2, "little")
        return b"DKIF\0\0\x20\0" + self.fourcc + shape + b"\x19\0\0\0\x01\0\0\0" + bytes(8)

    def framed(self, packet: bytes, number: int) -> bytes:
        """Return a packet as it stands in a bare stream, as the one with that number."""
        return (
            packet if self.fourcc is None else len(packet).to_bytes(4, "little") + number.to_bytes(8, "little") + packet
        )


def codec_of(packet: bytes) -> Codec | None:
    """Tell the codec of a key frame's packet; None: one whose frames are not followed."""
    if packet[3:6] == b"\x9d\x01\x2a":
        return _VP8
    if packet[:2] == b"\xff\xd8":
        return _JPEG
    if _vp9(packet):
        return _VP9
    if start_code := re.match(rb"\0?\0\0\x01(..)", packet, re.DOTALL):
        return _with_start_codes(start_code[1], packet[:_SETUP_BYTES])
    return _AV1 if _sequence_header(packet) else None


def _with_start_codes(unit: bytes, packet: bytes) -> Codec | None:
    if _START + b"\xb6" in packet:  # a picture of MPEG-4; MPEG-2 and H.264 have no such code
        return _MPEG4
    if unit[0] == 0xB3:
        return _MPEG2
    if unit[1] & 7 and unit[0] >> 1 in (32, 33, 34, 35, 39):
        return _HEVC
    return _H264 if unit[0] & 0x1F in (6, 7, 8, 9) else None


def _units(packet: bytes, wanted: Callable[[int], bool]) -> bytes | None:
    """Return the units between start codes, at the beginning of a packet, whose first byte is wanted."""
    parts = packet[:_SETUP_BYTES].split(_START)
    units = [part.rstrip(b"\0") for part in parts[1:] if part and wanted(part[0])]
    return _START + _START.join(units) if units else None


def _own_sets(packet: bytes) -> bytes:
    """HEVC: leave out parameter sets that stand before others; FFmpeg puts those of the container before its own."""
    parts = packet.split(_START)
    firsts = [at for at, part in enumerate(parts) if part and part[0] >> 1 == 32]
    if len(firsts) < 2:
        return packet
    return _START.join(p for at, p in enumerate(parts) if at >= firsts[-1] or not p or p[0] >> 1 not in (32, 33, 34))


def _sequence(packet: bytes) -> bytes | None:
    """MPEG-1 and MPEG-2: twelve bits of width and of height after the start code."""
    at = packet[:_SETUP_BYTES].find(b"\0\0\x01\xb3")
    return packet[at + 4 : at + 7] if at >= 0 and len(packet) >= at + 7 else None


def _vp8_size(setup: bytes) -> Size:
    return int.from_bytes(setup[:2], "little"), int.from_bytes(setup[2:], "little")


def _vp8(packet: bytes) -> bytes | None:
    """VP8: fourteen bits each; two above them ask the player to scale."""
    if packet[3:6] != b"\x9d\x01\x2a" or len(packet) < 10:
        return None
    return bytes((packet[6], packet[7] & 0x3F, packet[8], packet[9] & 0x3F))


def _vp9(packet: bytes) -> bytes | None:
    """VP9: sixteen bits each, after the colours of a key frame."""
    size = key_frame_size(packet)
    return None if size is None else size[0].to_bytes(3, "big") + size[1].to_bytes(3, "big")


def jpeg_size(data: bytes) -> Size | None:
    """Return the size that the frame header of a JPEG picture says; None: there is none."""
    setup = _jpeg(data)
    return None if setup is None else _two_big(setup)


def _two_big(setup: bytes) -> Size:
    return int.from_bytes(setup[:2], "big"), int.from_bytes(setup[2:], "big")


def _jpeg(packet: bytes) -> bytes | None:
    """JPEG: the frame header, over the segments before it."""
    at = 2
    while len(packet) >= at + 9 and packet[at] == 0xFF:
        if packet[at + 1] == 0xFF:
            at += 1
        elif packet[at + 1] in _JPEG_FRAMES:
            return packet[at + 7 : at + 9] + packet[at + 5 : at + 7]
        else:
            at += 2 + int.from_bytes(packet[at + 2 : at + 4], "big")
    return None


def _sequence_header(packet: bytes) -> bytes | None:
    """AV1: the sequence header among the units of a packet."""
    at = 0
    while at + 2 <= len(packet) and packet[at] & 0x80 == 0 and packet[at] & 2:
        kind = packet[at] >> 3 & 15
        at += 2 if packet[at] & 4 else 1
        length = shift = 0
        while at < len(packet):
            length |= (packet[at] & 0x7F) << shift
            shift += 7
            at += 1
            if not packet[at - 1] & 0x80 or shift > 28:
                break
        if kind == 1:
            return packet[at : at + length]
        at += length
    return None


_H264 = Codec("H.264", "h264", lambda packet: _units(packet, lambda head: head & 0x9F == 7))
_HEVC = Codec(
    "HEVC",
    "hevc",
    lambda packet: _units(packet, lambda head: head >> 1 == 33),
    is_frame_each=True,
    cleaned=_own_sets,
)
_MPEG4 = Codec("MPEG-4", "m4v", lambda packet: _units(packet, lambda head: 0x20 <= head < 0x30))
_MPEG2 = Codec("MPEG-2", "mpegvideo", _sequence, lambda s: (s[0] << 4 | s[1] >> 4, (s[1] & 15) << 8 | s[2]))
_JPEG = Codec("MJPEG", "ivf", _jpeg, _two_big, b"MJPG")
_VP8 = Codec("VP8", "ivf", _vp8, _vp8_size, b"VP80")
_VP9 = Codec(
    "VP9",
    "ivf",
    _vp9,
    lambda s: (int.from_bytes(s[:3], "big"), int.from_bytes(s[3:], "big")),
    b"VP90",
    follow=FrameSizes,
)
_AV1 = Codec("AV1", "ivf", _sequence_header, None, b"AV01", is_frame_each=True)
