"""Exactly one onnxruntime: none, two, or half of one are reported in one line with what to install."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_samples import Runner, command_line, environment

from asr_runtime.inference.detector import Detector
from asr_runtime.inference.onnxruntime_engine import DEVICES, PROVIDERS


def test_every_device_has_its_providers_and_the_cpu_behind_them() -> None:
    assert set(DEVICES) == {"auto", *PROVIDERS}
    assert all(providers[-1] == "CPUExecutionProvider" for providers in PROVIDERS.values())


def prepended(folder: Path) -> dict[str, str]:
    variables = environment()
    return {**variables, "PYTHONPATH": os.pathsep.join([str(folder), variables["PYTHONPATH"]])}


def test_both_distributions_are_refused(run_command: Runner, tmp_path: Path, model_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-1.0.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    done = run_command("screen", "a.jpg", "--model", model_path, env=prepended(tmp_path))
    assert done.returncode == 2
    assert b"onnxruntime and onnxruntime-gpu are both installed" in done.stderr
    examined = run_command("doctor", "--model", model_path, env=prepended(tmp_path))
    assert examined.returncode == 2
    assert b"both installed" in examined.stdout


def test_what_a_removed_distribution_leaves_behind_is_refused(
    run_command: Runner, tmp_path: Path, model_path: Path
) -> None:
    (tmp_path / "onnxruntime").mkdir()
    (tmp_path / "onnxruntime" / "__init__.py").touch()
    done = run_command("screen", "a.jpg", "--model", model_path, env=prepended(tmp_path))
    assert done.returncode == 2
    assert b"asrnet-edge[cpu]" in done.stderr


@pytest.mark.parametrize("command", ["screen", "doctor"])
def test_without_onnxruntime_the_extras_are_named(command: str, model_path: Path) -> None:
    arguments = command_line(command, *(["a.jpg"] if command == "screen" else []), "--model", model_path)
    block = "import sys; sys.modules['onnxruntime'] = None; "
    done = subprocess.run(
        [sys.executable, "-c", block + arguments[2], *arguments[3:]],
        env=environment(),
        capture_output=True,
        check=False,
    )
    assert done.returncode == 2
    assert b"pip install 'asrnet-edge[cpu]'" in done.stdout + done.stderr
    assert b"Traceback" not in done.stderr


def test_only_calls_side_by_side_take_their_memory_in_one_block() -> None:
    """One call at a time needs less memory without; several would hand blocks to and fro between cores."""
    patterns = [
        Detector("asrnet-lite-tiny", device="cpu", threads=1, jobs=jobs)
        ._session.get_session_options()
        .enable_mem_pattern
        for jobs in (1, 2)
    ]
    assert patterns == [False, True]


_MEMORY = """
import re
from pathlib import Path
import numpy as np
from asr_runtime.inference.detector import Detector
from asr_runtime.inference.onnxruntime_engine import import_onnxruntime

def megabytes(of):
    return int(re.search(of + r":\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1024

import_onnxruntime()
before = megabytes("VmRSS")
detector = Detector("asrnet-lite", device="cpu", threads=1)
detector.look(np.random.default_rng(0).integers(0, 256, (384, 384, 3), dtype=np.uint8))
print(megabytes("VmHWM") - before)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads /proc")
def test_memory_for_inference_grows_by_what_is_asked_for() -> None:
    done = subprocess.run(
        [sys.executable, "-c", _MEMORY], env=environment(), capture_output=True, text=True, check=True
    )
    assert float(done.stdout) < 75  # 69 MB; 81 MB where each request doubles it
