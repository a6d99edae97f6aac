"""asr-bench --loader: what it measures, in folders and in shards."""

from __future__ import annotations

from pathlib import Path

import pytest
from click.testing import CliRunner

from asr_bench.cli import bench_command
from asr_bench.figures import read_figures
from asr_train.data.layouts import find_data
from asr_train.data.write_shards import write_shards


@pytest.mark.heavy
def test_the_loader_is_timed_against_decoding_and_training(pristine_generators: Path, tmp_path: Path) -> None:
    write_shards(find_data(pristine_generators), tmp_path / "shards", 10**6, 0)
    out = tmp_path / "out"
    line = ["--loader", str(tmp_path / "shards"), "--workers", "2", "-o", str(out)]
    done = CliRunner().invoke(bench_command, line)
    assert done.exit_code == 0, done.output
    assert "| shards (shards) | 2 |" in done.output
    seen = {figure.name.removeprefix("shards, 2 processes: "): figure for figure in read_figures(out / "loader.json")}
    assert {len(seen[name].samples) for name in ("read", "decode", "augment", "decoding alone", "loader")} == {3}
    decoding, loader, training = (seen[name].median for name in ("decoding alone", "loader", "ASRNet learns"))
    assert decoding > loader > training > 0  # the loader decodes and augments; no training starves


def test_a_loader_of_nothing_is_refused_in_one_line(tmp_path: Path) -> None:
    done = CliRunner().invoke(bench_command, ["--loader", str(tmp_path / "nowhere")])
    assert (done.exit_code, "no such folder" in done.output) == (2, True), done.output
    done = CliRunner().invoke(bench_command, [])
    assert (done.exit_code, "Missing argument 'X.onnx'" in done.output) == (2, True), done.output
