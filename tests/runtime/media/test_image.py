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
import pillow_heif
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image
from runtime_samples import SUFFIXES, encoded, encoded_as, environment, picture

from asr_runtime.errors import DecodeError, SourceError
from asr_runtime.media.image import IMAGE_FORMATS, decode_image, read_image

WHOLE = {name: encoded_as(name, picture()) for name in SUFFIXES}


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
    "animated GIF": pillow(RGB, "GIF", save_all=True, append_images=[RGB.rotate(90)]),
    "interlaced GIF": pillow(RGB, "GIF", interlace=True),
    "JPEG 2000 code stream": pillow(RGB, "JPEG2000", no_jp2=True),
    "grey PNM": pillow(RGB.convert("L"), "PPM"),
    "bitmap PNM": pillow(RGB.convert("1"), "PPM"),
}


def test_the_list_of_formats_is_what_is_tested() -> None:
    assert set(SUFFIXES) == set(IMAGE_FORMATS)


@pytest.mark.parametrize("name", SUFFIXES)
def test_every_format_decodes_to_bgr(name: str) -> None:
    image = decode_image(WHOLE[name], name)
    assert image.dtype == np.uint8
    assert image.shape == (48, 64, 3)
    assert np.abs(image.astype(int) - picture()).mean() < (20 if name == "GIF" else 8)  # GIF has 256 colours


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
    shown = {3: image[:, 40:], 6: image[:24], 8: image[40:]}[orientation]  # the part that must be white
    assert image.shape[:2] == ((32, 64) if orientation == 3 else (64, 32))
    assert shown.mean() > 250


def test_a_picture_of_too_many_pixels_is_an_error(tmp_path: Path) -> None:
    side = 20_000  # 4e8 pixels: below OpenCV's own limit, above ours
    bomb = bytearray(WHOLE["PNG"])
    bomb[16:24] = struct.pack(">II", side, side)
    bomb[29:33] = struct.pack(">I", zlib.crc32(bytes(bomb[12:29])))
    (tmp_path / "bomb.png").write_bytes(bomb)
    # In a separate process: OpenCV reads the limit when it is first imported. The memory must not be taken.
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


def of_depth(image: NDArray[np.uint8], white: int) -> NDArray[np.uint16]:
    return ((image.astype(int) * white + 127) // 255).astype(np.uint16)


TWELVE_BITS = of_depth(picture(3), 4095)


def pnm(samples: NDArray[np.uint16], white: int, comment: str = "") -> bytes:
    height, width = samples.shape[:2]
    data = samples[..., ::-1].astype(">u2" if white > 255 else np.uint8).tobytes()
    return f"P6\n{comment}{width} {height}\n{white}\n".encode() + data


@pytest.mark.parametrize("white", [4095, 1023, 255, 100, 15])
def test_samples_are_scaled_by_the_depth_that_the_file_declares(white: int) -> None:
    samples = of_depth(picture(3), white)
    for comment in ("", "# made by a camera 12\n"):
        image = decode_image(pnm(samples, white, comment), "deep")
        assert np.abs(image.astype(int) - picture(3)).max() <= 255 // white


def test_grey_floating_point_from_0_to_1_is_scaled() -> None:
    grey = (picture(3)[..., 1] / 255).astype(np.float32)
    for suffix in (".pfm", ".tiff"):
        image = decode_image(encoded(grey, suffix), "grey")
        assert image.shape == (48, 64, 3)
        assert np.abs(image[..., 0].astype(int) - picture(3)[..., 1]).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".jp2", ".ppm", ".pgm"])
def test_a_depth_that_nobody_declares_is_refused_and_never_a_dark_picture(suffix: str) -> None:
    samples = TWELVE_BITS if suffix != ".pgm" else TWELVE_BITS[..., 0]
    with pytest.raises(DecodeError, match=r"16-bit samples of at most 4\d{3}, nearly black"):
        decode_image(encoded(samples, suffix), "deep")
    whole = decode_image(encoded(samples * 16, suffix), "16 bits")
    assert abs(float(whole.mean()) - float(samples.mean()) / 16) < 2
    assert not decode_image(encoded(samples * 0, suffix), "black").any()


