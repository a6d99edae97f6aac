"""`make gpu`: its steps, run here on the processor. Without CUDA each step is skipped and says why."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from asr_bench import gpu


@pytest.mark.heavy
def test_every_step_runs_and_gives_a_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gpu, "_NETWORKS", {"asrnet": {"dim": 4}})
    monkeypatch.setattr(gpu, "_TRAINING_BATCH", 2)
    report = gpu.run_steps("cpu", batches=(1, 2), rounds=2)
    rows = {(step, what): figure for step, what, figure in report.rows}
    assert [step for step, _ in rows] == [
        *["training"] * 2,
        "export",
        "parity and placement",
        *["latency"] * 2,
        "Fourier operator",
        *["16 bits"] * 2,
        *["memory"] * 2,
    ]
    assert re.fullmatch(r"[\d.]+ s, [\d.]+ MB", rows["export", "asrnet"])
    assert re.search(r"verdicts changed \d+ of \d\d+, probabilities by", rows["16 bits", "asrnet, float16"])
    assert rows["memory", "asrnet, cpu, batch 2"].endswith(" MB")
    assert rows["parity and placement", "asrnet, cpu"].startswith("passed: ")
    assert "nodes on CPUExecutionProvider" in rows["parity and placement", "asrnet, cpu"]
    assert "pictures/s" in rows["training", "asrnet, batch 2, bfloat16"]
    assert "frames on the device" in rows["latency", "asrnet, cpu, batch 2"]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device")
def test_without_cuda_every_step_says_why_it_did_not_run(tmp_path: Path) -> None:
    report = gpu.run_steps("cuda")
    assert len(report.rows) == 7
    assert {figure for _, _, figure in report.rows} == {"skipped: torch finds no CUDA device here"}
    assert report.to_markdown().startswith("no CUDA device; torch ")
