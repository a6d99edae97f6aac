"""Run asr-screen, or a piece of Python, in a separate process, and measure its time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from runtime_samples import build_model, command_line, environment

_PEAK = """
def peak_mb():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM")) / 1024
"""


@dataclass(frozen=True)
class Screened:
    """A finished run of asr-screen."""

    exit_code: int
    records: list[dict[str, Any]]
    errors: str


def screen(folder: Path, *arguments: object, model: Path | None = None, timeout: float = 120) -> Screened:
    """Run asr-screen with the tests' tiny model, or `model`, in `folder`."""
    if model is None:
        model = folder / "brightness.onnx"
        model.write_bytes(build_model())
    options = ("--model", model, "--device", "cpu", "--threads", 1, "--format", "jsonl")
    command = command_line("screen", *arguments, *options)
    done = subprocess.run(command, capture_output=True, env=environment(), timeout=timeout, cwd=folder, check=False)
    records = [json.loads(line) for line in done.stdout.splitlines()]
    return Screened(done.returncode, records, done.stderr.decode(errors="replace"))


def run_python(code: str, *arguments: object, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Run code that may call `peak_mb()`: the most memory this process has held so far.

    Not `ru_maxrss`: a child inherits that of the process it was forked from.
    """
    command = [sys.executable, "-c", _PEAK + code, *map(str, arguments)]
    variables = {**environment(), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, env=variables, timeout=timeout, check=False)
