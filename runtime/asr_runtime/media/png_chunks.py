"""The chunks of a PNG file, and those of them that its pixels need."""

from __future__ import annotations

from collections.abc import Iterator

__all__ = ["for_pixels", "png_chunks"]

_SIGNATURE = 8  # bytes before the first chunk
_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"bKGD", b"IDAT", b"acTL", b"fcTL", b"fdAT", b"IEND")
_EXIF_BEGINS = (b"II*\0", b"MM\0*")


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Give the kind, begin and end (in bytes of the file) of each chunk, up to `IEND` or the end of the data.

    The last chunk may end after the end of the data. The first one begins with the file, so chunks leave no gap.
    """
    begin, at = 0, _SIGNATURE
    while at + 12 <= len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        kind = data[at + 4 : at + 8]
        yield kind, begin, end
        if kind == b"IEND":  # what follows is no picture, and may be long
            return
        begin = at = end


def for_pixels(data: bytes) -> bytes:
    """Return a PNG file without what its pixels and its orientation do not need: colour profiles, dates, texts.

    libpng prints a line on standard error for each profile, date or text that is not as it should be, and for each that
    comes twice. Editors write many such, and they have no effect on the pixels that OpenCV gives.

    Args:
        data: a whole file.

    Returns:
        The same bytes where there is nothing to leave out.
    """
    kept: list[tuple[int, int]] = []
    has_orientation = False
    for kind, begin, end in png_chunks(data):
        if kind == b"eXIf":
            if has_orientation or not data[begin + 8 : begin + 12].startswith(_EXIF_BEGINS):
                continue
            has_orientation = True
        elif kind not in _PIXELS:
            continue
        if kept and kept[-1][1] == begin:
            kept[-1] = (kept[-1][0], end)
        else:
            kept.append((begin, end))
    if len(kept) < 2:
        return data
    whole = memoryview(data)
    return b"".join(whole[begin:end] for begin, end in kept)
