"""asr-bench --loader: what it measures, in folders and in shards."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from asr_bench.cli import bench_command
from asr_train.data.layouts import find_data
from asr_train.data.write_shards import write_shards


@pytest.mark.heavy
def test_the_loader_is_timed_against_decoding_and_training(pristine_generators: Path, tmp_path: Path) -> None:
    write_shards(find_data(pristine_generators), tmp_path / "shards", 10**6, 0)
    line = ["--loader", str(tmp_path / "shards"), "--workers", "2", "-o", str(tmp_path / "out")]
    done = CliRunner().invoke(bench_command, line)
    assert done.exit_code == 0, done.output
    assert "| shards (shards) | 2 |" in done.output
    seen = json.loads((tmp_path / "out" / "loader.json").read_text())
    assert {len(seen[name]) for name in ("read", "decode", "augment", "decoding", "loader", "training")} == {3}
    decoding, loader, training = (float(np.median(seen[name])) for name in ("decoding", "loader", "training"))
    assert decoding > loader > training > 0  # the loader decodes and augments; no training starves


def test_a_loader_of_nothing_is_refused_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench_command, ["--loader", str(tmp_path / "nowhere")])
    assert (done.exit_code, "no such folder" in done.output) == (2, True), done.output
    done = CliRunner().invoke(bench_command, [])
    assert (done.exit_code, "Missing argument 'X.onnx'" in done.output) == (2, True), done.output
