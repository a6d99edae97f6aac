"""Freed memory: the second picture takes the pages of the first."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest
from runtime_samples import environment

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries have no such settings")

_FAULTS = """
import resource, sys
import asr_runtime.heap
if sys.argv[1] == "keep":
    asr_runtime.heap.keep_freed_memory()
for _ in range(2):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    bytearray(36_000_000)  # as much as a picture of 12 megapixels
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
_KEPT = """
import asr_runtime.commands.screen
asr_runtime.commands.screen.keep_freed_memory = lambda: print("kept")
asr_runtime.commands.screen.screen_command()
"""


def python(code: str, *arguments: object) -> str:
    command = [sys.executable, "-c", code, *map(str, arguments)]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_pages_of_a_freed_picture_are_used_again() -> None:
    assert int(python(_FAULTS, "keep")) < 100
    assert int(python(_FAULTS, "return")) > 1_000


@pytest.mark.parametrize(("pictures", "is_kept"), [(2, True), (1, False)])
def test_memory_is_kept_for_the_next_picture_where_there_is_one(
    pictures: int, is_kept: bool, examples: Path, model_path: Path
) -> None:
    files = sorted((examples / "real").iterdir())[:pictures]
    printed = python(_KEPT, *files, "--model", model_path, "--device", "cpu")
    assert printed.startswith("kept\n") == is_kept
