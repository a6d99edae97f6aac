"""Files of lower precision: verdicts stay, only convolutions change, and a file that costs too much is not written."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
from click.testing import CliRunner
from runtime_samples import WHOLE_CARD, build_model

from asr_export.card_text import card_text
from asr_export.cli import export_command, parity_command
from asr_export.precision_gate import (
    Float32,
    Images,
    calibrated,
    float32_scores,
    jpeg_copy,
    judged,
    labelled_halves,
    looks,
)
from asr_export.quantise import _named
from asr_export.stages import stages_in
from asr_models import load_checkpoint
from asr_runtime import Detector, read_image
from asr_runtime.contract import CARD_KEY, Calibration, Decision
from asr_runtime.errors import ConfigurationError
from asr_runtime.inference.builtin import builtin_path
from asr_runtime.inference.looking import Look
from asr_runtime.inference.onnxruntime_engine import open_session


@pytest.fixture(scope="session")
def calibration(tmp_path_factory: pytest.TempPathFactory, examples: Path) -> Path:
    """Windows of photos as real pictures, and the same windows with strong noise as generated ones."""
    folder = tmp_path_factory.mktemp("calibration")
    rng = np.random.default_rng(0)
    photos = [read_image(path) for path in sorted((examples / "real").iterdir())]
    for number in range(48):
        photo = photos[number % len(photos)]
        top, left = (int(rng.integers(0, max(1, side - 200))) for side in photo.shape[:2])
        window = photo[top : top + 200, left : left + 200]
        noisy = np.clip(window + rng.normal(0, 60, window.shape), 0, 255).astype(np.uint8)
        for name, image in (("nature", window), ("ai", noisy)):
            (folder / name).mkdir(exist_ok=True)
            cv2.imwrite(str(folder / name / f"{number}.png"), image)
    return folder


def _export(*arguments: object) -> tuple[int, str]:
    done = CliRunner().invoke(export_command, [str(a) for a in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def test_a_file_of_lower_precision_keeps_its_verdicts(
    checkpoint: Path, exported: Path, calibration: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    code, output = _export(checkpoint, "-o", path, "--precision", "int8", "--calibration-images", calibration)
    assert code == 0, output
    card = Detector(path).card
    figures = card.metrics["int8 against fp32"]
    assert card.precision == "int8"
    assert figures["passed"] is True
    assert figures["auroc"] == pytest.approx(figures["auroc_float32"], abs=0.003)
    assert figures["changed"] <= figures["changed_by_jpeg_96"]
    assert figures["reversed"] == 0
    frames = read_image(next((calibration / "nature").iterdir()))[None]
    low, full = Detector(path)(frames).logits, Detector(exported)(frames).logits
    assert 0 < np.abs(low - full).max() < 0.1 * np.abs(full).max()


@pytest.mark.bf16
def test_a_file_that_passes_for_bf16_stays_in_float32_and_says_so(
    checkpoint: Path, exported: Path, calibration: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    code, output = _export(checkpoint, "-o", path, "--precision", "bf16", "--calibration-images", calibration)
    assert code == 0, output
    low, full = Detector(path, precision="bf16"), Detector(exported)
    assert low.card.precision == "fp32"
    assert low.card.parity["passed"] is True
    figures = low.card.metrics["bf16 against fp32"]
    assert figures["passed"] is True
    assert figures["changed"] <= figures["changed_by_jpeg_96"]
    assert "by OpenVINO 20" in figures["how"]
    page = card_text(dataclasses.replace(low.card, training={}), "x", 1, 1.0)
    assert f"{figures['changed']:.2%} of the verdicts change (JPEG 96 changes " in page
    # What the gate judged is what the runtime computes.
    _, holdout = labelled_halves(calibration)
    images = [read_image(path) for path in holdout.paths]
    errors = [abs(float(low(image).probability[0] - full(image).probability[0])) for image in images]
    assert figures["probability"] == pytest.approx(np.mean(errors), rel=0.02)
    assert max(errors) > 1e-5
    assert np.array_equal(Detector(path)(images[0]).logits, full(images[0]).logits)


@pytest.mark.bf16
def test_an_exported_file_can_be_judged_and_lowered_later(exported: Path, calibration: Path, tmp_path: Path) -> None:
    path, low = tmp_path / "bf16.onnx", tmp_path / "int8.onnx"
    code, output = _export(exported, "-o", path, "--precision", "bf16", "--calibration-images", calibration)
    assert code == 0, output
    before, after = Detector(exported).card, Detector(path, precision="bf16").card
    assert onnx.load(path).graph == onnx.load(exported).graph
    figures = after.metrics["bf16 against fp32"]
    assert f"AUROC {figures['auroc']:.4f}" in output
    assert after == dataclasses.replace(before, metrics={**before.metrics, "bf16 against fp32": figures})
    code, output = _export(path, "--card", tmp_path / "bf16.md")
    assert code == 0, output
    assert f"AUROC {figures['auroc']:.4f} (float32 " in (tmp_path / "bf16.md").read_text()
    code, output = _export(path, "-o", low, "--precision", "int8", "--calibration-images", calibration)
    assert code == 0, output
    card = Detector(low).card
    assert (card.precision, card.metrics["int8 against fp32"]["passed"]) == ("int8", True)
    assert card.parity["reference"] == "the float32 file, in onnxruntime"
    assert 0 < card.parity["logits_relative"] < 0.2
    code, output = _export(low, "-o", low, "--precision", "bf16", "--calibration-images", calibration)
    assert (code, "is in int8; expected a float32 file" in output) == (2, True)
    code, output = _export(exported, "-o", low, "--precision", "bf16")
    assert (code, "--calibration-images DIR" in output) == (2, True)


def test_the_quantiser_reads_kernels_that_are_stored_in_16_bits(examples: Path) -> None:
    model = onnx.load(builtin_path("asrnet-lite-tiny"))
    constants = {tensor.name for tensor in model.graph.initializer}
    stored = [node for node in model.graph.node if node.op_type == "Cast" and node.input[0] in constants]
    assert len(stored) == sum(node.op_type == "Conv" for node in model.graph.node) > 30  # as `asr-export` writes them
    named = _named(model)
    kernels = {tensor.name: tensor.data_type for tensor in named.graph.initializer}
    assert {kernels[node.input[1]] for node in named.graph.node if node.op_type == "Conv"} == {onnx.TensorProto.FLOAT}
    frames = {"frames": read_image(next((examples / "real").iterdir()))[None]}
    before, after = (open_session(m.SerializeToString(), "cpu").run(["logits"], frames)[0] for m in (model, named))
    assert np.array_equal(before, after)


def test_bf16_needs_openvino_and_images(
    checkpoint: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    code, output = _export(checkpoint, "-o", tmp_path / "x.onnx", "--precision", "bf16")
    assert (code, "labelled images" in output) == (2, True)
    monkeypatch.setitem(sys.modules, "openvino", None)
    arguments = ("--precision", "bf16", "--calibration-images", calibration)
    code, output = _export(checkpoint, "-o", tmp_path / "x.onnx", *arguments)
    assert (code, "pip install 'asrnet-edge[openvino]'" in output) == (2, True)
    assert not (tmp_path / "x.onnx").exists()


def test_only_convolutions_are_quantised_and_the_stages_stay(
    checkpoint: Path, calibration: Path, tmp_path: Path
) -> None:
    path = tmp_path / "x.onnx"
    assert _export(checkpoint, "-o", path, "--precision", "int8", "--calibration-images", calibration)[0] == 0
    model = onnx.load(path)
    made_by = {name: node.op_type for node in model.graph.node for name in node.output}
    inputs = Counter(
        (node.op_type, made_by.get(name)) for node in model.graph.node for name in node.input if name in made_by
    )
    assert inputs["Conv", "DequantizeLinear"] > 0
    assert not [
        kind for kind, source in inputs if source == "DequantizeLinear" and kind in ("MatMul", "Sqrt", "ReduceL2")
    ]
    assert stages_in(model) == list(load_checkpoint(checkpoint).deployed().stages())
    weights = [t for t in model.graph.initializer if t.name.endswith("_quantized") and len(t.dims) == 4]
    scales = {t.name: t for t in model.graph.initializer}
    for weight in weights:
        scale = scales[weight.name.removesuffix("_quantized") + "_scale"]
        assert list(scale.dims) == [weight.dims[0]]  # per channel
    # The card has the sensitivity of every convolution.
    (card,) = [json.loads(p.value) for p in model.metadata_props if p.key == CARD_KEY]
    assert len(card["metrics"]["int8 against fp32"]["sensitivity"]) == 7


def test_parity_says_where_a_quantised_file_leaves_pytorch(checkpoint: Path, calibration: Path, tmp_path: Path) -> None:
    path = tmp_path / "x.onnx"
    assert _export(checkpoint, "-o", path, "--precision", "int8", "--calibration-images", calibration)[0] == 0
    report = tmp_path / "p.json"
    CliRunner().invoke(parity_command, [str(checkpoint), str(path), "--engine", "onnxruntime", "--report", str(report)])
    stages = {stage["name"]: stage["relative"] for stage in json.loads(report.read_text())["stages"]}
    assert stages["preprocess"] < 1e-6
    assert stages["network.res_extractor"] > 1e-4 or stages["network.stage3"] > 1e-4


@pytest.mark.parametrize("precision", ["int8", pytest.param("bf16", marks=pytest.mark.bf16)])
def test_what_costs_too_much_is_not_written(
    checkpoint: Path, calibration: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, precision: str
) -> None:
    monkeypatch.setattr("asr_export.precision_gate._AUROC_DROP", -1.0)  # no file can reach it
    path = tmp_path / "x.onnx"
    code, output = _export(checkpoint, "-o", path, "--precision", precision, "--calibration-images", calibration)
    assert code == 1
    assert f"{precision}: not written" in output
    assert not path.exists()


@pytest.mark.parametrize("given", ["none", "unlabelled"])
def test_labelled_images_are_asked_for(checkpoint: Path, examples: Path, tmp_path: Path, given: str) -> None:
    more = [] if given == "none" else ["--calibration-images", examples / "video"]
    code, output = _export(checkpoint, "-o", tmp_path / "x.onnx", "--precision", "int8", *more)
    assert code == 2
    assert len(output.strip().splitlines()) == 1
    assert ("labelled images" if given == "none" else "expected at least 40 of each class") in output


def test_the_halves_share_no_image_and_hold_both_classes(calibration: Path, examples: Path) -> None:
    first, second = labelled_halves(calibration)
    assert not set(first.paths) & set(second.paths)
    assert len(first.paths) + len(second.paths) == 96
    for half in (first, second):
        assert set(half.labels.tolist()) == {0, 1}
        assert all(
            (label == 1) == (path.parent.name == "ai") for path, label in zip(half.paths, half.labels, strict=True)
        )
    with pytest.raises(ConfigurationError, match="expected at least 40"):
        labelled_halves(examples)


_REAL, _UNSURE, _AI = 0.1, 0.5, 0.9  # probabilities of the three verdicts


def _looks(probabilities: list[float]) -> list[Look]:
    decision = Decision(real_below=0.3, ai_from=0.7)
    return [Look("centre", 0.0, p, decision.verdict(p), ()) for p in probabilities]


@pytest.mark.parametrize(
    ("lower", "of_copies", "passed"),
    [
        ([_REAL, _UNSURE, _AI, _AI], [_REAL, _UNSURE, _AI, _AI], True),  # nothing changes
        (
            [_UNSURE, _UNSURE, _AI, _AI],
            [_REAL, _UNSURE, _UNSURE, _AI],
            True,
        ),  # one verdict changes, and JPEG changes one
        ([_UNSURE, _UNSURE, _AI, _AI], [_REAL, _UNSURE, _AI, _AI], False),  # one verdict changes, and JPEG changes none
        ([_REAL, _UNSURE, _AI, _REAL], [_UNSURE, _UNSURE, _AI, _AI], False),  # one from ai to real
        ([_REAL, _UNSURE, _AI, _REAL], [_REAL, _UNSURE, _AI, _UNSURE], False),  # JPEG doubts it too, but AUROC falls
    ],
)
def test_the_gate_compares_with_what_jpeg_changes(lower: list[float], of_copies: list[float], passed: bool) -> None:
    float32 = Float32(_looks([_REAL, _UNSURE, _AI, _AI]), _looks(of_copies))
    images = Images((Path("a"), Path("b"), Path("c"), Path("d")), np.array([0, 0, 1, 1]))
    gate = judged("int8", _looks(lower), float32, images, "all")
    assert gate.passed is passed
    assert gate.reversed == int(lower[3] == _REAL and of_copies[3] == _AI)


def test_jpeg_copies_are_other_pictures(exported: Path, calibration: Path) -> None:
    images, _ = labelled_halves(calibration)
    float32 = float32_scores(onnx.load(exported), Detector(exported).card, images.paths[:8])
    pairs = zip(float32.looks, float32.of_copies, strict=True)
    differences = [abs(look.probability - copy.probability) for look, copy in pairs]
    assert 0 < max(differences) < 0.2


def test_images_are_judged_as_asr_screen_looks_at_them_by_default(tmp_path: Path) -> None:
    card = dataclasses.replace(WHOLE_CARD, whole=dataclasses.replace(WHOLE_CARD.whole, is_default=True))  # type: ignore[type-var]
    image = np.full((160, 200, 3), 40, np.uint8)
    image[40:120, 60:140] = 220  # the centre alone is bright, which this model calls generated
    image += np.random.default_rng(0).integers(0, 20, image.shape, dtype=np.uint8)
    cv2.imwrite(str(path := tmp_path / "bright_centre.png"), image)
    model = onnx.load_from_string(build_model(card))
    (whole,) = float32_scores(model, card, [path]).looks
    (centre,) = looks(model, dataclasses.replace(card, whole=None), [path], "centre")
    detector = Detector(build_model(card), device="cpu")
    assert whole == detector.look(image)
    assert centre == detector.look(image, "centre")
    assert (whole.kind, centre.kind) == ("whole", "centre")
    again = calibrated([centre, whole], card)
    assert [look.probability for look in again] == pytest.approx([centre.probability, whole.probability], abs=1e-6)
    assert [look.verdict for look in again] == [centre.verdict, whole.verdict]
    other = dataclasses.replace(card, whole=dataclasses.replace(card.whole, calibration=Calibration(1.0, -50.0)))
    assert [look.verdict for look in calibrated([centre, whole], other)] == [centre.verdict, "real"]


@pytest.mark.parametrize(("side", "is_copied"), [(65_500, True), (65_501, False)])
def test_what_is_larger_than_a_jpeg_can_be_stands_for_its_copy(
    exported: Path, tmp_path: Path, side: int, is_copied: bool
) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, side, 3), dtype=np.uint8)
    for number, picture in enumerate((noise, noise.transpose(1, 0, 2))):
        assert np.array_equal(jpeg_copy(picture), picture) is not is_copied
        cv2.imwrite(str(path := tmp_path / f"{number}.png"), picture)
        found = float32_scores(onnx.load(exported), Detector(exported).card, [path])
        assert (found.of_copies == found.looks) is not is_copied


def test_parity_does_not_load_openvino() -> None:
    code = "import sys, asr_export.cli, asr_export.parity_report; sys.exit('openvino' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
