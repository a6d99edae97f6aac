"""Small files that ask their decoder for gigabytes."""

from __future__ import annotations

import struct
import zlib


def png(width: int, height: int) -> bytes:
    """A valid black PNG of one bit a pixel: some hundred kilobytes, whatever its size."""
    packer = zlib.compressobj(1)
    rows = [packer.compress(bytes(1 + (width + 7) // 8)) for _ in range(height)]

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", b"".join(rows) + packer.flush()), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def resized(data: bytes, side: int) -> bytes:
    """The same JPEG, BMP, TIFF or AVIF with another width and height in its header."""
    changed = bytearray(data)
    if data[:2] == b"\xff\xd8":
        at = data.index(b"\xff\xc0")
        changed[at + 5 : at + 9] = struct.pack(">HH", side, side)
    elif data[:2] == b"BM":
        changed[18:26] = struct.pack("<ii", side, side)
    elif data[:4] == b"II*\0":
        for tag in (256, 257):
            at = data.index(struct.pack("<H", tag), struct.unpack_from("<I", data, 4)[0])
            changed[at + 2 : at + 12] = struct.pack("<HII", 4, 1, side)
    else:
        at = data.index(b"ispe") + 8
        changed[at : at + 8] = struct.pack(">II", side, side)
    return bytes(changed)


def h264(side: int) -> bytes:
    """A raw H.264 stream of one frame that claims side x side pixels: headers by the book, then noise."""
    blocks = side // 16 - 1
    parameters = "1" + _ue(0) + _ue(0) + _ue(2) + _ue(1) + "0" + _ue(blocks) + _ue(blocks) + "1100"
    sps = b"\x67\x42\xc0\x3e" + _packed(parameters)
    pps = b"\x68" + _packed(_ue(0) * 2 + "00" + _ue(0) * 3 + "000" + _ue(0) * 3 + "000")
    slice_header = _packed(_ue(0) + _ue(7) + _ue(0) + "0000" + _ue(0) + "00" + _ue(0))
    picture = b"\x65" + slice_header + b"\x5a\xa5" * 2000
    return b"".join(b"\0\0\0\x01" + unit for unit in (sps, pps, picture))


def _ue(value: int) -> str:
    """Exp-Golomb code of an unsigned number, as bits."""
    digits = f"{value + 1:b}"
    return "0" * (len(digits) - 1) + digits


def _packed(bits: str) -> bytes:
    bits += "1"
    bits += "0" * (-len(bits) % 8)
    return int(bits, 2).to_bytes(len(bits) // 8, "big")
