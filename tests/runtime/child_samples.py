"""Facts about processes, read from /proc (Linux), and a child process that answers what a test wants."""

from __future__ import annotations

import re
import time
from pathlib import Path


def children(module: str, parent: int | str = "self") -> list[int]:
    """Process ids of the children that run a module of ours, oldest first."""
    processes = []
    for task in Path(f"/proc/{parent}/task").iterdir():
        for pid in (task / "children").read_text().split():
            if module.encode() in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0"):
                processes.append(int(pid))
    return sorted(processes)


def is_gone(pid: int) -> bool:
    for _ in range(300):
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z":
                return True
        except OSError:
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


def megabytes(pid: int | str, field: str) -> float:
    """Memory of a process, `VmRSS` now or `VmHWM` at most so far; 0 of one that has ended."""
    amount = re.search(field + r":\s+(\d+)", Path(f"/proc/{pid}/status").read_text())
    return int(amount[1]) / 1024 if amount else 0.0


def open_files(pid: int | str) -> list[str]:
    return sorted(path.name for path in Path(f"/proc/{pid}/fd").iterdir())


def limits(pid: int) -> dict[str, list[str]]:
    """Soft and hard limit of everything that a process may use."""
    lines = Path(f"/proc/{pid}/limits").read_text().splitlines()
    return {line[:26].strip(): line[26:].split()[:2] for line in lines}
