"""The wheel, as a device installs it: everything that screening needs is in it, and nothing of the repository is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

_ROOT = Path(__file__).parent.parent

pytestmark = pytest.mark.heavy


def _run(*command: str | Path, folder: Path) -> str:
    clean = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [*map(str, command)], cwd=folder, env=clean, capture_output=True, text=True, timeout=240, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "hatchling", "build", "--target", "wheel", "--directory", folder, folder=_ROOT)
    (path,) = folder.glob("*.whl")
    return path


def test_the_wheel_holds_packages_and_their_files_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {"asr_models", "asr_train", "asr_export", "asr_runtime", "asr_bench"}
    assert {name.partition("/")[0] for name in names if ".dist-info/" not in name} == packages
    assert {f"{package}/py.typed" for package in packages} <= set(names)
    assert {"asr_runtime/builtin/asrnet-lite.onnx", "asr_runtime/builtin/asrnet-lite-tiny.onnx"} <= set(names)
    assert "asr_train/evaluation/templates/report.html.jinja" in names
    assert not [name for name in names if "__pycache__" in name or "test" in name]


def test_an_installed_wheel_screens_a_picture(wheel: Path, examples: Path, tmp_path: Path) -> None:
    _run(sys.executable, "-m", "venv", "clean", folder=tmp_path)
    python = tmp_path / "clean" / "bin" / "python"
    _run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-index", wheel, folder=tmp_path)
    # What it depends on is taken from the environment of the tests, behind its own packages. The editable install there
    # is not: a folder that a .pth file names is searched, but its own .pth files are not read.
    (own,) = (tmp_path / "clean" / "lib").glob("python*/site-packages")
    (own / "dependencies.pth").write_text(sysconfig.get_path("platlib") + "\n")
    where = _run(python, "-c", "import asr_runtime; print(asr_runtime.__file__)", folder=tmp_path)
    assert Path(where).is_relative_to(own)
    screened = _run(
        tmp_path / "clean" / "bin" / "asr-screen", "--format", "jsonl", examples / "real" / "cat.png", folder=tmp_path
    )
    image, summary = map(json.loads, screened.splitlines())
    assert (image["type"], summary["scored"], summary["model"]) == ("image", 1, "asrnet-lite")
