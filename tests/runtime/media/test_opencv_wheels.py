"""Two wheels of OpenCV, or what one of them left behind, end every command with one line."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from runtime_samples import command_line, environment


@pytest.mark.parametrize("command", ["screen", "doctor"])
def test_two_wheels_are_refused_in_one_line(tmp_path: Path, command: str) -> None:
    # The second wheel's record beside the real one, as pip leaves it.
    (tmp_path / "opencv_python_headless-4.9.0.80.dist-info").mkdir()
    (tmp_path / "opencv_python-4.14.0.94.dist-info").mkdir()
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([variables["PYTHONPATH"], str(tmp_path)])
    arguments = ["missing.jpg"] if command == "screen" else []
    done = subprocess.run(
        command_line(command, *arguments), env=variables, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"asr-{command}: opencv-python and opencv-python-headless are installed")
    assert done.stderr.count("\n") == 1
