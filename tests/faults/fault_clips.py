"""Clips written by Debian's ffmpeg; the pixels of each frame show its index."""

from __future__ import annotations

import functools
import re
import shutil
import subprocess
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_samples import picture, stamped

X264 = ("-c:v", "libx264", "-preset", "veryfast", "-pix_fmt", "yuv420p")
X265 = ("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p")
# A positive speed would follow how busy the machine is, and the bytes with it.
VP8 = ("-c:v", "libvpx", "-deadline", "realtime", "-cpu-used", "-8")
VP9 = ("-c:v", "libvpx-vp9", "-deadline", "realtime", "-cpu-used", "8", "-pix_fmt", "yuv420p")
AV1 = ("-c:v", "libsvtav1", "-svtav1-params", "lp=1:tile-columns=0", "-preset", "12", "-pix_fmt", "yuv420p")
MJPEG = ("-c:v", "mjpeg", "-q:v", "5", "-pix_fmt", "yuvj420p")
PRORES = ("-c:v", "prores_ks", "-profile:v", "0", "-pix_fmt", "yuv422p10le")


def run_ffmpeg(*arguments: object, data: bytes = b"") -> bytes:
    """Run the ffmpeg command on one core; a test that needs it is skipped where there is none."""
    if shutil.which("ffmpeg") is None:
        pytest.skip("the ffmpeg command is not installed (apt-get install ffmpeg)")
    command = ["ffmpeg", "-hide_banner", "-v", "error", "-y", *map(str, arguments)]
    done = subprocess.run(command, input=data, capture_output=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")
    return done.stdout


@functools.cache
def plain_frames(count: int) -> bytes:
    """Raw frames of 160 x 64 that show nothing but their index."""
    return b"".join(stamped(index, noise=0).tobytes() for index in range(count))


@functools.cache
def textured_frames(count: int) -> bytes:
    """Raw frames of 320 x 240 that move over a noisy picture, with their index in a corner."""
    wide = cv2.resize(picture(3, 40, 60), (900, 640), interpolation=cv2.INTER_CUBIC).astype(int)
    noise = np.random.default_rng(0).integers(-12, 12, wide.shape)
    scene = np.clip(wide + noise, 0, 255).astype(np.uint8)
    return b"".join(_window(scene, index).tobytes() for index in range(count))


def _window(scene: NDArray[np.uint8], index: int) -> NDArray[np.uint8]:
    top, left = index % 200, 2 * index % 500
    frame = scene[top : top + 240, left : left + 320].copy()
    frame[:64, :160] = stamped(index, noise=0)
    return frame


def encode(path: Path, frames: bytes, size: str, *options: object) -> Path:
    """Write raw BGR frames as a clip of 25 frames a second, the same bytes every time."""
    source = ("-f", "rawvideo", "-pix_fmt", "bgr24", "-s", size, "-r", "25", "-i", "-")
    run_ffmpeg(*source, "-threads", "1", "-fflags", "+bitexact", *options, path, data=frames)
    return path


def frames_that_ffmpeg_recovers(path: Path) -> int:
    """Count the frames that the command line gets out of a damaged file, even if it reports errors."""
    command = ["ffmpeg", "-nostdin", "-v", "quiet", "-threads", "1", "-i", str(path), "-map", "0:v:0"]
    output = ["-vsync", "passthrough", "-f", "null", "-progress", "-", "-"]
    done = subprocess.run([*command, *output], capture_output=True, timeout=60, check=False)
    counts = re.findall(rb"^frame=\s*(\d+)", done.stdout, re.MULTILINE)
    return int(counts[-1]) if counts else 0
