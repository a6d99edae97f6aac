"""A watched folder while 10,000 files are copied in and asr-screen is killed and started again: row 26."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from signal import SIGTERM

import pytest
from live_samples import until
from runtime_samples import build_model, command_line, encoded, environment, picture

_FILES = 10_000
_KILLS = 5


@pytest.mark.fault(26)
@pytest.mark.heavy
def test_10_000_files_are_scored_once_each_while_the_run_is_killed_and_restarted(
    tmp_path: Path, measured: Callable[[str], None]
) -> None:
    folder, original = tmp_path / "watched", tmp_path / "original.png"
    folder.mkdir()
    original.write_bytes(encoded(picture(0, 16, 16), ".png"))
    (tmp_path / "model.onnx").write_bytes(build_model())
    output = tmp_path / "records.jsonl"
    options = ("--watch", folder, "--state", tmp_path / "state", "-o", output, "--format", "jsonl", "--threads", 1)
    command = command_line("screen", *options, "--model", tmp_path / "model.onnx")

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(command, env=environment(), stderr=subprocess.DEVNULL)

    def copy() -> None:
        for number in range(_FILES):
            below = folder / f"{number % 7}"
            below.mkdir(exist_ok=True)
            shutil.copyfile(original, below / f"{number}.png")

    def scored() -> list[str]:
        if not output.exists():
            return []
        lines = output.read_bytes().split(b"\n")[:-1]
        return [record["source"] for record in map(json.loads, lines) if record["type"] == "image"]

    copying = threading.Thread(target=copy, daemon=True)
    began = time.monotonic()
    process = start()
    copying.start()
    moments = random.Random(7)
    for kill in range(_KILLS):
        target = _FILES * (kill + 1) // (_KILLS + 2)
        until(lambda target=target: len(scored()) >= target, 120)  # type: ignore[misc]
        time.sleep(moments.uniform(0, 0.05))
        process.kill()
        process.wait(10)
        process = start()
    copying.join(60)
    until(lambda: len(scored()) >= _FILES, 120)
    time.sleep(1.0)
    process.send_signal(SIGTERM)
    assert process.wait(10) == 143
    counts = Counter(Path(name).name for name in scored())
    assert (len(counts), max(counts.values())) == (_FILES, 1)
    measured(f"{_FILES} files, {_KILLS} kills: each once, {time.monotonic() - began:.0f} s")