@pytest.mark.parametrize("suffix", [".pfm", ".tiff"])
def test_floating_point_of_an_unknown_scale_is_refused(suffix: str) -> None:
    with pytest.raises(DecodeError, match=r"expected 0 \(black\) to 1 \(white\)"):
        decode_image(encoded(picture(3).astype(np.float32), suffix), "bright")


ROLL = Path(__file__).parents[1] / "roll"


def test_heic_is_read_with_its_extra_and_turned_as_the_file_says(monkeypatch: pytest.MonkeyPatch) -> None:
    image = read_image(ROLL / "IMG_0002.HEIC")
    assert image.shape == (384, 384, 3)
    assert 150 < image.mean() < 170
    upright = Image.fromarray(picture(3, 40, 80)[..., ::-1])
    exif = Image.Exif()
    exif[0x0112] = 6
    heif = pillow_heif.from_pillow(upright)
    buffer = io.BytesIO()
    heif.save(buffer, exif=exif.tobytes(), quality=100)  # pillow-heif turns the picture, and says so in the file
    turned = decode_image(buffer.getvalue(), "turned")
    jpeg = decode_image(pillow(upright, "JPEG", exif=exif, quality=100), "jpeg")
    assert turned.shape == jpeg.shape
    assert np.abs(turned.astype(int) - jpeg).mean() < 12
    for cut in (0.2, 0.6, 0.95):
        with pytest.raises(DecodeError, match="HEIC"):
            decode_image(buffer.getvalue()[: int(len(buffer.getvalue()) * cut)], "cut")
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(DecodeError, match=r"asrnet-edge\[heic\]"):
        read_image(ROLL / "IMG_0002.HEIC")


@pytest.mark.parametrize(
    ("name", "data", "format"),
    [
        ("x.dng", (ROLL / "IMG_raw.DNG").read_bytes(), "raw"),
        ("photo.tif", b"II*\0\x08\0\0\0\x01\0\xfe\0\x04\0\x01\0\0\0\x01\0\0\0\0\0\0\0", "raw"),
        ("x", b"II\x2a\0\x10\0\0\0CR\x02\0", "raw"),
        ("x", b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "raw"),
        ("x", b"8BPS\0\x01\0\0\0\0\0\0", "Photoshop"),
        ("x", b"\xff\x0a\xfa\x7f\x01\x90\x08\x06", "JPEG XL"),
        ("x", b"\0\0\0\x0cJXL \r\n\x87\n", "JPEG XL"),
        ("x", b"\x76\x2f\x31\x01\x02\0\0\0", "OpenEXR"),
    ],
)
def test_a_format_that_cannot_be_read_is_named(name: str, data: bytes, format: str) -> None:
    with pytest.raises(DecodeError, match=f"{name}: .*{format}.*cannot be read; convert it"):
        decode_image(data, name)


def test_the_first_picture_of_several_is_decoded() -> None:
    for name in ("stereo.mpo", "PXL_motion.MP.jpg", "anim.gif"):
        assert read_image(ROLL / name).shape == (384, 384, 3), name


def test_an_empty_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(DecodeError, match="empty"):
        read_image(tmp_path / "empty.jpg")


@pytest.mark.parametrize(("code", "words"), [(18, "luma and chroma"), (12, "colours of kind 12")])
def test_jpeg_2000_in_other_colours_is_refused_not_judged_in_wrong_ones(code: int, words: str) -> None:
    data = bytearray(encoded(picture(4), ".jp2"))
    at = data.index(b"colr")
    assert data[at + 7 : at + 11] == b"\0\0\0\x10"
    data[at + 10] = code
    with pytest.raises(DecodeError, match=words):
        decode_image(bytes(data), "picture")


def test_jpeg_2000_with_smaller_chroma_is_refused_by_its_name() -> None:
    data = bytearray(encoded(picture(4), ".jp2"))
    at = data.index(b"\xff\x51") + 40
    data[at + 4 : at + 6] = b"\x02\x02"
    with pytest.raises(DecodeError, match="chroma of a lower resolution"):
        decode_image(bytes(data), "picture")
