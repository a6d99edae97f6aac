"""The benchmark: every sample kept, engines compared before they are timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from click.testing import CliRunner

from asr_bench.cli import bench_command
from asr_export.onnx_file import export
from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        network = create_model("asrnet", dim=4).eval()
        save_checkpoint(folder / f"{name}.pth", Checkpoint("asrnet", {"dim": 4}, default_preprocess("asrnet"), network))
    export(load_checkpoint(folder / "a.pth"), folder / "a.onnx")
    return folder


def test_every_sample_is_kept_and_the_table_says_the_conditions(files: Path, tmp_path: Path) -> None:
    args = [str(files / "a.onnx"), "--checkpoint", str(files / "a.pth"), "--rounds", "7", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(bench_command, args)
    assert done.exit_code == 0, done.output
    assert "threads 1" in done.output
    content = json.loads((tmp_path / "out" / "latency.json").read_text())
    assert {name: len(values) for name, values in content["samples"].items()} == {
        "PyTorch eager": 7,
        "exported file, onnxruntime": 7,
    }
    assert content["figures"]["PyTorch eager"]["speedup"] == 1.0
    assert (tmp_path / "out" / "latency.md").read_text() == done.output


def test_engines_that_disagree_are_not_timed(files: Path) -> None:
    done = CliRunner().invoke(bench_command, [str(files / "a.onnx"), "--checkpoint", str(files / "b.pth")])
    assert done.exit_code == 1
    assert "not timed" in done.output
