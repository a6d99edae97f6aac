"""A file is refused unless its card and graph keep the contract; what is scored is what the graph says."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from runtime_samples import CARD, build_model, shade

from asr_runtime import Detector
from asr_runtime.contract import Calibration
from asr_runtime.errors import ConfigurationError, DeviceError, InferenceError, ModelError
from asr_runtime.inference.self_contained import check_self_contained


def grey(level: int, *shape: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return np.full((*shape, 3), level, np.uint8)


@settings(deadline=None)
@given(level=st.integers(0, 255), count=st.integers(1, 4), height=st.integers(1, 70), width=st.integers(1, 70))
def test_scores_are_those_of_the_graph(detector: Detector, level: int, count: int, height: int, width: int) -> None:
    scores = detector(grey(level, count, height, width))
    margin = 8 * (level / 255 - 0.5)
    expected = 1 / (1 + np.exp(-(margin / 2.0 + 0.25)))
    assert scores.probability.dtype == scores.logits.dtype == np.float32
    assert scores.logits == pytest.approx(np.tile([0, margin], (count, 1)), abs=1e-4)
    assert scores.probability == pytest.approx(np.full(count, expected), abs=1e-5)
    assert scores.verdicts == ("unsure",) * count, "one colour is nothing to judge"
    assert all(scores.reasons)


@pytest.mark.parametrize("level", range(12, 255, 20))
def test_the_verdict_of_a_picture_is_by_the_rule_of_the_card(detector: Detector, level: int) -> None:
    scores = detector(shade(level))
    assert scores.verdicts == (CARD.decision.verdict(float(scores.probability[0])),)
    assert scores.reasons == (None,)


def test_a_single_frame_needs_no_batch_dimension(detector: Detector) -> None:
    assert np.array_equal(detector(grey(9, 5, 6)).probability, detector(grey(9, 1, 5, 6)).probability)


def test_a_view_is_scored_as_its_copy(detector: Detector) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 30, 3), dtype=np.uint8)
    view = image[::-2, ::3, ::-1]
    assert np.array_equal(detector(view).logits, detector(view.copy()).logits)


def test_a_detector_names_its_file_card_and_provider(model_path: Path) -> None:
    detector = Detector(model_path, device="cpu")
    assert detector.name == str(model_path)
    assert detector.sha256 == hashlib.sha256(model_path.read_bytes()).hexdigest()
    assert detector.card == CARD
    assert detector.provider == "CPUExecutionProvider"


@pytest.mark.parametrize("frames", [np.zeros((4, 4, 3)), [[1]], None, np.zeros((4, 4, 3), np.int8)])
def test_another_type_is_a_type_error(detector: Detector, frames: object) -> None:
    with pytest.raises(TypeError, match="expected a uint8 array"):
        detector(frames)  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", [(4, 4), (4, 4, 1), (4, 4, 4), (0, 4, 4, 3), (1, 0, 4, 3), (1, 1, 4, 4, 3)])
def test_another_shape_is_a_value_error(detector: Detector, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="expected"):
        detector(np.zeros(shape, np.uint8))


def card_json(**fields: object) -> str:
    return json.dumps({**json.loads(CARD.to_json()), **fields})


REFUSED = {
    "no card": (lambda: build_model(None), "no card"),
    "card is no JSON": (lambda: build_model("{"), "not valid JSON"),
    "another schema": (lambda: build_model(card_json(schema=99)), "schema 99"),
    "no schema": (lambda: build_model("[]"), "schema None"),
    "unknown field": (lambda: build_model(card_json(colour="red")), "colour"),
    "swapped classes": (lambda: build_model(card_json(classes=["ai", "real"])), "classes"),
    "input name": (lambda: build_model(input_name="image"), "expected \\['frames'\\]"),
    "output name": (lambda: build_model(output_name="score"), "probability"),
    "input type": (lambda: build_model(input_type=TensorProto.FLOAT), "expected tensor\\(uint8\\)"),
    "fixed batch": (lambda: build_model(input_shape=(1, "H", "W", 3)), "frames is"),
    "fixed height": (lambda: build_model(input_shape=("N", 48, 64, 3)), "frames is"),
    "four channels": (lambda: build_model(input_shape=("N", "H", "W", 4)), "frames is"),
    "other temperature": (lambda: build_model(calibration=Calibration(1.9, 0.25)), "contradicts its graph"),
    "other shift": (lambda: build_model(calibration=Calibration(2.0, 0.2)), "contradicts its graph"),
    "not ONNX": (lambda: b"hello" * 100, "ONNX file"),
    "empty": (lambda: b"", "ONNX file"),
    "truncated": (lambda: build_model()[:-200], "ONNX file|cannot load"),
}


@pytest.mark.parametrize("why", REFUSED)
def test_models_that_are_refused(why: str, tmp_path: Path) -> None:
    make, message = REFUSED[why]
    path = tmp_path / "bad.onnx"
    path.write_bytes(make())
    with pytest.raises(ModelError, match=message) as caught:
        Detector(path, device="cpu")
    assert str(path) in str(caught.value)


def external_model(folder: Path, where: str) -> bytes:
    """A model whose weights lie in another file, in an initializer or inside a node's attribute."""
    model = onnx.load_from_string(build_model())
    if where == "initializer":
        tensor = model.graph.initializer[2]
    else:
        node = next(n for n in model.graph.node if n.op_type == "Identity")
        node.op_type = "Constant"
        del node.input[:]
        tensor = onnx.numpy_helper.from_array(np.float32([1]))
        node.attribute.append(onnx.helper.make_attribute("value", tensor))
        tensor = node.attribute[0].t
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


