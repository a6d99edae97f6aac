"""Rows 14 to 18: inference that hangs, signals, kills, a full disk, memory over 20,000 frames."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import psutil
import pytest
from cameras import MjpegCamera, RtspCamera
from fault_process import screen
from live_run import LiveRun
from live_samples import small_disk
from runtime_samples import build_model, command_line, encoded, environment, picture, write_clip

Measured = Callable[[str], None]


def plays(path: Path) -> int:
    """Count the frames of a video that OpenCV reads to its end."""
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    frames = 0
    while capture.grab():
        frames += 1
    capture.release()
    return frames


@pytest.mark.fault(14)
def test_an_inference_that_never_returns_is_stopped_by_its_deadline(tmp_path: Path, measured: Measured) -> None:
    model = tmp_path / "endless.onnx"
    model.write_bytes(build_model(endless=True))
    names = ["black", "white1", "black2", "white3", "white4", "white5", "black6"]
    for name in names:
        level = 255 if name.startswith("white") else 0
        (tmp_path / f"{name}.png").write_bytes(encoded(np.full((32, 32, 3), level, np.uint8), ".png"))
    started = time.monotonic()
    run = screen(tmp_path, *(f"{name}.png" for name in names), "--deadline", 1, model=model)
    seconds = time.monotonic() - started
    *records, summary = run.records
    assert [record["type"] for record in records] == ["image", "error", "image", "error", "error", "error"]
    assert {record["kind"] for record in records if record["type"] == "error"} == {"DeadlineError"}
    assert (run.exit_code, summary["given_up"]) == (4, 1)
    assert seconds < 4 * 1 + 6
    measured(f"4 inferences without end, deadline 1 s: each reported, exit 4 after {seconds:.1f} s, start included")


def stopped_by(run: LiveRun, number: int) -> float:
    """Send a signal, check that the run ends as it promises, and return the seconds that took."""
    sent = time.monotonic()
    run.process.send_signal(number)
    assert run.process.wait(10) == 128 + number
    seconds = time.monotonic() - sent
    assert run.first(5, type="summary")["scored"] == len(run.seen(type="frame"))
    assert seconds < 3
    return seconds


@pytest.mark.fault(15)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_frames_come_ends_the_run(tmp_path: Path, measured: Measured, number: int) -> None:
    with MjpegCamera(rate=25) as camera, LiveRun(tmp_path, camera.url, "--annotate", "out.mkv") as run:
        run.first(10, type="frame")
        time.sleep(2)
        seconds = stopped_by(run, number)
        frames = len(run.seen(type="frame"))
    shown = plays(tmp_path / "out.mkv")
    assert shown >= 10
    measured(f"signal {number}: ended after {seconds:.2f} s, {frames} records, none lost, clip of {shown} frames plays")


@pytest.mark.fault(15)
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_in_a_blocked_read_ends_the_run(tmp_path: Path, measured: Measured, number: int) -> None:
    with RtspCamera() as camera, LiveRun(tmp_path, camera.url, "--annotate", "out.mkv") as run:
        run.first(20, type="frame")
        camera.stop()
        run.first(10, type="state", state="stalled")
        seconds = stopped_by(run, number)
    assert plays(tmp_path / "out.mkv") >= 1
    measured(f"signal {number} in a blocked read: ended after {seconds:.2f} s, nothing lost")


@pytest.mark.fault(16)
def test_a_kill_leaves_whole_lines_and_a_clip_that_plays(tmp_path: Path, measured: Measured) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model())
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MJPG"), 25, (640, 480))
    for index in range(600):
        writer.write(picture(index % 7, 480, 640))
    writer.release()
    command = command_line("screen", tmp_path / "in.avi", "--model", model, "--format", "jsonl", "-o", "out.jsonl")
    process = subprocess.Popen([*command, "--annotate", "out.mkv"], env=environment(), cwd=tmp_path)
    out = tmp_path / "out.jsonl"
    until = time.monotonic() + 30
    while time.monotonic() < until and not (out.exists() and out.read_bytes().count(b"\n") > 150):
        time.sleep(0.02)
    process.kill()
    process.wait(10)
    lines = out.read_bytes().split(b"\n")
    whole = [json.loads(line) for line in lines[:-1]]  # the last is b"" or cut
    frames = [record["frame"] for record in whole if record["type"] == "frame"]
    assert frames == list(range(len(frames)))
    shown = plays(tmp_path / "out.mkv")
    assert len(frames) >= 100
    assert shown >= len(frames) // 2
    measured(
        f"killed: {len(whole)} whole lines, {len(lines[-1])} bytes of another; {shown} of {len(frames)} frames play"
    )


@pytest.mark.fault(17)
@pytest.mark.parametrize("what", ["records", "clip"])
def test_a_full_disk_is_noticed(tmp_path: Path, measured: Measured, what: str) -> None:
    with small_disk(tmp_path / "disk", "12M") as disk, MjpegCamera(rate=50) as camera:
        out, clip = (disk / "out.jsonl", tmp_path / "x.mkv") if what == "records" else (tmp_path / "o", disk / "x.mkv")
        with LiveRun(tmp_path, camera.url, "-o", out, "--annotate", clip) as run:
            until = time.monotonic() + 15
            while time.monotonic() < until and not (out.exists() and out.read_bytes().count(b"\n") > 20):
                time.sleep(0.02)
            filled = time.monotonic()
            fill(disk)
            code = run.process.wait(20)
            seconds = time.monotonic() - filled
        message = run.errors()
    assert code == 3, message
    assert seconds < 2
    assert "Traceback" not in message
    measured(f"disk full under the {what}: exit 3 after {seconds:.2f} s")


def fill(disk: Path) -> None:
    """Write until nothing more fits."""
    with (disk / "filler").open("wb", buffering=0) as filler, contextlib.suppress(OSError):
        while filler.write(bytes(1 << 16)):
            pass


@pytest.mark.fault(18)
@pytest.mark.heavy
def test_memory_hardly_grows_over_20_000_frames(tmp_path: Path, measured: Measured) -> None:
    clip = write_clip(tmp_path / "long.avi", 20_000)
    with LiveRun(tmp_path, clip) as run:
        early = memory_at(run, 2_000)
        late = memory_at(run, 19_900)
        code, summary = run.ends(60)
    assert (code, summary["scored"]) == (0, 20_000)
    assert late - early < 10
    measured(f"resident memory after 2,000 frames {early:.1f} MB, after 19,900 {late:.1f} MB")


def memory_at(run: LiveRun, frame: int) -> float:
    """Resident megabytes of the run when it has reported a frame."""
    run.first(120, type="frame", frame=frame)
    return psutil.Process(run.process.pid).memory_info().rss / 2**20
