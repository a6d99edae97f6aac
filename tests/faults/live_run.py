"""asr-screen on cameras, in a separate process; its records are read as they come."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from pathlib import Path
from signal import SIGINT
from typing import Any, Self

from runtime_samples import build_model, command_line, environment

Seen = dict[str, Any]


class LiveRun:
    """A run of asr-screen; every record also has the time at which it `arrived`.

    Args:
        folder: where it runs; the model, its errors and its output are written there.
        arguments: sources and options.
        work: makes the tests' tiny model slow; see `runtime_samples.build_model`.
    """

    def __init__(self, folder: Path, *arguments: object, work: int = 0) -> None:
        model = folder / f"model{work}.onnx"
        if not model.exists():
            model.write_bytes(build_model(work=work))
        options = ("--model", model, "--device", "cpu", "--threads", 1, "--format", "jsonl")
        self._command = command_line("screen", *arguments, *options)
        self._folder = folder
        self._records: list[Seen] = []
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        variables = {**environment(), "OMP_NUM_THREADS": "1"}
        with (self._folder / "errors.txt").open("wb") as errors:
            self.process = subprocess.Popen(
                self._command, stdout=subprocess.PIPE, stderr=errors, env=variables, cwd=self._folder
            )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        return self

    def __exit__(self, *reason: object) -> None:
        self.process.kill()
        self.process.wait(10)
        self._reader.join(10)
        assert self.process.stdout is not None
        self.process.stdout.close()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            record = {**json.loads(line), "arrived": time.time()}
            with self._changed:
                self._records.append(record)
                self._changed.notify_all()

    def seen(self, after: float = 0, before: float = float("inf"), **wanted: Any) -> list[Seen]:
        """Return the records that arrived between two Unix times and hold what is `wanted`."""
        with self._changed:
            records = list(self._records)
        return [r for r in records if after <= r["arrived"] < before and wanted.items() <= r.items()]

    def first(self, seconds: float, after: float = 0, **wanted: Any) -> Seen:
        """Wait for the first such record; the test fails if none comes in time."""
        deadline = time.monotonic() + seconds
        while not (records := self.seen(after, **wanted)):
            assert time.monotonic() < deadline, f"no {wanted} in {seconds} s: {self._told()}"
            with self._changed:
                self._changed.wait(0.1)
        return records[0]

    def ends(self, seconds: float, interrupt: bool = False) -> tuple[int, Seen]:
        """Wait until the run ends, or interrupt it; returns the exit code and the summary, whose counts are checked."""
        if interrupt:
            self.process.send_signal(SIGINT)
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise AssertionError(f"still running after {seconds} s: {self._told()}") from None
        self._reader.join(10)
        summaries = self.seen(type="summary")
        assert len(summaries) == 1, self._told()
        summary = summaries[0]
        assert summary["read"] == sum(summary[part] for part in ("scored", "failed", "dropped", "skipped"))
        assert summary["scored"] == len(self.seen(type="frame"))
        assert summary["failed"] == len(self.seen(type="error"))
        return code, summary

    def errors(self) -> str:
        """Return its standard error."""
        return (self._folder / "errors.txt").read_text(errors="replace")

    def output(self) -> str:
        """Return its standard output, without the times of arrival."""
        return "\n".join(json.dumps({k: v for k, v in r.items() if k != "arrived"}) for r in self.seen())

    def _latest(self) -> str:
        return f"{self.seen()[-8:]}, {self.errors()[-2000:]}"
