"""Memory of ASRNet-Lite's training in closed form at two numbers of pictures.

    python -m asr_bench.closed_form --pictures 2000 --pictures 10000

Makes data folders of links to the packaged pictures, trains a small ASRNet-Lite (nine blocks, 32 px) on each with
asr-train, and prints the largest memory of the process, and what it wrote.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click

from asr_bench.listing import made_folder
from asr_runtime.command import command
from asr_runtime.errors import InputError

__all__ = ["trained"]

_NETWORK = ("--model", "asrnet-lite", "--blocks", 9, "--crop-size", 32, "--views", 2, "--workers", 0, "--threads", 1)
_PEAK = """
import resource, sys
from asr_train.cli import train_command
try:
    train_command(standalone_mode=False)
finally:
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024)
"""


def trained(data: Path, runs: Path) -> dict[str, object]:
    """Train on a folder; return `megabytes` at the peak, `features` on disk in MB, and `seconds`."""
    started = time.monotonic()
    line = [sys.executable, "-c", _PEAK, *map(str, _NETWORK), "--data", str(data), "--runs", str(runs)]
    environment = {**os.environ, "XDG_CACHE_HOME": str(runs / "cache")}
    done = subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    if done.returncode:
        raise InputError(f"asr-train ended with code {done.returncode}: {done.stderr[-500:]}")
    written = sum(path.stat().st_size for path in (runs / "features").iterdir())
    return {
        "megabytes": int(done.stdout.splitlines()[-1]),
        "features": round(written / 1e6),
        "seconds": round(time.monotonic() - started),
    }


@command("python -m asr_bench.closed_form", refusals=(InputError,))
@click.option("--pictures", type=click.IntRange(min=100), multiple=True, default=(2000, 10_000), help="Repeatable.")
def main(pictures: tuple[int, ...]) -> None:
    """Train on made folders of several sizes."""
    for count in pictures:
        with tempfile.TemporaryDirectory(prefix="asr-closed-form-") as room:
            made_folder(Path(room) / "data", count)
            (Path(room) / "runs").mkdir()
            click.echo(json.dumps({"pictures": count, **trained(Path(room) / "data", Path(room) / "runs")}))


if __name__ == "__main__":
    main()
