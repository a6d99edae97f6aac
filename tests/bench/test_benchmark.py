"""The benchmark: every engine in its own process, compared before it is timed, every sample kept."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from sklearn.metrics import roc_auc_score

from asr_bench.benchmark import Benchmark, figures
from asr_bench.cli import bench_command
from asr_bench.end_to_end import end_to_end
from asr_bench.energy import Rapl, joules_per_call
from asr_bench.engines import Task, available
from asr_bench.looks import look_costs
from asr_bench.process import EngineProcess, cold_start
from asr_bench.quality import Quality, measure_quality
from asr_bench.report import changes, markdown, svg, write_benchmark
from asr_export.onnx_file import export
from asr_export.parity_inputs import packaged_images
from asr_export.precision_gate import Images
from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint
from asr_runtime import Detector, read_image
from asr_runtime.contract import Decision
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.builtin import builtin_path


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
def test_all_engines_side_by_side(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("asr_bench.benchmark._COLD_STARTS", 1)  # each of PyTorch takes 5 s and more
    out = tmp_path / "out"
    code, output = _bench(files / "a.onnx", "--checkpoint", files / "a.pth", "--rounds", 5, "--batch", 3, "-o", out)
    assert code == 0, output
    content = json.loads((out / "benchmark.json").read_text())
    assert set(content["samples"]) == set(available(True))
    assert {len(seconds) for seconds in content["samples"].values()} == {5}
    assert {len(seconds) for seconds in content["cold_s"].values()} == {1}
    assert all(set(sizes) == {"3"} for sizes in content["batches"].values())
    for name, row in content["figures"].items():
        assert 0 < row["p50_ms"] <= row["p95_ms"] <= row["p99_ms"]
        assert row["cold_s"] > row["p50_ms"] / 1e3
        assert row["gflops"] < content["matmul_gflops"] * 3, name  # other tests run beside this one
        assert row["file_mb"] > 0
    assert content["figures"]["torch eager"]["speedup"] == 1.0
    # Its own process: no PyTorch in it.
    assert content["figures"]["asrnet-edge"]["peak_mb"] < content["figures"]["torch eager"]["peak_mb"] / 2
    assert content["figures"]["asrnet-edge"]["cold_s"] < content["figures"]["torch eager"]["cold_s"] / 2
    assert (out / "benchmark.md").read_text() == output
    assert "threads 1" in output
    assert (out / "benchmark.svg").read_text().lstrip().startswith("<?xml")
    code, output = _bench(
        files / "a.onnx", "--engine", "asrnet-edge", "--rounds", 5, "--against", out / "benchmark.json"
    )
    assert code == 0
    assert "times the earlier median" in output


def test_engines_that_disagree_are_not_timed(files: Path) -> None:
    code, output = _bench(
        files / "a.onnx", "--checkpoint", files / "b.pth", "--engine", "torch eager", "--engine", "asrnet-edge"
    )
    assert code == 1
    assert "not timed: asrnet-edge gives probability" in output


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
    code, output = _bench(files / "a.onnx", "--engine", "torch eager")
    assert (code, "needs --checkpoint" in output) == (2, True), output
    code, output = _bench(files / "a.onnx", "--engine", "asrnet-edge", "--rounds", 2, "--against", broken)
    assert (code, "broken.onnx" in output) == (2, True), output


def test_decoding_inference_and_both_together_are_timed(files: Path, examples: Path) -> None:
    video = examples / "video" / "pan.mp4"
    speeds = end_to_end(files / "a.onnx", video)
    assert speeds.frames == 120
    assert {len(rates) for rates in (speeds.decode, speeds.inference, speeds.pipeline)} == {3}
    slower = min(np.median(speeds.decode), np.median(speeds.inference))
    assert speeds.efficiency == pytest.approx(np.median(speeds.pipeline) / slower)
    assert 0.1 < speeds.efficiency < 1.5
    assert "| pan.mp4 | 120 |" in speeds.to_markdown()
    assert end_to_end(files / "a.onnx", examples / "real").frames == 7
    with pytest.raises(ConfigurationError, match="no frame to time"):
        end_to_end(files / "a.onnx", files)


def test_looks_at_a_picture_are_timed_in_turns() -> None:
    costs = look_costs(builtin_path("asrnet-lite-tiny"), rounds=2)
    assert costs.windows["centre"] == 1
    assert costs.windows["evidence map"] == 49
    assert {len(seconds) for seconds in costs.seconds.values()} == {2}
    assert np.median(costs.seconds["evidence map"]) > 5 * np.median(costs.seconds["centre"])
    assert "| centre | 1 |" in costs.to_markdown()
    assert "| 1.00x |" in costs.to_markdown()


def _benchmark(scale: float = 1.0) -> Benchmark:
    rng = np.random.default_rng(0)
    return Benchmark(
        samples={"slow": tuple(scale * rng.normal(0.04, 0.001, 50)), "fast": tuple(rng.normal(0.01, 0.001, 50))},
        batches={"slow": {4: (0.2, 0.2)}, "fast": {4: (0.05, 0.05)}},
        load_s={"slow": 2.0, "fast": 0.1},
        cold_s={"slow": (4.0, 3.0, 3.5), "fast": (0.3, 0.2, 0.25)},
        peak_bytes={"slow": 700_000_000, "fast": 100_000_000},
        file_bytes={"slow": 9_000_000, "fast": 5_000_000},
        joules={"slow": 1.5, "fast": 0.25},
        quality=Quality(60, {"slow": 0.9, "fast": 0.89}, {"slow": 0.0, "fast": 0.05}),
        placement={"CPUExecutionProvider": {"Conv": 7, "Gemm": 1}},
        gflop=2.0,
        matmul_gflops=250.0,
        conditions={"model": "asrnet fp32", "threads": 1},
    )


def test_figures_are_what_their_names_say() -> None:
    fast = figures(_benchmark())["fast"]
    assert fast["speedup"] == pytest.approx(4, rel=0.05)
    assert fast["gflops"] == pytest.approx(200, rel=0.05)
    assert fast["of_peak"] == pytest.approx(0.8, rel=0.05)
    over = {figure.name: figure for figure in _benchmark().figures() if figure.unit == "x"}
    (ratio,) = (figure for name, figure in over.items() if "fast over" in name)
    assert ratio.median == pytest.approx(4, rel=0.1)
    assert len(ratio.samples) == len(_benchmark().samples["fast"])
    assert (fast["cold_s"], fast["load_s"], fast["peak_mb"], fast["file_mb"]) == (0.25, 0.1, 100, 5)
    table = markdown(_benchmark())
    assert "| fast | 80.0 |" in table  # frames a second
    assert "matrix product peak 250 GFLOP/s" in table
    assert "| fast | 0.8900 | 5.00% | 0.250 |" in table
    assert "CPUExecutionProvider 8 (7 Conv, 1 Gemm, ...)" in table
    assert "ms from frame" in svg(_benchmark())
    bare = dataclasses.replace(_benchmark(), quality=None, joules=None)
    assert "AUROC" not in markdown(bare)
    assert figures(bare)["fast"].keys().isdisjoint({"auroc", "joules"})


def test_speed_against_quality_is_drawn(tmp_path: Path) -> None:
    names = [path.name for path in write_benchmark(_benchmark(), tmp_path)]
    assert names == ["benchmark.json", "figures.json", "benchmark.md", "benchmark.svg", "quality.svg"]
    assert "AUROC, 60 images" in (tmp_path / "quality.svg").read_text()
    assert json.loads((tmp_path / "benchmark.json").read_text())["quality"]["changed"] == {"slow": 0.0, "fast": 0.05}


@pytest.mark.heavy
def test_a_lower_precision_runs_beside_the_file(files: Path, examples: Path, tmp_path: Path) -> None:
    lower = export(load_checkpoint(files / "a.pth"), tmp_path / "b.onnx")  # the same network in another file
    images = tmp_path / "images"
    for kind in ("real", "ai"):
        (images / kind).mkdir(parents=True)
        for number in range(90):  # 40 of a class are needed in all, by chance in each half
            source = sorted((examples / kind).iterdir())[number % 7]
            shutil.copy(source, images / kind / f"{number}{source.suffix}")
    out = tmp_path / "out"
    given = ("--engine", "asrnet-edge", "--rounds", 2, "--quality", images, "-o", out)
    code, output = _bench(files / "a.onnx", tmp_path / "b.onnx", *given)
    assert code == 0, output
    results = json.loads((out / "benchmark.json").read_text())
    assert set(results["samples"]) == {"asrnet-edge", "asrnet-edge b.onnx"}
    assert lower.precision == "fp32"
    assert results["quality"]["changed"]["asrnet-edge b.onnx"] == 0
    assert results["quality"]["auroc"]["asrnet-edge"] == results["quality"]["auroc"]["asrnet-edge b.onnx"]
    (operators,) = results["placement"].values()
    assert operators["Conv"] > 3
    code, output = _bench(files / "a.onnx", files / "a.onnx", "--engine", "asrnet-edge", "--rounds", 2)
    assert (code, "different names" in output) == (2, True), output


def test_quality_is_auroc_and_changed_verdicts(files: Path, examples: Path) -> None:
    paths = (*sorted((examples / "real").iterdir()), *sorted((examples / "ai").iterdir()))
    labels = np.array([0] * 7 + [1] * (len(paths) - 7))
    detector = Detector(files / "a.onnx")
    probability = np.array([detector(read_image(path)).probability[0] for path in paths])
    with EngineProcess(Task("asrnet-edge", files / "a.onnx", None, None, 1)) as engine:
        quality = measure_quality({"one": engine, "two": engine}, Images(paths, labels), Decision())
    assert quality.images == len(paths)
    assert quality.auroc["one"] == pytest.approx(roc_auc_score(labels, probability), abs=1e-9)
    assert quality.changed == {"one": 0.0, "two": 0.0}


def test_energy_is_read_from_the_packages_and_may_wrap(tmp_path: Path) -> None:
    for name, value in (("intel-rapl:0", 900), ("intel-rapl:1", 10), ("intel-rapl:0:0", 5)):
        (tmp_path / name).mkdir()
        (tmp_path / name / "energy_uj").write_text(f"{value}\n")
        (tmp_path / name / "max_energy_range_uj").write_text("999\n")
    rapl = Rapl(tmp_path)
    assert rapl.readable
    joules = rapl.start()
    (tmp_path / "intel-rapl:0" / "energy_uj").write_text("100\n")  # past 999
    (tmp_path / "intel-rapl:1" / "energy_uj").write_text("60\n")
    assert joules() == pytest.approx((200 + 50) / 1e6)
    calls: list[int] = []
    assert joules_per_call(rapl, lambda: calls.append(1), seconds=0.01) == 0
    assert calls
    assert not Rapl(tmp_path / "none").readable
    (tmp_path / "intel-rapl:1" / "max_energy_range_uj").unlink()
    assert not Rapl(tmp_path).readable


def test_a_change_is_distinguished_from_noise(tmp_path: Path) -> None:
    earlier = tmp_path / "benchmark.json"
    earlier.write_text(json.dumps(dataclasses.asdict(_benchmark())))
    slower, same = changes(_benchmark(1.2), earlier).splitlines()
    assert slower.startswith("slow: 1.2")
    assert slower.endswith("slower")
    assert same.endswith("no change beyond noise")
