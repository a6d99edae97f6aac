"""Images: a truncated one is an error, never a score; one that asks for gigabytes is refused."""

from __future__ import annotations

import io
import json
import re
import struct
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from bombs import h264, png, resized
from fault_clips import MJPEG, encode, plain_frames, run_ffmpeg
from fault_process import run_python, screen
from PIL import Image
from runtime_samples import EXAMPLES, SUFFIXES, encoded, encoded_as

from asr_runtime.errors import DecodeError
from asr_runtime.media.image import IMAGE_FORMATS, decode_image, read_image

Measured = Callable[[str], None]
CUTS = (0.02, 0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 0.95, -100, -13, -5, -3, -2, -1)


def whole_images() -> dict[str, bytes]:
    """A real picture in every format, as OpenCV, Pillow and the programs behind the examples write it."""
    photo = decode_image((EXAMPLES / "real/dress.jpg").read_bytes(), "dress")
    picture = Image.open(EXAMPLES / "real/dress.jpg")
    images = {f"opencv{SUFFIXES[name]}": encoded_as(name, photo) for name in IMAGE_FORMATS}
    for path in ("real/dress.jpg", "real/cat.png", "ai/uvit-1.webp", "ai/sd3-1.jpg"):
        images[f"example-{Path(path).name}"] = (EXAMPLES / path).read_bytes()
    variants: dict[str, dict[str, object]] = {
        "progressive.jpg": {"progressive": True},
        "restarts.jpg": {"restart_marker_blocks": 4},
        "lossless.webp": {"lossless": True},
        "raw.tiff": {},
        "deflate.tiff": {"compression": "tiff_deflate"},
        "jpeg.tiff": {"compression": "jpeg"},
        "pillow.png": {},
        "pillow.bmp": {},
        "pillow.avif": {"quality": 60},
    }
    for name, options in variants.items():
        buffer = io.BytesIO()
        picture.save(buffer, SUFFIXES_TO_PILLOW[Path(name).suffix], **options)
        images[name] = buffer.getvalue()
    return images


SUFFIXES_TO_PILLOW = {suffix: name.upper() for name, suffix in SUFFIXES.items()}


@pytest.mark.fault(4)
def test_a_truncated_image_is_an_error_and_never_a_score(tmp_path: Path, measured: Measured) -> None:
    folder = tmp_path / "cut"
    folder.mkdir()
    whole = whole_images()
    for name, data in whole.items():
        decode_image(data, name)
        for cut in CUTS:
            kept = data[: int(len(data) * cut)] if cut > 0 else data[: int(cut)]
            (folder / f"{cut}-{name}").write_bytes(kept)
    done = screen(tmp_path, folder)
    assert done.exit_code == 1, done.errors
    *records, summary = done.records
    assert {record["type"] for record in records} == {"error"}
    assert {record["kind"] for record in records} == {"DecodeError"}
    assert len({record["source"] for record in records}) == len(whole) * len(CUTS)
    assert (summary["scored"], summary["failed"]) == (0, len(records))
    measured(f"{len(whole)} images of {len(SUFFIXES)} formats x {len(CUTS)} cuts: {len(records)} errors, 0 scores")


REFUSE = """
import json, sys, time
from asr_runtime import VideoFile, read_image
from asr_runtime.errors import InputError
import cv2
found = {}
for path in sys.argv[2:]:
    started = time.perf_counter()
    try:
        if sys.argv[1] == "image":
            read_image(path)
        else:
            next(iter(VideoFile(path)))
        outcome = "taken"
    except InputError as error:
        outcome = type(error).__name__ + ": " + str(error)
    found[path] = [outcome, time.perf_counter() - started, peak_mb()]
print(json.dumps(found))
"""


def refuse(kind: str, *paths: Path) -> tuple[float, float]:
    """Read files in a separate process, which must refuse them; returns the slowest refusal in s and the peak in MB."""
    done = run_python(REFUSE, kind, *paths)
    assert done.returncode == 0, done.stderr
    refusals = json.loads(done.stdout)
    for path, (outcome, _, _) in refusals.items():
        assert outcome.startswith(("DecodeError: ", "SourceError: ")), (path, outcome)
    return max(seconds for _, seconds, _ in refusals.values()), max(peak for _, _, peak in refusals.values())


