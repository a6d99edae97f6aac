"""The benchmark: every engine in its own process, compared before it is timed, every sample kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from asr_bench.benchmark import Benchmark, figures
from asr_bench.cli import bench_command
from asr_bench.end_to_end import end_to_end
from asr_bench.engines import Task, available
from asr_bench.process import EngineProcess, cold_start
from asr_bench.report import changes, markdown, svg
from asr_export.onnx_file import export
from asr_export.parity_inputs import packaged_images
from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint
from asr_runtime import Detector, read_image
from asr_runtime.errors import ConfigurationError


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bench")
    for name, seed in (("a", 0), ("b", 1)):
        torch.manual_seed(seed)
        network = create_model("asrnet", dim=4).eval()
        save_checkpoint(folder / f"{name}.pth", Checkpoint("asrnet", {"dim": 4}, default_preprocess("asrnet"), network))
    export(load_checkpoint(folder / "a.pth"), folder / "a.onnx")
    return folder


def _bench(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(bench_command, [str(a) for a in arguments])
    return done.exit_code, done.output


@pytest.mark.heavy
def test_all_engines_side_by_side(files: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said = _bench(files / "a.onnx", "--checkpoint", files / "a.pth", "--rounds", 5, "--batch", 3, "-o", out)
    assert code == 0, said
    content = json.loads((out / "benchmark.json").read_text())
    assert set(content["samples"]) == set(available(True))
    assert {len(seconds) for seconds in content["samples"].values()} == {5}
    assert {len(seconds) for seconds in content["cold_s"].values()} == {3}
    assert all(set(sizes) == {"3"} for sizes in content["batches"].values())
    for name, row in content["figures"].items():
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["cold_s"] > row["p50_ms"] / 1e3
        assert row["gflops"] < content["matmul_gflops"] * 1.5, name
        assert row["file_mb"] > 0
    assert content["figures"]["torch eager"]["speedup"] == 1.0
    # Its own process: no PyTorch in it.
    assert content["figures"]["asrnet-edge"]["peak_mb"] < content["figures"]["torch eager"]["peak_mb"] / 2
    assert content["figures"]["asrnet-edge"]["cold_s"] < content["figures"]["torch eager"]["cold_s"] / 2
    assert (out / "benchmark.md").read_text() == said
    assert "threads 1" in said
    assert (out / "benchmark.svg").read_text().lstrip().startswith("<?xml")
    code, said = _bench(files / "a.onnx", "--engine", "asrnet-edge", "--rounds", 5, "--against", out / "benchmark.json")
    assert code == 0
    assert "times the earlier median" in said


def test_engines_that_disagree_are_not_timed(files: Path) -> None:
    code, said = _bench(
        files / "a.onnx", "--checkpoint", files / "b.pth", "--engine", "torch eager", "--engine", "asrnet-edge"
    )
    assert code == 1
    assert "not timed: asrnet-edge gives probability" in said


def test_an_engine_in_a_process_gives_the_detectors_numbers(files: Path) -> None:
    frames = read_image(next(packaged_images().iterdir()))[None]
    task = Task("asrnet-edge", files / "a.onnx", None, None, 1)
    with EngineProcess(task) as engine:
        assert engine.score(frames) == pytest.approx(Detector(files / "a.onnx", threads=1)(frames).probability)
        assert len(engine.time(frames, 4)) == 4
        assert engine.peak_bytes() > 20e6
        assert 0 < engine.load_s < 60


def test_what_cannot_be_loaded_is_named(files: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"no model")
    with pytest.raises(ConfigurationError, match=r"asrnet-edge: .*broken.onnx"):
        EngineProcess(Task("asrnet-edge", broken, None, None, 1))
    with pytest.raises(ConfigurationError, match="no first score"):
        cold_start(Task("asrnet-edge", broken, None, None, 1), str(next(packaged_images().iterdir())))
    code, said = _bench(files / "a.onnx", "--engine", "torch eager")
    assert (code, "needs --checkpoint" in said) == (2, True), said
    code, said = _bench(files / "a.onnx", "--engine", "asrnet-edge", "--rounds", 2, "--against", broken)
    assert (code, "broken.onnx" in said) == (2, True), said


def test_the_steps_alone_and_together(files: Path, examples: Path) -> None:
    video = examples / "video" / "pan.mp4"
    found = end_to_end(files / "a.onnx", video)
    assert found.frames == 120
    assert {len(rates) for rates in (found.decode, found.inference, found.pipeline)} == {3}
    slower = min(np.median(found.decode), np.median(found.inference))
    assert found.efficiency == pytest.approx(np.median(found.pipeline) / slower)
    assert 0.1 < found.efficiency < 1.5
    assert "| pan.mp4 | 120 |" in found.to_markdown()
    assert end_to_end(files / "a.onnx", examples / "real").frames == 7
    with pytest.raises(ConfigurationError, match="no frame to time"):
        end_to_end(files / "a.onnx", files)


def _found(scale: float = 1.0) -> Benchmark:
    rng = np.random.default_rng(0)
    return Benchmark(
        samples={"slow": tuple(scale * rng.normal(0.04, 0.001, 50)), "fast": tuple(rng.normal(0.01, 0.001, 50))},
        batches={"slow": {4: (0.2, 0.2)}, "fast": {4: (0.05, 0.05)}},
        load_s={"slow": 2.0, "fast": 0.1},
        cold_s={"slow": (4.0, 3.0, 3.5), "fast": (0.3, 0.2, 0.25)},
        peak_bytes={"slow": 700_000_000, "fast": 100_000_000},
        file_bytes={"slow": 9_000_000, "fast": 5_000_000},
        gflop=2.0,
        matmul_gflops=250.0,
        conditions={"threads": 1},
    )


def test_figures_are_what_their_names_say() -> None:
    fast = figures(_found())["fast"]
    assert fast["speedup"] == pytest.approx(4, rel=0.05)
    assert fast["gflops"] == pytest.approx(200, rel=0.05)
    assert fast["of_peak"] == pytest.approx(0.8, rel=0.05)
    assert (fast["cold_s"], fast["load_s"], fast["peak_mb"], fast["file_mb"]) == (0.25, 0.1, 100, 5)
    table = markdown(_found())
    assert "| fast | 80.0 |" in table  # frames a second
    assert "matrix product peak 250 GFLOP/s" in table
    assert "ms from frame" in svg(_found())


def test_a_change_is_told_from_noise(tmp_path: Path) -> None:
    earlier = tmp_path / "benchmark.json"
    earlier.write_text(json.dumps(dataclasses.asdict(_found())))
    slower, same = changes(_found(1.2), earlier).splitlines()
    assert slower.startswith("slow: 1.2")
    assert slower.endswith("slower")
    assert same.endswith("no change beyond noise")
