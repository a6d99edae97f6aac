"""Parity: every engine gives the same numbers; where one does not, the report names the first stage that differs."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from click.testing import CliRunner

from asr_export.answers import Answers, answers, difference, onnxruntime, pytorch
from asr_export.cli import parity_command
from asr_export.engines import ENGINES, engine, installed_engines
from asr_export.onnx_file import export
from asr_export.parity import Parity, explain, judge, tolerance
from asr_export.parity_inputs import Frames, adversarial_frames, packaged_images, real_frames
from asr_export.stages import stage_errors
from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint
from asr_models.spectrum import FullMagnitude, HalfMagnitude
from asr_runtime import Detector
from asr_runtime.contract import Calibration, Decision, ModelCard, OperatingPoint, Preprocess


def _parity(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(parity_command, [str(a) for a in arguments])
    return done.exit_code, done.output


def test_the_inputs_are_real_and_awkward(examples: Path) -> None:
    real, awkward = list(real_frames(examples)), list(adversarial_frames(64))
    assert len({batch.name for batch in (*real, *awkward)}) == len(real) + len(awkward)
    assert {len(batch.frames) for batch in real} == {1, 2, 5}
    assert any("pan.mp4, frame" in batch.name for batch in real)
    assert {batch.frames.shape[1:3] for batch in awkward} >= {(1, 1), (64, 64)}
    assert all(batch.frames.dtype == np.uint8 and batch.frames.ndim == 4 for batch in (*real, *awkward))
    ranges = {batch.name: int(np.ptp(batch.frames)) for batch in awkward}
    assert (ranges["black"], ranges["white"], ranges["grey but for one level"], ranges["noise"]) == (0, 0, 1, 255)


@pytest.mark.parametrize("name", ENGINES)
def test_every_engine_computes_what_pytorch_computes(exported: Path, checkpoint: Path, name: str) -> None:
    loaded, detector = load_checkpoint(checkpoint), Detector(exported)
    batches = [*real_frames(packaged_images()), *adversarial_frames(192)][:: 4 if name == "onnx-reference" else 1]
    tested = answers(engine(name, exported.read_bytes()), batches)
    expected = answers(pytorch(loaded.deployed()), batches)
    parity = judge(tested, expected, detector.card, tolerance(loaded.network))
    assert parity.passed, parity
    assert parity.logits_relative < 1e-5


def test_a_wrong_weight_is_found_in_its_stage(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    loaded = load_checkpoint(checkpoint)
    with torch.no_grad():
        loaded.network.get_parameter("stage2.3.weight")[0, 0, 0, 0] += 0.5
    save_checkpoint(tmp_path / "other.pth", loaded)
    code, output = _parity(tmp_path / "other.pth", exported, "--engine", "onnxruntime", "--report", tmp_path / "p.json")
    assert code == 1
    assert output.startswith("FAILED: onnxruntime")
    assert "first stage beyond its budget" in output
    assert "network.stage2," in output
    report = json.loads((tmp_path / "p.json").read_text())
    assert report["first_stage_beyond_budget"] == "network.stage2"
    within = [stage["name"] for stage in report["stages"] if stage["relative"] <= stage["budget"]]
    assert within == ["preprocess", "network.res_extractor", "network.stage1"]


def test_a_fault_in_the_spectral_block_is_distinguished_from_one_before_it(exported: Path, checkpoint: Path) -> None:
    model = onnx.load(exported)
    (root,) = [node for node in model.graph.node if node.op_type == "Sqrt"]
    root.op_type = "Abs"  # forgets the square root of the power
    frames = next(iter(real_frames(packaged_images()))).frames
    loaded = load_checkpoint(checkpoint)
    errors = stage_errors(loaded.deployed(), model.SerializeToString(), frames, tolerance(loaded.network))
    assert [error.name for error in errors if not error.within] == ["network.spec_stat.magnitude", "logits"]


def test_the_command_compares_every_engine_and_writes_a_report(
    exported: Path, checkpoint: Path, tmp_path: Path
) -> None:
    code, output = _parity(checkpoint, exported, "--report", tmp_path / "new" / "p.json")
    assert code == 0, output
    assert [line.split(":")[0] for line in output.splitlines()] == ["passed"] * len(installed_engines())
    report = json.loads((tmp_path / "new" / "p.json").read_text())
    assert set(report["engines"]) == set(installed_engines())
    pairs = {(d["engine"], d["reference"]) for d in report["differences"]}
    assert pairs >= {("onnxruntime", "PyTorch float32"), ("PyTorch float32", "PyTorch float64")}
    for d in report["differences"]:
        assert 0 <= d["logits"]["mean"] <= d["logits"]["p99.9"] <= d["logits"]["max"] < 1e-4
        assert len(d["worst"]) == 5
        assert d["worst"][0][1] == d["logits"]["max"]
        assert set(d["flips"]) == {"real below", "ai from", "5% false positives", "verdict"}
    text = (tmp_path / "new" / "p.md").read_text()
    assert "Worst frames of onnxruntime" in text
    assert str(tmp_path) not in text
    assert (tmp_path / "new" / "p.svg").read_text().lstrip().startswith("<?xml")


def test_another_checkpoint_fails_at_its_first_weights(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    torch.manual_seed(5)
    loaded = load_checkpoint(checkpoint)
    other = Checkpoint("asrnet", loaded.options, loaded.preprocess, create_model("asrnet", dim=8).eval())
    save_checkpoint(tmp_path / "other.pth", other)
    code, output = _parity(tmp_path / "other.pth", exported, "--engine", "onnxruntime")
    assert (code, "network.res_extractor" in output) == (1, True), output


@pytest.mark.parametrize("given", ["nothing.onnx", "no images", "not installed"])
def test_what_cannot_be_compared_is_refused_in_one_line(
    exported: Path, checkpoint: Path, tmp_path: Path, given: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    arguments: list[object] = [checkpoint, exported]
    if given == "nothing.onnx":
        arguments[1] = tmp_path / given
    elif given == "no images":
        (tmp_path / given).mkdir()
        arguments += ["--images", tmp_path / given]
    else:
        monkeypatch.setitem(__import__("sys").modules, "openvino", None)
        arguments += ["--engine", "openvino"]
    code, output = _parity(*arguments)
    assert code == 2
    assert len(output.strip().splitlines()) == 1
    assert {"nothing.onnx": "nothing.onnx", "no images": "no image", "not installed": "OpenVINO"}[given] in output


def _card(precision: str = "fp32") -> ModelCard:
    return ModelCard(
        name="asrnet",
        options={},
        preprocess=Preprocess("crop", 192),
        calibration=Calibration(1.0, 0.0, "nothing"),
        decision=Decision(0.4, 0.6, "a test's"),
        operating_points=(OperatingPoint(0.05, 0.7, 0.5),),
        training={},
        metrics={},
        checkpoint_sha256="",
        tool_versions={},
        fft="matmul",
        precision=precision,
    )


def _answers(probability: list[float], real: list[bool] | None = None) -> Answers:
    p = np.array(probability)
    logits = np.stack([np.zeros_like(p), np.log(p / (1 - p))], axis=1)
    names = tuple(f"frame {i}" for i in range(len(p)))
    return Answers(names, np.array(real or [True] * len(p)), p, logits)


def test_flips_are_counted_at_every_threshold_and_on_real_frames_only() -> None:
    reference = _answers([0.39, 0.59, 0.69, 0.2, 0.59], [True, True, True, True, False])
    tested = _answers([0.41, 0.61, 0.71, 0.2, 0.61], [True, True, True, True, False])
    flips = difference(tested, reference, _card()).flips
    assert flips == {"real below": 1, "ai from": 1, "5% false positives": 1, "verdict": 2}


def test_below_float32_as_many_verdicts_may_differ_as_a_copy_at_jpeg_96_changes() -> None:
    card = dataclasses.replace(_card("int8"), metrics={"int8 against fp32": {"changed_by_jpeg_96": 0.005}})
    reference, tested = _answers([0.59] * 1000), _answers([0.61] * 5 + [0.59] * 995)
    assert not judge(tested, reference, _card("fp32"), 1.0).passed
    assert not judge(tested, reference, _card("int8"), 1.0).passed
    assert judge(tested, reference, card, 1.0).passed
    assert not judge(_answers([0.61] * 6 + [0.59] * 994), reference, card, 1.0).passed


def test_awkward_frames_are_distinguished_and_must_be_numbers() -> None:
    real = [True, True, False]
    reference, tested = _answers([0.3, 0.7, 0.2], real), _answers([0.3, 0.7, 0.9], real)
    parity = judge(tested, reference, _card(), 1e-5)
    assert parity.passed
    assert parity.logits_relative == 0.0
    assert parity.awkward_relative > 1
    broken = Answers(
        tested.names, tested.real, tested.probability, tested.logits + np.array([[0, 0], [0, 0], [0, np.nan]])
    )
    assert not judge(broken, reference, _card(), 1e-5).passed


def test_nan_never_passes() -> None:
    reference = _answers([0.3, 0.7])
    broken = Answers(reference.names, reference.real, np.array([0.3, np.nan]), reference.logits * np.nan)
    assert not judge(broken, reference, _card(), 1.0).passed


def _apart(margins: list[float], off: list[float], real: list[bool]) -> tuple[Answers, Answers]:
    """Answers of PyTorch with these margins, and of a file whose margins and probabilities are off by so much."""
    logits = np.array([[0.0, margin] for margin in margins])
    names = tuple(f"frame {i}" for i in range(len(margins)))
    reference = Answers(names, np.array(real), np.full(len(margins), 0.5), logits)
    added = np.array(off)
    tested = dataclasses.replace(reference, probability=0.5 + added / 100, logits=logits + np.outer(added, [0.0, 1.0]))
    return tested, reference


def test_differences_by_hand() -> None:
    margins, off = [0.0, 4.0, -2.0, 1.0, 1.0, 1.0, 9.0], [0.1, 0.0, 0.3, 0.2, 0.0, 0.0, 0.6]
    tested, reference = _apart(margins, off, [True] * 6 + [False])
    figures = difference(tested, reference, _card())
    assert figures.logits["max"] == pytest.approx(0.6)
    assert figures.logits["mean"] == pytest.approx(1.2 / 7)
    assert figures.logits["p99.9"] == pytest.approx(np.quantile(off, 0.999))
    assert figures.logits["max of spread"] == pytest.approx(0.6 / 6)  # real margins lie from -2 to 4
    assert figures.probability["max"] == pytest.approx(0.006)
    assert [name for name, _ in figures.worst] == ["frame 6", "frame 2", "frame 3", "frame 0", "frame 1"]
    assert [value for _, value in figures.worst] == pytest.approx([0.6, 0.3, 0.2, 0.1, 0.0])
    alike = difference(*_apart([1.0, 1.0, 5.0], [0.1, 0.0, 0.0], [True, True, False]), _card())
    assert alike.logits["max of spread"] is None
    assert Answers((), np.zeros(0, bool), np.zeros(0), np.zeros((0, 2))).spread == 0.0
    some = tested.among({"frame 2", "frame 6"})
    assert (some.names, some.real.tolist()) == (("frame 2", "frame 6"), [True, False])
    assert some.logits.tolist() == tested.logits[[2, 6]].tolist()


def test_a_judgement_by_hand() -> None:
    tested, reference = _apart([0.0, 4.0, -2.0, 8.0], [0.1, 0.0, 0.2, 0.4], [True, True, True, False])
    parity = judge(tested, reference, _card(), 0.03)
    assert (parity.frames, parity.explained, parity.verdict_flips, parity.flips_allowed) == (4, 0, 0, 0)
    assert parity.logits_absolute == pytest.approx(0.2)
    assert parity.logits_relative == pytest.approx(0.2 / 8)  # of the largest logit
    assert parity.awkward_relative == pytest.approx(0.4 / 8)
    assert parity.probability_absolute == pytest.approx(0.002)  # of the real frames
    left_out = judge(tested, reference, _card(), 0.03, {"frame 2", "frame 3"})
    assert (left_out.explained, left_out.logits_absolute) == (1, pytest.approx(0.1))
    every = judge(tested, reference, _card(), 0.03, {"frame 0", "frame 1", "frame 2"})
    assert (every.explained, every.logits_relative) == (3, 0.0)
    small = judge(*_apart([0.1, 0.2], [0.01, 0.0], [True, True]), _card(), 0.03)
    assert (small.logits_relative, small.awkward_relative) == (pytest.approx(0.01), 0.0)  # below 1 the absolute counts


@pytest.mark.parametrize(
    ("changed", "passes"),
    [
        ({}, True),
        ({"logits_relative": 0.011}, False),
        ({"verdict_flips": 2}, True),
        ({"verdict_flips": 3}, False),
        ({"awkward_relative": 1e9}, True),
        ({"awkward_relative": np.inf}, False),
        ({"logits_relative": np.nan}, False),
    ],
)
def test_what_passes_lies_at_most_at_the_tolerance(changed: dict[str, float], passes: bool) -> None:
    at_most = Parity(10, 0.01, 0.02, 0.001, 0, 0.01, flips_allowed=2)
    parity = dataclasses.replace(at_most, **changed)  # type: ignore[arg-type]
    assert parity.passed is passes
    assert parity.to_dict()["passed"] is passes
    assert "left out" not in str(parity)
    assert "3 frames on which PyTorch rounds as badly" in str(dataclasses.replace(parity, explained=3))
    plain = Parity(10, 0.01, 0.02, 0.001, 0, 0.01)
    assert (plain.flips_allowed, plain.awkward_relative, plain.explained) == (0, 0.0, 0)


def test_frames_of_a_batch_are_named_by_number() -> None:
    frames = np.zeros((2, 3, 3, 3), np.uint8)
    asked = answers(
        lambda batch: (np.full(len(batch), 0.25), np.ones((len(batch), 2))),
        [Frames("one", frames[:1]), Frames("two", frames, False)],
    )
    assert asked.names == ("one", "two, number 1", "two, number 2")
    assert asked.real.tolist() == [True, False, False]
    assert (asked.probability.shape, asked.logits.shape) == ((3,), (3, 2))


def test_the_tolerance_below_float32_counts_layers() -> None:
    layers = torch.nn.Sequential(torch.nn.Linear(3, 5), torch.nn.ReLU(), torch.nn.Linear(5, 2), torch.nn.LayerNorm(2))
    assert tolerance(layers) == pytest.approx(4 * 2.0**-24 * 8**0.5)  # sums of 3 and of 5
    assert tolerance(layers, "int8") == pytest.approx(4 * 2.0**-9 * 2**0.5)
    assert tolerance(torch.nn.ReLU()) == 4 * 2.0**-24


class _Cancelling(torch.nn.Module):
    """Adds and takes away a large number where a frame is dark: there float32 keeps few digits of the mean."""

    def __init__(self) -> None:
        super().__init__()
        self.large = torch.nn.Parameter(torch.tensor(3e5))

    def forward(self, frames: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        mean = frames.to(self.large.dtype).mean(dim=(1, 2, 3)) / 255
        large = torch.where(mean < 0.5, self.large, 0)
        margin = mean + large - large
        return torch.sigmoid(margin), torch.stack([torch.zeros_like(margin), margin], dim=1)


def test_a_frame_on_which_pytorch_itself_rounds_badly_is_explained() -> None:
    rng = np.random.default_rng(0)
    dark, bright = (rng.integers(*levels, (1, 5, 7, 3), dtype=np.uint8) for levels in ((0, 80), (180, 255)))
    batches = [Frames("dark", dark), Frames("dark too", np.repeat(dark, 2, axis=0)), Frames("bright", bright)]
    network = _Cancelling()
    reference = answers(pytorch(network), batches)  # type: ignore[arg-type]
    exact = answers(pytorch(network, torch.float64), batches)  # type: ignore[arg-type]
    off = np.abs(reference.logits - exact.logits).max(axis=1)
    assert off[0] > 1e-3 > 1e-6 > off[-1]

    def explained(*added: float) -> frozenset[str]:
        logits = exact.logits + np.array([[0.0, a] for a in added])
        tested = Answers(exact.names, exact.real, exact.probability, logits)
        names = explain(tested, reference, network, batches, 1e-5)  # type: ignore[arg-type]
        parity = judge(tested, reference, _card(), 1e-5, names)
        assert parity.explained == len(names)
        assert parity.passed == (names == {"dark", "dark too, number 1", "dark too, number 2"})
        return names

    assert explained(0, 0, 0, 0) == {"dark", "dark too, number 1", "dark too, number 2"}
    assert explained(1.9 * off[0], 0, 0, 0) == {"dark", "dark too, number 1", "dark too, number 2"}
    assert "dark" not in explained(4 * off[0], 0, 0, 0)
    assert explained(0, 0, 0, 0.1) == frozenset()  # PyTorch is exact on the bright one, so the file is wrong
    assert explained(float("nan"), 0, 0, 0) != {"dark", "dark too, number 1", "dark too, number 2"}


def test_a_frame_at_the_tolerance_needs_no_explanation() -> None:
    reference, tested = (Answers(("a",), np.array([True]), np.array([0.5]), np.array([[0.0, m]])) for m in (4.0, 4.5))
    nothing = torch.nn.Identity()
    assert explain(tested, reference, nothing, [], 0.125) == frozenset()  # type: ignore[arg-type]
    with pytest.raises(IndexError):  # beyond it, the frame is looked at
        explain(tested, reference, nothing, [], 0.124)  # type: ignore[arg-type]


def test_the_tolerance_of_a_transform_is_that_of_its_sides() -> None:
    assert tolerance(HalfMagnitude()) == tolerance(FullMagnitude(shift=True)) == 4 * 2.0**-24 * 448**0.5


def test_the_tolerance_follows_from_the_lengths_of_the_sums() -> None:
    sums = 3 * 25 + 9 * (32 + 8 + 8 + 16 + 16 + 32)  # of the convolutions of an ASRNet of 8 channels
    head, transform = 8 * 8 + 4, 2 * 224
    expected = 4 * 2.0**-24 * (sums + 2 * head + transform) ** 0.5
    assert tolerance(create_model("asrnet", dim=8)) == pytest.approx(expected, rel=0.02)
    assert tolerance(create_model("asrnet", dim=8), "int8") > 100 * expected


@pytest.mark.heavy
@pytest.mark.parametrize("name", ["fft-resnet34", "asrnet-lite"])
def test_the_promised_parity_of_full_size_networks(tmp_path: Path, name: str) -> None:
    torch.manual_seed(0)
    network = create_model(name).eval()
    checkpoint = Checkpoint(name, {}, default_preprocess(name), network)
    card = export(checkpoint, tmp_path / "x.onnx")
    assert (card.parity["logits_relative"] <= 5e-5, card.parity["verdict_flips"]) == (True, 0)
    batches = list(real_frames(packaged_images()))[:3]
    tested = answers(onnxruntime(Detector(tmp_path / "x.onnx")), batches)
    exact = answers(pytorch(checkpoint.deployed(), torch.float64), batches)
    rounding = np.abs(answers(pytorch(checkpoint.deployed()), batches).logits - exact.logits).max()
    # The file may be some times as far from the exact logits as PyTorch is.
    assert np.abs(tested.logits - exact.logits).max() < 5 * rounding + 1e-6
