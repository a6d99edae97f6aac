"""Facts about processes that may end at any time, and a child process that answers what a test wants."""

from __future__ import annotations

import contextlib
import re
import time
from pathlib import Path

import psutil


def children(module: str, parent: int | None = None) -> list[int]:
    """Process ids of the children that run a module of ours, oldest first; of this process if no other is named."""
    processes = []
    for process in psutil.Process(parent).children():
        with contextlib.suppress(psutil.NoSuchProcess):
            if module in process.cmdline():
                processes.append((process.create_time(), process.pid))
    return [pid for _, pid in sorted(processes)]


def is_gone(pid: int) -> bool:
    """Tell whether a process ends within 3 s. It is not waited for: that would take its exit code from its parent."""
    for _ in range(300):
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)
    return False


def write_child(folder: Path, answer: bytes) -> Path:
    """Write a program that stands for Python: it answers with these bytes, whatever it is asked, and waits."""
    (folder / "answer").write_bytes(answer)
    program = folder / "python"
    program.write_text(f"#!/bin/sh\n/bin/cat '{folder}/answer'\nexec /bin/sleep 60\n")
    program.chmod(0o700)
    return program


def peak_megabytes(pid: int) -> float:
    """Memory that a process has had at most so far; 0 of one that has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if peak := re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text()):
            return int(peak[1]) / 1024
    return 0.0
