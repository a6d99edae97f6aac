"""Standard error of the commands is ours: libraries that print beside it are not heard."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from runtime_samples import command_line, encoded, environment, picture

_DECODE = (
    "import sys, asr_runtime, cv2, numpy; from pathlib import Path; "
    "cv2.imdecode(numpy.frombuffer(Path(sys.argv[1]).read_bytes(), numpy.uint8), cv2.IMREAD_COLOR)"
)


@pytest.fixture(params=[".jpg", ".png"])
def damaged(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """Return a picture for which OpenCV's decoder prints a line of its own."""
    data = np.frombuffer(encoded(picture(1), request.param), np.uint8).copy()
    data[data.size // 2 : data.size // 2 + 16] ^= 0x55
    path = tmp_path / f"damaged{request.param}"
    path.write_bytes(data.tobytes())
    alone = subprocess.run(
        [sys.executable, "-c", _DECODE, str(path)], capture_output=True, text=True, env=environment(), check=True
    )
    assert "libpng error" in alone.stderr or "Corrupt JPEG data" in alone.stderr
    return path


def test_decoders_print_nothing_beside_our_lines(damaged: Path, model_path: Path) -> None:
    line = command_line("screen", damaged, "--model", model_path, "--device", "cpu", "--format", "csv")
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), check=False)
    assert done.stderr.startswith("1 read: ")
    assert done.stderr.count("\n") == 1
    assert done.returncode == int(damaged.suffix == ".png")  # a damaged JPEG has pixels


def test_who_asks_opencv_for_its_messages_hears_them(damaged: Path, model_path: Path) -> None:
    line = command_line("screen", damaged, "--model", model_path, "--device", "cpu", "--format", "csv")
    variables = {**environment(), "OPENCV_LOG_LEVEL": "WARNING"}
    done = subprocess.run(line, capture_output=True, text=True, env=variables, check=False)
    assert "libpng error" in done.stderr or "Corrupt JPEG data" in done.stderr


def test_a_crash_says_where_python_was(model_path: Path) -> None:
    code = (
        "import os, signal; import asr_runtime.commands.screen as s; "
        "s.screen_command.callback = lambda **options: os.kill(os.getpid(), signal.SIGSEGV); s.screen_command()"
    )
    line = [sys.executable, "-c", code, "x.png", "--model", str(model_path)]
    done = subprocess.run(line, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == -11
    assert done.stderr.startswith("Fatal Python error: Segmentation fault")
