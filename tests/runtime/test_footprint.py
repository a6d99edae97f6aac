"""What a start costs: nothing is loaded that a run does not need, and what loading a model frees is given back."""

from __future__ import annotations

import json
import platform
import subprocess
import sys

import pytest
from runtime_samples import environment

_NOT_NEEDED = ("asyncio", "email", "http", "importlib.metadata", "openvino", "rich", "ssl", "statistics", "zipfile")


def child(code: str) -> list[str]:
    """Run code in a fresh process; returns what its last line holds, as JSON."""
    args = [sys.executable, "-c", f"import json, sys\n{code}"]
    done = subprocess.run(args, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    printed: list[str] = json.loads(done.stdout.splitlines()[-1])
    return printed


def test_a_detector_starts_without_opencv() -> None:
    load = "import asr_runtime; asr_runtime.Detector('asrnet-lite-tiny', device='cpu')"
    code = f"{load}; print(json.dumps(list(sys.modules)))"
    assert not {"cv2", *_NOT_NEEDED} & set(child(code))


def test_images_load_nothing_for_cameras_networks_or_other_engines() -> None:
    modules = "asr_runtime.screening.screen, asr_runtime.reports.outputs, asr_runtime.cli"
    code = f"import {modules}; print(json.dumps(list(sys.modules)))"
    assert not set(_NOT_NEEDED) & set(child(code))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs a C library that gives memory back: glibc")
def test_what_loading_a_model_frees_is_given_back() -> None:
    code = """
import asr_runtime
def resident():
    pages = int(open('/proc/self/statm').read().split()[1])
    return pages * __import__('resource').getpagesize() // 1024
def peak():
    return next(int(line.split()[1]) for line in open('/proc/self/status') if line.startswith('VmHWM:'))
from asr_runtime.inference.builtin import builtin_path
from asr_runtime.inference.onnxruntime_engine import open_session
session = open_session(builtin_path('asrnet-lite-tiny').read_bytes(), 'cpu', 1)
print(json.dumps([peak(), resident()]))
"""
    kept = [int(number) for number in child(code)]
    assert kept[0] - kept[1] > 2_000, f"peak and resident kB: {kept}"
