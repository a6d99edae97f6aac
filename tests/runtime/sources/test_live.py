"""Which arguments are cameras."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from asr_runtime.sources.live import is_live, live_source


@pytest.mark.parametrize(
    ("argument", "opened"),
    [
        ("0", "/dev/video0"),
        ("007", "/dev/video7"),
        ("/dev/video12", "/dev/video12"),
        ("/dev/v4l/by-id/usb-046d_C920_1234-video-index0", "/dev/v4l/by-id/usb-046d_C920_1234-video-index0"),
        ("/dev/v4l/by-path/pci-0000:00:14.0-usb-0:1:1.0-video-index0",) * 2,
        ("HTTP://camera/x", "http://camera/x"),
        ("rtsp://[fe80::1%25eth0]/x", "rtsp://[fe80::1%eth0]/x"),
    ],
)
def test_an_argument_that_names_a_camera_is_a_live_source(argument: str, opened: str) -> None:
    assert is_live(argument)
    assert live_source(argument).url == opened


@pytest.mark.parametrize(
    "argument",
    ["/dev/null", "/dev/v4l", "/dev/v4l/by-id", "/dev/videos", "video0", "1.5", "-1", "\u0661", "9" * 5000, "a\0b", ""],
)
def test_other_arguments_are_no_live_sources(argument: str) -> None:
    assert not is_live(argument)


@pytest.mark.skipif(not hasattr(os, "mknod") or os.getuid() != 0, reason="needs the right to make a device file: root")
def test_a_device_of_another_name_is_a_camera_by_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    device = Path(f"/dev/asr-test-{os.getpid()}")
    try:
        os.mknod(device, 0o20600, os.makedev(81, 63))
    except OSError as error:
        pytest.skip(f"no device file can be made here: {error.strerror}")
    try:
        assert is_live(str(device))
    finally:
        device.unlink()


def test_python_m_asr_runtime_is_asr_screen() -> None:
    done = subprocess.run([sys.executable, "-m", "asr_runtime", "--help"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("Usage: asr-screen [OPTIONS] SOURCE...")
