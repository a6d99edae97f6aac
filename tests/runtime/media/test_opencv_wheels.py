"""Two wheels of OpenCV, or what one of them left behind, end every command with one line."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib import metadata
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


def throw_away_packages(folder: Path) -> Path:
    """Return a folder with all installed packages, of links; those of OpenCV can be removed one by one."""
    files = [file for file in metadata.files("opencv-python") or [] if file.suffix != ".pyc"]
    installed = Path(str(files[0].locate())).parents[len(files[0].parts) - 1]
    for other in [Path(entry) for entry in sys.path if entry.endswith("site-packages")]:
        for path in other.iterdir():
            if path.name != "cv2" and not (folder / path.name).exists():
                (folder / path.name).symlink_to(path)
    for file in files:
        if file.parts[0] == "cv2":
            (folder / file).parent.mkdir(parents=True, exist_ok=True)
            (folder / file).symlink_to(installed / file)
    return folder


@pytest.mark.parametrize("command", ["screen", "doctor"])
@pytest.mark.parametrize("left", ["qt only", "all but the code", "nothing"])
def test_what_a_removed_wheel_leaves_behind_is_refused_in_one_line(tmp_path: Path, left: str, command: str) -> None:
    """As pip leaves it: opencv-python, opencv-python-headless over it, and the second removed with all that they share.

    The wheel without the graphical parts has all files of `cv2` but those of Qt. `all but the code`: pip was stopped.
    """
    site = throw_away_packages(tmp_path)
    arguments = command_line(command, *(["missing.jpg"] if command == "screen" else []))
    arguments.insert(1, "-S")  # no other packages than those
    variables = environment()
    variables["PYTHONPATH"] = os.pathsep.join([variables["PYTHONPATH"], str(site)])

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(arguments, env=variables, capture_output=True, text=True, check=False, timeout=120)

    if command == "screen" and left == "nothing":
        assert "OpenCV" not in run().stderr  # whole, it works
    for path in sorted((site / "cv2").rglob("*")):
        is_removed = {
            "qt only": "qt" not in path.relative_to(site).parts,
            "all but the code": path.name.startswith("cv2.") and path.suffix == ".so",
            "nothing": True,
        }[left]
        if is_removed and path.is_symlink():
            path.unlink()
    done = run()
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr == (
        f"asr-{command}: OpenCV is missing or incomplete: pip install --force-reinstall opencv-python\n"
    )
