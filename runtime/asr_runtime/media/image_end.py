"""Whether a picture file holds all of its picture: some of OpenCV's decoders fill in what is missing."""

from __future__ import annotations

import re

from asr_runtime.media.png_chunks import png_chunks

__all__ = ["is_cut_short"]


def is_cut_short(form: str, data: bytes) -> bool:
    """Tell a truncated picture from its structure.

    OpenCV decodes some JPEGs without their end as partly grey pictures (4.10 all of them, 4.14 those with restart
    markers), an animated PNG without its last frames, and GIF, JPEG 2000 and plain samples with what is there. The
    decoders of the other formats refuse every cut of a single image themselves.

    Args:
        form: name of the format, as `formats.recognise` gives it.
        data: the whole file.
    """
    ends = {"JPEG": _jpeg_ends, "PNG": _png_ends, "GIF": _gif_ends, "JPEG 2000": _j2k_ends}
    if form in ends:
        return not ends[form](data)
    return form in ("PNM", "PAM", "PFM") and not _samples_end(form, data)


def _jpeg_ends(data: bytes) -> bool:
    """Look for the end marker after the first scan header; an EXIF thumbnail before it has its own end."""
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xDA:  # start of scan; the coded data after it never hold FF D9
            return data.rfind(b"\xff\xd9", at + 2) >= 0  # from the end, where it nearly always is
        if marker == 0xFF:  # fill byte
            at += 1
        elif marker == 0x01 or 0xD0 <= marker <= 0xD9:  # markers without a length
            at += 2
        else:
            at += 2 + int.from_bytes(data[at + 2 : at + 4], "big")
    return False


def _png_ends(data: bytes) -> bool:
    return any(kind == b"IEND" for kind, _, _ in png_chunks(data))


def _gif_ends(data: bytes) -> bool:
    """Follow the blocks to the trailer."""
    at = 13 + _colours(data[10:11])
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return True
        if kind == 0x21:  # extension: label, then sub-blocks
            at += 2
        elif kind == 0x2C:  # image: descriptor, colours, code size, then sub-blocks
            at += 11 + _colours(data[at + 9 : at + 10])
        else:
            return False
        while at < len(data) and data[at]:
            at += 1 + data[at]
        at += 1
    return False


def _colours(flags: bytes) -> int:
    """Return the length of the table of colours that may follow."""
    return 3 << ((flags[0] & 7) + 1) if flags and flags[0] & 0x80 else 0


def _j2k_ends(data: bytes) -> bool:
    """Look for the end of the code stream; metadata may follow."""
    start = data.find(b"\xff\x4f\xff\x51")
    return start >= 0 and data.rfind(b"\xff\xd9") > start


_COMMENT = re.compile(rb"#[^\n\r]*")
_NUMBERS = re.compile(rb"P[\dFf]\s+(?:\d+\s+){2}")


def _samples_end(form: str, data: bytes) -> bool:
    """Compare the length of plain samples with the size of the picture."""
    if form == "PAM":
        head, _, samples = data.partition(b"ENDHDR\n")
        fields = dict(re.findall(rb"(WIDTH|HEIGHT|DEPTH|MAXVAL)\s+(\d{1,9})", head))
        try:
            width, height, depth, most = (int(fields[key]) for key in (b"WIDTH", b"HEIGHT", b"DEPTH", b"MAXVAL"))
        except KeyError:
            return False
        return len(samples) >= width * height * depth * (1 if most < 256 else 2)
    return _plain_samples_end(data)


def _plain_samples_end(data: bytes) -> bool:
    kind = data[:2]
    if kind in (b"P1", b"P2", b"P3"):  # text: OpenCV reads number by number, and refuses when one is missing
        return True
    wanted = 2 if kind == b"P4" else 3
    at, numbers = 2, list[float]()
    while len(numbers) < wanted:
        match = re.compile(rb"(?:\s|#[^\n\r]*[\n\r])+([-+.\deE]+)").match(data, at)
        if match is None:
            return False
        numbers.append(float(match[1]))
        at = match.end()
    width, height = int(numbers[0]), int(numbers[1])
    row = (width + 7) // 8 if kind == b"P4" else width
    row *= {b"P4": 1, b"P5": 1, b"P6": 3, b"Pf": 4, b"PF": 12}[kind]
    if kind in (b"P5", b"P6") and numbers[2] > 255:
        row *= 2
    return len(data) - at - 1 >= row * height