@pytest.mark.fault(5)
def test_images_that_ask_for_gigabytes_are_refused(tmp_path: Path, measured: Measured) -> None:
    photo = decode_image((EXAMPLES / "real/dress.jpg").read_bytes(), "dress")
    (tmp_path / "bomb.png").write_bytes(png(30_000, 30_000))
    for suffix in (".jpg", ".bmp", ".tiff", ".avif"):
        parameters = (cv2.IMWRITE_TIFF_COMPRESSION, 1) if suffix == ".tiff" else ()
        (tmp_path / f"bomb{suffix}").write_bytes(resized(encoded(photo, suffix, *parameters), 30_000))
    paths = sorted(tmp_path.iterdir())
    seconds, peak = refuse("image", *paths)
    assert seconds < 1.0
    assert peak < 200
    measured(f"PNG, JPEG, BMP, TIFF, AVIF of 30,000 x 30,000: refused within {seconds:.2f} s, process at {peak:.0f} MB")


@pytest.mark.fault(5)
def test_videos_that_ask_for_gigabytes_are_refused(tmp_path: Path, measured: Measured) -> None:
    raw = tmp_path / "bomb.h264"
    raw.write_bytes(h264(16_000))
    for suffix in (".mp4", ".mkv", ".ts", ".avi", ".flv"):
        run_ffmpeg("-i", raw, "-c", "copy", tmp_path / f"bomb{suffix}")
    # Here only the frames declare the size, not the container.
    jpegs = encode(tmp_path / "jpegs.avi", plain_frames(3), "160x64", *MJPEG).read_bytes()
    claims = re.sub(rb"(\xff\xc0\0\x11\x08)....", rb"\1" + struct.pack(">HH", 16_000, 16_000), jpegs, flags=re.DOTALL)
    (tmp_path / "jpegs.avi").write_bytes(claims)
    paths = sorted(tmp_path.iterdir())
    seconds, peak = refuse("video", *paths)
    assert seconds < 1.0
    assert peak < 200
    measured(f"{len(paths)} videos of 16,000 x 16,000: refused within {seconds:.2f} s, process at {peak:.0f} MB")


@pytest.mark.fault(5)
def test_a_video_whose_container_hides_its_size_is_refused_before_a_frame_is_decoded(
    tmp_path: Path, measured: Measured
) -> None:
    raw = tmp_path / "bomb.h264"
    raw.write_bytes(h264(16_000))
    run_ffmpeg("-i", raw, "-c", "copy", tmp_path / "honest.mp4")
    data = (tmp_path / "honest.mp4").read_bytes()
    liar = data.replace(struct.pack(">HH", 16_000, 16_000), struct.pack(">HH", 160, 160))
    assert liar != data
    (tmp_path / "liar.mp4").write_bytes(liar)
    seconds, peak = refuse("video", tmp_path / "liar.mp4")
    # FFmpeg's H.264 decoder makes its tables as soon as it reads the true size; nothing outside it can stop that.
    assert seconds < 5.0
    assert peak < 900
    measured(f"container says 160 x 160, stream 16,000 x 16,000: refused in {seconds:.2f} s, process at {peak:.0f} MB")


@pytest.mark.fault(4)
def test_jpeg_2000_of_every_depth_is_as_bright_as_it_says(tmp_path: Path, measured: Measured) -> None:
    """10, 12, 14 and 16 bits, as cameras and scanners write them; other colours than RGB and grey are refused."""
    ramp = np.tile(np.linspace(0, 65535, 64).round().astype("<u2"), (48, 1))
    source = ("-f", "rawvideo", "-pix_fmt", "gray16le", "-s", "64x48", "-i", "-", "-c:v", "libopenjpeg")
    worst = 0.0
    for form in ("gray", "gray10le", "gray12le", "gray14le", "gray16le", "rgb24", "rgb48le"):
        path = tmp_path / f"{form}.jp2"
        run_ffmpeg(*source, "-pix_fmt", form, path, data=ramp.tobytes())
        worst = max(worst, float(np.abs(read_image(path)[..., 1] - ramp / 257.0).max()))
    assert worst < 3
    for form in ("yuv444p12le", "yuv420p"):
        run_ffmpeg(*source, "-pix_fmt", form, tmp_path / f"{form}.jp2", data=ramp.tobytes())
        with pytest.raises(DecodeError, match="JPEG 2000 with"):
            read_image(tmp_path / f"{form}.jp2")
    measured(
        f"JPEG 2000 of 8 to 16 bits: brightness off by {worst:.1f} levels at most; luma and chroma refused by name"
    )
