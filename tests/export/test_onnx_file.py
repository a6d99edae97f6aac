"""The exported file has the agreed inputs, outputs and card, and computes what PyTorch computes."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from click.testing import CliRunner

from asr_export.card_text import card_text
from asr_export.cli import export_command
from asr_export.onnx_file import export
from asr_export.stages import stages_in
from asr_models import ASRNetLite, Checkpoint, create_model, default_preprocess, load_checkpoint, multiply_adds
from asr_runtime import Detector
from asr_runtime.contract import CARD_KEY, ModelCard
from asr_runtime.errors import GateError


def test_inputs_and_outputs_are_those_of_the_contract(exported: Path) -> None:
    session = onnxruntime.InferenceSession(exported.read_bytes())
    (frames,) = session.get_inputs()
    assert (frames.name, frames.type, frames.shape) == ("frames", "tensor(uint8)", ["N", "H", "W", 3])
    outputs = [(o.name, o.type, o.shape) for o in session.get_outputs()]
    assert outputs == [("probability", "tensor(float)", ["N"]), ("logits", "tensor(float)", ["N", 2])]


def test_the_file_is_complete_and_holds_no_path_of_this_machine(exported: Path) -> None:
    data = exported.read_bytes()
    model = onnx.load_from_string(data)
    onnx.checker.check_model(model, full_check=True)
    assert not [i for i in model.graph.initializer if i.external_data]
    assert [p.name for p in exported.parent.iterdir() if p.name.startswith("asrnet.onnx")] == ["asrnet.onnx"]
    assert b"site-packages" not in data
    assert str(Path(__file__).parents[2]).encode() not in data


def test_no_fourier_operator_is_left_and_dft_keeps_it(exported: Path, checkpoint: Path, tmp_path: Path) -> None:
    assert "DFT" not in {n.op_type for n in onnx.load(exported).graph.node}
    card = export(load_checkpoint(checkpoint), tmp_path / "dft.onnx", fft="dft")
    assert card.fft == "dft"
    assert "DFT" in {n.op_type for n in onnx.load(tmp_path / "dft.onnx").graph.node}


def test_the_card_travels_with_its_parity(exported: Path, checkpoint: Path) -> None:
    properties = {p.key: p.value for p in onnx.load(exported).metadata_props}
    card = ModelCard.from_json(properties[CARD_KEY])
    assert card == Detector(exported).card
    assert (card.name, card.options, card.preprocess.size) == ("asrnet", {"dim": 8}, 192)
    assert card.checkpoint_sha256 == load_checkpoint(checkpoint).sha256
    assert card.metrics == {"a test set": {"auroc": 0.5}}
    assert card.parity["passed"] is True
    assert card.parity["logits_relative"] <= 1e-5


def test_the_stages_keep_their_names_and_are_no_outputs(exported: Path, checkpoint: Path) -> None:
    model = onnx.load(exported)
    assert stages_in(model) == list(load_checkpoint(checkpoint).deployed().stages())
    assert [output.name for output in model.graph.output] == ["probability", "logits"]


@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 5, 300), (1, 191, 193), (5, 192, 192), (1, 720, 1280)])
def test_any_batch_and_size_gives_pytorchs_numbers(
    exported: Path, checkpoint: Path, shape: tuple[int, int, int]
) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    scores = Detector(exported)(frames)
    with torch.inference_mode():
        probability, logits = load_checkpoint(checkpoint).deployed()(torch.from_numpy(frames))
    np.testing.assert_allclose(scores.logits, logits.numpy(), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(scores.probability, probability.numpy(), atol=1e-5)


@pytest.mark.heavy
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("fft-convnext_tiny", {}),
        ("fft-swin_t", {}),
        ("fft-mobilenet_v3_small", {"spectrum": "patch"}),
        ("fft-efficientnet_b0", {}),
        ("fft-resnet50", {"spectrum": "patch"}),
    ],
)
def test_large_networks_export_within_their_tolerance(tmp_path: Path, name: str, options: dict[str, object]) -> None:
    torch.manual_seed(0)
    network = create_model(name, **options).eval()
    preprocess = {"mode": "crop", "size": 128}  # the graph of 224 pixels, at a third of the time
    card = export(Checkpoint(name, options, preprocess, network), tmp_path / "x.onnx")
    assert card.parity["logits_relative"] <= 5e-5  # promised; the gate allows what rounding can explain
    assert card.parity["explained"] == 0 or "convnext" in name  # its LayerNorm divides by values near 0
    assert card.parity["verdict_flips"] == 0


def test_an_export_that_fails_parity_leaves_no_file(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loaded = load_checkpoint(checkpoint)
    # A tolerance that float32 cannot reach stands for a graph that is wrong.
    monkeypatch.setattr("asr_export.onnx_file.tolerance", lambda *_: 0.0)
    with pytest.raises(GateError, match="not written"):
        export(loaded, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_command_reports_parity_and_refuses_what_is_no_checkpoint(checkpoint: Path, tmp_path: Path) -> None:
    runner = CliRunner()
    done = runner.invoke(export_command, [str(checkpoint), "-o", str(tmp_path / "x.onnx")])
    assert done.exit_code == 0, done.output
    assert "parity" in done.output
    bad = tmp_path / "bad.pth"
    bad.write_bytes(b"garbage")
    before = checkpoint.read_bytes()
    onto_itself = runner.invoke(export_command, [str(checkpoint), "-o", str(checkpoint)])
    assert (onto_itself.exit_code, "is the checkpoint, and would be replaced" in onto_itself.output) == (2, True)
    assert checkpoint.read_bytes() == before
    refused = runner.invoke(export_command, [str(bad), "-o", str(tmp_path / "y.onnx")])
    assert refused.exit_code == 2
    assert refused.output.count("\n") == 1
    assert "bad.pth" in refused.output
    assert not (tmp_path / "y.onnx").exists()


def test_kernels_that_fit_into_sixteen_bits_are_stored_so_and_nothing_is_lost(tmp_path: Path) -> None:
    options = {"blocks": 6, "activations": [2, 4], "correlations": 3}
    network = ASRNetLite(blocks=6, activations=[2, 4], correlations=3)
    network.load_pretrained("imagenet")
    facts = {
        "calibration": {"temperature": 1.0, "shift": 0.0, "fitted_on": "nothing"},
        "decision": {"real_below": 0.4, "ai_from": 0.6, "rule": "a test"},
    }
    preprocess = {**default_preprocess("asrnet-lite"), "size": 64}
    checkpoint = Checkpoint("asrnet-lite", options, preprocess, network.eval(), **facts)
    path = tmp_path / "lite.onnx"
    card = export(checkpoint, path, metrics={"a test": {"protocol": {"data": "pictures"}, "generators": {}}})
    kernels = sum(p.numel() for p in network.trunk.parameters() if p.ndim == 4)
    types = Counter()
    for tensor in onnx.load(path).graph.initializer:
        types[tensor.data_type] += int(np.prod(tensor.dims))
    assert types[onnx.TensorProto.FLOAT16] >= kernels
    assert types[onnx.TensorProto.FLOAT] < 0.2 * kernels
    assert stages_in(onnx.load(path)) == list(checkpoint.deployed().stages())
    assert card.parity["logits_relative"] < 1e-5
    page = card_text(card, "lite", path.stat().st_size, multiply_adds(checkpoint))
    assert page.startswith("# lite\n")
    assert "### a test" in page
    assert "never evidence" in page
    stem = 32 * 27 * 32 * 32  # channels x taps x outputs of the first convolution at 64 px
    assert multiply_adds(checkpoint) > stem
    assert multiply_adds(checkpoint) < 125_461_952 * (64 / 224) ** 2 * 1.2  # six blocks at 224 px, counted by hand
