"""Damaged files by the thousand: each gives a score or a clear error, in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from fault_clips import AV1, MJPEG, PRORES, VP9, X264, X265, encode, plain_frames
from runtime_samples import EXAMPLES, build_model, encoded, environment

from asr_runtime.inference.builtin import builtin_path
from asr_runtime.media.image import decode_image

Measured = Callable[[str], None]
CLIPS = {
    "h264.mp4": (*X264, "-bf", "3"),
    "h264.mkv": (*X264, "-bf", "3"),
    "h264.ts": (*X264, "-bf", "3"),
    "h264.flv": X264,
    "fragments.mp4": (*X264, "-movflags", "frag_keyframe+empty_moov"),
    "hevc.mp4": (*X265, "-x265-params", "log-level=none"),
    "vp9.webm": VP9,
    "av1.mp4": AV1,
    "mpeg4.avi": ("-c:v", "mpeg4", "-bf", "2"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-bf", "2"),
    "mjpeg.avi": MJPEG,
    "prores.mov": PRORES,
    "theora.ogv": ("-c:v", "libtheora"),
    "wmv2.wmv": ("-c:v", "wmv2"),
    "raw.h264": X264,
}


def fuzz(kind: str, count: int, folder: Path) -> dict[str, Any]:
    (folder.parent / "model.onnx").write_bytes(build_model())
    command = [sys.executable, str(Path(__file__).parent / "fuzz_batch.py"), kind, str(count), str(folder)]
    variables = {**environment(), "OMP_NUM_THREADS": "1", "PYTHONFAULTHANDLER": "1"}
    done = subprocess.run(command, capture_output=True, env=variables, timeout=200, check=False)
    assert done.returncode == 0, done.stderr.decode(errors="replace")[-3000:]
    report: dict[str, Any] = json.loads(done.stdout)
    assert sum(report["outcomes"].values()) == count
    assert "error of several lines" not in report["outcomes"]
    assert report["slowest"] < 5.0, f"number {report['number']}"
    assert report["peak"] < 1500
    return report


def in_words(kind: str, report: dict[str, Any]) -> str:
    outcomes = ", ".join(f"{number} {name}" for name, number in sorted(report["outcomes"].items()))
    return f"{kind}: {outcomes}; slowest {report['slowest']:.2f} s, process at {report['peak']:.0f} MB"


@pytest.mark.fault(6)
@pytest.mark.heavy
def test_2000_damaged_images_give_a_score_or_an_error(tmp_path: Path, measured: Measured) -> None:
    folder = tmp_path / "seeds"
    folder.mkdir()
    for name in ("real/dress.jpg", "real/sandals.jpg", "real/cat.png", "ai/sd3-1.jpg", "ai/uvit-1.webp"):
        (folder / Path(name).name).write_bytes((EXAMPLES / name).read_bytes())
    photo = decode_image((EXAMPLES / "real/top.jpg").read_bytes(), "top")
    for suffix in (".png", ".webp", ".bmp", ".tiff", ".avif"):
        (folder / f"top{suffix}").write_bytes(encoded(photo, suffix))
    measured(in_words("2,000 images", fuzz("images", 2000, folder)))


@pytest.mark.fault(6)
@pytest.mark.heavy
def test_500_damaged_videos_give_scores_or_an_error(tmp_path: Path, measured: Measured) -> None:
    folder = tmp_path / "seeds"
    folder.mkdir()
    for name, options in CLIPS.items():
        encode(folder / name, plain_frames(20), "160x64", *options)
    measured(in_words("500 videos", fuzz("videos", 500, folder)))


@pytest.mark.fault(6)
@pytest.mark.heavy
def test_300_damaged_models_give_a_score_or_an_error(tmp_path: Path, measured: Measured) -> None:
    folder = tmp_path / "seeds"
    folder.mkdir()
    (folder / "brightness.onnx").write_bytes(build_model())
    (folder / "asrnet-lite-tiny.onnx").write_bytes(builtin_path("asrnet-lite-tiny").read_bytes())
    measured(in_words("300 models", fuzz("models", 300, folder)))
