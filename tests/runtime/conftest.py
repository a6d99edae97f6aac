"""Fixtures that the tests of the runtime share; runtime_samples.py makes models, pictures and clips."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest
from runtime_samples import Runner, build_model, command_line, encoded, environment, picture, shade, write_clip

from asr_runtime import Detector


@pytest.fixture(scope="session")
def model_bytes() -> bytes:
    return build_model()


@pytest.fixture(scope="session")
def detector(model_bytes: bytes) -> Detector:
    return Detector(model_bytes, device="cpu", threads=1)


@pytest.fixture(scope="session")
def model_path(model_bytes: bytes, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "brightness.onnx"
    path.write_bytes(model_bytes)
    return path


@pytest.fixture(scope="session")
def slow_model_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Takes some tens of milliseconds a frame, so that a signal arrives in the middle of a run."""
    path = tmp_path_factory.mktemp("slow") / "slow.onnx"
    path.write_bytes(build_model(work=12))
    return path


@pytest.fixture(scope="session")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """100 frames, 25 a second, MJPEG."""
    return write_clip(tmp_path_factory.mktemp("clip") / "clip.avi", 100)


@pytest.fixture
def mixed_folder(tmp_path: Path) -> Path:
    """Bright (ai), dark (real), grey (unsure) and a truncated image."""
    folder = tmp_path / "mixed"
    (folder / "below").mkdir(parents=True)
    for name, level in (("white.png", 255), ("black.jpg", 0), ("below/grey.bmp", 112)):
        (folder / name).write_bytes(encoded(shade(level), Path(name).suffix))
    whole = encoded(picture(), ".jpg")
    (folder / "cut.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "notes.txt").write_text("not an image")
    return folder


@pytest.fixture
def run_command(tmp_path: Path) -> Runner:
    """Run a command in a separate process."""

    def run(command: str, *arguments: object, **options: Any) -> subprocess.CompletedProcess[bytes]:
        settings = {"capture_output": True, "env": environment(), "timeout": 60, "cwd": tmp_path, **options}
        return subprocess.run(command_line(command, *arguments), check=False, **settings)

    return run
