"""A whole image decodes to its pixels; anything else is an error, never a picture."""

from __future__ import annotations

import io
import os
import struct
import subprocess
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from runtime_samples import encoded, environment, picture

from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.media.image import IMAGE_FORMATS, decode_image, read_image

SUFFIXES = {"JPEG": ".jpg", "PNG": ".png", "WebP": ".webp", "BMP": ".bmp", "TIFF": ".tiff", "AVIF": ".avif"}
WHOLE = {name: encoded(picture(), suffix) for name, suffix in SUFFIXES.items()}


def pillow(image: Image.Image, form: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


RGB = Image.fromarray(picture(1)[:, :, ::-1].copy())
# What other programs write: progressive, restart markers, thumbnails, palettes, uncompressed, animations.
VARIANTS = {
    "progressive JPEG": pillow(RGB, "JPEG", progressive=True),
    "JPEG with restarts": pillow(RGB, "JPEG", restart_marker_blocks=2),
    "grey JPEG": pillow(RGB.convert("L"), "JPEG"),
    "palette PNG": pillow(RGB.convert("P"), "PNG"),
    "RGBA PNG": pillow(RGB.convert("RGBA"), "PNG"),
    "animated PNG": pillow(RGB, "PNG", save_all=True, append_images=[RGB.rotate(90)]),
    "lossless WebP": pillow(RGB, "WEBP", lossless=True),
    "raw TIFF": pillow(RGB, "TIFF"),
    "deflate TIFF": pillow(RGB, "TIFF", compression="tiff_deflate"),
    "palette BMP": pillow(RGB.convert("P"), "BMP"),
}


def test_the_list_of_formats_is_what_is_tested() -> None:
    assert set(SUFFIXES) == set(IMAGE_FORMATS)


@pytest.mark.parametrize("name", SUFFIXES)
def test_every_format_decodes_to_bgr(name: str) -> None:
    image = decode_image(WHOLE[name], name)
    assert image.dtype == np.uint8
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - picture()).mean() < 8


@pytest.mark.parametrize("name", VARIANTS)
def test_what_other_programs_write_decodes(name: str) -> None:
    assert decode_image(VARIANTS[name], name).shape == (48, 64, 3)


@settings(max_examples=60)
@given(name=st.sampled_from([*WHOLE, *VARIANTS]), data=st.data())
def test_a_truncated_image_is_an_error(name: str, data: st.DataObject) -> None:
    whole = WHOLE.get(name) or VARIANTS[name]
    kept = data.draw(st.integers(0, len(whole) - 1))
    with pytest.raises(DecodeError, match="the name"):
        decode_image(whole[:kept], "the name")


@pytest.mark.parametrize("name", [*WHOLE, *VARIANTS])
def test_an_image_that_lacks_its_last_bytes_is_an_error(name: str) -> None:
    whole = WHOLE.get(name) or VARIANTS[name]
    for missing in (1, 2, 3, 5, 8, 13, 21):
        with pytest.raises(DecodeError):
            decode_image(whole[:-missing], name)


@pytest.mark.parametrize("name", WHOLE)
def test_bytes_after_the_end_are_ignored(name: str) -> None:
    image = decode_image(WHOLE[name] + b"appended by a phone" * 9, name)
    assert np.array_equal(image, decode_image(WHOLE[name], name))


def test_the_end_of_a_thumbnail_is_not_the_end_of_the_jpeg() -> None:
    whole = WHOLE["JPEG"]
    thumbnail = encoded(picture(2, 16, 16), ".jpg")
    segment = b"Exif\0\0" + thumbnail
    with_thumbnail = whole[:2] + b"\xff\xe1" + struct.pack(">H", len(segment) + 2) + segment + whole[2:]
    assert decode_image(with_thumbnail, "whole").shape == (48, 64, 3)
    with pytest.raises(DecodeError, match="truncated"):
        decode_image(with_thumbnail[:-2], "cut")


@given(st.binary(max_size=200))
def test_foreign_bytes_are_an_error(data: bytes) -> None:
    with pytest.raises(DecodeError, match="foreign"):
        decode_image(data, "foreign")


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_is_applied(orientation: int) -> None:
    half = np.zeros((32, 64, 3), np.uint8)
    half[:, :32] = 255  # the left half is white
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = decode_image(pillow(Image.fromarray(half), "JPEG", exif=exif, quality=95), "x")
    shown = {3: image[:, 40:], 6: image[:24], 8: image[40:]}[orientation]  # where it is seen white
    assert image.shape[:2] == ((32, 64) if orientation == 3 else (64, 32))
    assert shown.mean() > 250


def test_a_picture_of_too_many_pixels_is_an_error(tmp_path: Path) -> None:
    side = 20_000  # 4e8 pixels: below OpenCV's own limit, above ours
    bomb = bytearray(WHOLE["PNG"])
    bomb[16:24] = struct.pack(">II", side, side)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (tmp_path / "bomb.png").write_bytes(bomb)
    # In a process of its own: OpenCV reads the limit when it is first imported. It must not take the memory.
    code = f"""
import resource
from asr_runtime import read_image
from asr_runtime.errors import DecodeError
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
try:
    read_image({str(tmp_path / "bomb.png")!r})
except DecodeError:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)
"""
    done = subprocess.run([sys.executable, "-c", code], env=environment(), capture_output=True, check=True)
    assert int(done.stdout) < 100_000  # kilobytes


def test_read_image_reads_a_file(tmp_path: Path) -> None:
    path = tmp_path / "a b%03dé.png"
    path.write_bytes(WHOLE["PNG"])
    assert np.array_equal(read_image(path), picture())


def test_a_fifo_a_folder_and_nothing_are_errors_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo.jpg")
    for name in ("fifo.jpg", ".", "missing.jpg"):
        with pytest.raises(SourceError, match=r"regular file|cannot be read"):
            read_image(tmp_path / name)


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DecodeError, match="empty"):
        read_image(tmp_path / "empty.jpg")