@pytest.mark.parametrize("where", ["initializer", "attribute"])
def test_weights_in_other_files_are_refused(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # where onnxruntime would find them
    with pytest.raises(ModelError, match="external data"):
        Detector(external_model(tmp_path, where), device="cpu")


@given(st.binary(max_size=300))
def test_bytes_that_are_no_model_are_refused_before_onnxruntime_reads_them(data: bytes) -> None:
    try:
        check_self_contained(data)
    except ModelError:
        return
    # What passed holds at least one field that an ONNX model follows; onnxruntime judges the rest.
    assert any(tag in data for tag in (b"\x3a", b"\xa2\x01", b"\xca\x01"))


def test_deep_nesting_is_refused() -> None:
    data = b""
    for _ in range(300):
        data = b"\x32" + _varint(len(data)) + data  # Attribute.g
        data = b"\x2a" + _varint(len(data)) + data  # Node.attribute
        data = b"\x0a" + _varint(len(data)) + data  # Graph.node
    with pytest.raises(ModelError, match="not a whole ONNX file"):
        check_self_contained(b"\x3a" + _varint(len(data)) + data)


def _varint(value: int) -> bytes:
    out = b""
    while value > 0x7F:
        out, value = out + bytes([value & 0x7F | 0x80]), value >> 7
    return out + bytes([value])


def test_infinity_is_an_inference_error() -> None:
    detector = Detector(build_model(logarithm=True), device="cpu")
    assert np.isfinite(detector(grey(9, 8, 8)).probability).all()
    with pytest.raises(InferenceError, match="NaN or infinity"):
        detector(grey(0, 8, 8))


@pytest.mark.parametrize(
    ("device", "provider"), [("cuda", "CUDAExecutionProvider"), ("tensorrt", "TensorrtExecutionProvider")]
)
def test_a_device_is_really_there_or_it_is_an_error(model_bytes: bytes, device: str, provider: str) -> None:
    import onnxruntime

    if provider not in onnxruntime.get_available_providers():
        with pytest.raises(DeviceError, match=f"device {device}: this onnxruntime has no {provider}"):
            Detector(model_bytes, device=device)
        return
    # A GPU build lists its providers on any machine: refusing is right, falling back in silence is not.
    with contextlib.suppress(DeviceError):
        assert Detector(model_bytes, device=device).provider == provider


def test_device_auto_always_starts(model_bytes: bytes) -> None:
    assert Detector(model_bytes).provider in ("CPUExecutionProvider", "CUDAExecutionProvider")


def test_options_that_cannot_work_are_refused(model_bytes: bytes) -> None:
    for options in ({"device": "gpu"}, {"threads": 0}):
        with pytest.raises(ConfigurationError):
            Detector(model_bytes, **options)  # type: ignore[arg-type]


def test_a_missing_model_is_refused(tmp_path: Path) -> None:
    for name in (tmp_path / "missing.onnx", tmp_path):
        with pytest.raises(ModelError, match=r"expected an \.onnx file or one of asrnet"):
            Detector(name)


def test_scores_are_frozen(detector: Detector) -> None:
    scores = detector(grey(1, 4, 4))
    with pytest.raises(dataclasses.FrozenInstanceError):
        scores.verdicts = ()  # type: ignore[misc]


@pytest.mark.parametrize("given", [{"threads": 0}, {"threads": 1_000_000}, {"jobs": 0}, {"jobs": 100_000}])
def test_threads_that_no_machine_has_are_refused_before_they_are_started(given: dict[str, int]) -> None:
    with pytest.raises(ConfigurationError, match=r"(threads|jobs) \d+: expected 1 to 1024"):
        Detector(build_model(), device="cpu", **given)
