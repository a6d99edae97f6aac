"""PNG files as editors write them: the pixels come, and libpng has nothing to say."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_runtime.media.image import decode_image
from asr_runtime.media.png_chunks import for_pixels, png_chunks

EXAMPLES = Path(__file__).parents[3] / "runtime" / "examples" / "real"
PICTURE = (EXAMPLES / "cat.png").read_bytes()
UPSIDE_DOWN = b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHIHH", 274, 3, 1, 3, 0) + bytes(4)
PROFILE = b"icc\0\0" + zlib.compress(bytes(128))


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


def with_chunks(*chunks: bytes) -> bytes:
    """Return the picture with chunks between its head and its pixels."""
    return PICTURE[:33] + b"".join(chunks) + PICTURE[33:]


NOISY = {
    "a colour profile that is too short": chunk(b"iCCP", PROFILE),
    "two EXIF blocks": chunk(b"eXIf", b"II*\0\x08\0\0\0\0\0\0\0\0\0") * 2,
    "EXIF that is none": chunk(b"eXIf", b"garbage"),
    "two gammas": chunk(b"gAMA", struct.pack(">I", 45455)) * 2,
    "an impossible date": chunk(b"tIME", bytes(7)),
    "a text that is not compressed": chunk(b"zTXt", b"abc\0\0garbage"),
    "two colour spaces": chunk(b"sRGB", b"\0") * 2,
}


@pytest.mark.parametrize("chunks", NOISY.values(), ids=NOISY.keys())
def test_what_pixels_do_not_need_makes_no_line(chunks: bytes, capfd: pytest.CaptureFixture[str]) -> None:
    data = with_chunks(chunks)
    assert cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR) is not None
    assert "libpng warning" in capfd.readouterr().err  # else this case shows nothing
    image = decode_image(data, "noisy.png")
    assert capfd.readouterr().err == ""
    assert np.array_equal(image, decode_image(PICTURE, "cat.png"))


def test_the_first_orientation_counts() -> None:
    upright = decode_image(PICTURE, "cat.png")
    for chunks in (chunk(b"eXIf", UPSIDE_DOWN), chunk(b"eXIf", b"none") + chunk(b"eXIf", UPSIDE_DOWN) * 2):
        assert np.array_equal(decode_image(with_chunks(chunks), "turned.png"), upright[::-1, ::-1])


@given(st.lists(st.sampled_from([*NOISY.values(), chunk(b"tEXt", b"a\0b"), chunk(b"caBX", bytes(300))]), max_size=6))
def test_the_pixels_are_those_of_the_whole_file(chunks: list[bytes]) -> None:
    data = with_chunks(*chunks)
    pixels = cv2.imdecode(np.frombuffer(for_pixels(data), np.uint8), cv2.IMREAD_COLOR)
    assert np.array_equal(pixels, cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR))


def test_a_file_without_notes_is_not_copied() -> None:
    bare = for_pixels(PICTURE)
    assert for_pixels(bare) is bare
    assert {kind for kind, _, _ in png_chunks(bare)} == {b"IHDR", b"IDAT", b"IEND"}


def test_what_follows_the_picture_is_not_read() -> None:
    bare = for_pixels(PICTURE)
    followed = bare + bytes(10**6)
    assert list(png_chunks(followed)) == list(png_chunks(bare))
    assert np.array_equal(decode_image(followed, "long.png"), decode_image(bare, "cat.png"))


@given(st.binary(max_size=200), st.integers(0, 400))
def test_damaged_files_are_left_to_the_decoder(tail: bytes, kept: int) -> None:
    data = PICTURE[:kept] + tail
    assert len(for_pixels(data)) <= len(data)
    at = 0
    for _, begin, end in png_chunks(data):
        assert begin == at < end
        at = end
