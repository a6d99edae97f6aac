"""Sizes of VP9 frames, read from their headers: frames between key frames may change them too, as video calls do.

After the bitstream specification of VP9, section 6.2 and annex B.
"""

from __future__ import annotations

__all__ = ["FrameSizes", "key_frame_size"]

_SYNC = 0x498342
_MOST_FRAMES = 8  # in a packet
_Size = tuple[int, int]


class _Bits:
    def __init__(self, data: bytes) -> None:
        self._bits = int.from_bytes(data[:32].ljust(32, b"\0"), "big")
        self._at = 256

    def take(self, count: int) -> int:
        self._at -= count
        return self._bits >> self._at & ((1 << count) - 1)


class FrameSizes:
    """Follows the sizes of the frames that later ones refer to; give it every packet of a video, in order."""

    def __init__(self) -> None:
        self._references: list[_Size | None] = [None] * 8

    def shown(self, packet: bytes) -> _Size | None:
        """Return the size of the frame that a packet shows; None: it shows none, or its header makes no sense."""
        size = None
        for frame in _frames(packet):
            size = self._frame(_Bits(frame)) or size
        return size

    def _frame(self, bits: _Bits) -> _Size | None:
        if bits.take(2) != 2:
            return None
        profile = _profile(bits)
        if bits.take(1):
            return self._references[bits.take(3)]
        is_key, is_shown, is_resilient = not bits.take(1), bits.take(1), bits.take(1)
        if is_key:
            size, refreshed = _intra_size(bits, profile), 0xFF
        else:
            is_intra = not is_shown and bits.take(1)
            bits.take(0 if is_resilient else 2)
            size, refreshed = self._intra(bits, profile) if is_intra else self._inter(bits)
        if size is not None:
            for slot in range(8):
                if refreshed >> slot & 1:
                    self._references[slot] = size
        return size if is_shown else None

    def _intra(self, bits: _Bits, profile: int) -> tuple[_Size | None, int]:
        if bits.take(24) != _SYNC:
            return None, 0
        if profile > 0:
            _skip_colours(bits, profile)
        refreshed = bits.take(8)
        return _size(bits), refreshed

    def _inter(self, bits: _Bits) -> tuple[_Size | None, int]:
        refreshed = bits.take(8)
        slots = [bits.take(4) >> 1 for _ in range(3)]
        for slot in slots:
            if bits.take(1):
                return self._references[slot], refreshed
        return _size(bits), refreshed


def key_frame_size(packet: bytes) -> _Size | None:
    """Return the size that a packet sets which begins with a key frame; None: it does not."""
    bits = _Bits(packet)
    if bits.take(2) != 2:
        return None
    profile = _profile(bits)
    if bits.take(1) or bits.take(1):  # shows a frame again, or is no key frame
        return None
    bits.take(2)
    return _intra_size(bits, profile)


def _profile(bits: _Bits) -> int:
    profile = bits.take(1) | bits.take(1) << 1
    bits.take(1 if profile == 3 else 0)
    return profile


def _intra_size(bits: _Bits, profile: int) -> _Size | None:
    if bits.take(24) != _SYNC:
        return None
    _skip_colours(bits, profile)
    return _size(bits)


def _skip_colours(bits: _Bits, profile: int) -> None:
    bits.take(1 if profile >= 2 else 0)
    if bits.take(3) != 7:
        bits.take(1)
        bits.take(3 if profile & 1 else 0)
    elif profile & 1:
        bits.take(1)


def _size(bits: _Bits) -> _Size:
    return bits.take(16) + 1, bits.take(16) + 1


def _frames(packet: bytes) -> list[bytes]:
    """Return the frames of a packet, of which all but one are hidden; their lengths stand at its end."""
    mark = packet[-1] if packet else 0
    count, width = (mark & 7) + 1, (mark >> 3 & 3) + 1
    length = 2 + count * width
    if mark & 0xE0 != 0xC0 or len(packet) < length or packet[-length] != mark:
        return [packet]
    frames, at = [], 0
    for number in range(min(count, _MOST_FRAMES)):
        place = len(packet) - length + 1 + number * width
        size = int.from_bytes(packet[place : place + width], "little")
        frames.append(packet[at : at + size])
        at += size
    return frames
