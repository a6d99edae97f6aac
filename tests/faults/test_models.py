"""Models that are not what they should be: refused before any input is read; a NaN is an error of its frame only."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from fault_process import Screened, screen
from onnx import TensorProto, helper
from runtime_samples import build_model, encoded, picture

from asr_runtime import Detector
from asr_runtime.errors import ConfigurationError, ModelError

Measured = Callable[[str], None]


def foreign_graph() -> bytes:
    """A valid ONNX classifier of another kind: no card, another input."""
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "foreign",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 224, 224])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, 224, 224])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    return bytes(model.SerializeToString())


def external_weights(folder: Path) -> bytes:
    model = onnx.load_from_string(build_model())
    tensor = next(t for t in model.graph.initializer if t.name == "scale")
    (folder / "weights.bin").write_bytes(tensor.raw_data)
    onnx.external_data_helper.set_external_data(tensor, "weights.bin")
    tensor.ClearField("raw_data")
    return bytes(model.SerializeToString())


@pytest.fixture
def bad_models(tmp_path: Path) -> dict[str, str]:
    """Paths of models that must be refused -> what the message says."""
    whole = build_model()
    contents = {
        "cut.onnx": (whole[: len(whole) // 2], "not a whole ONNX file"),
        "one-byte-short.onnx": (whole[:-1], "not a whole ONNX file"),
        "empty.onnx": (b"", "not an ONNX file"),
        "text.onnx": (b"version https://git-lfs.github.com/spec/v1\n" * 3, "ONNX file"),
        "picture.onnx": (encoded(picture(), ".png"), "ONNX file"),
        "no-card.onnx": (build_model(None), "no card"),
        "foreign.onnx": (foreign_graph(), "no card"),
        "other-input.onnx": (build_model(input_name="image"), "expected ['frames']"),
        "external.onnx": (external_weights(tmp_path), "external data"),
    }
    for name, (data, _) in contents.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "device.onnx").symlink_to("/dev/zero")
    return {name: message for name, (_, message) in contents.items()} | {
        "missing.onnx": "No such file",
        "device.onnx": "not a regular file",
        ".": "not a regular file",
    }


@pytest.fixture
def canary(tmp_path: Path) -> Path:
    """An image that can be read: a record of it would show that input was read."""
    path = tmp_path / "canary.png"
    path.write_bytes(encoded(picture(), ".png"))
    return path


def read_nothing(done: Screened) -> bool:
    return done.exit_code == 2 and done.records == [] and "Traceback" not in done.errors


@pytest.mark.fault(20)
def test_a_bad_model_is_exit_code_2_before_any_input_is_read(
    bad_models: dict[str, str], canary: Path, tmp_path: Path, measured: Measured
) -> None:
    slowest = 0.0
    for name, message in bad_models.items():
        started = time.perf_counter()
        done = screen(tmp_path, canary, model=tmp_path / name)
        slowest = max(slowest, time.perf_counter() - started)
        assert read_nothing(done), (name, done)
        assert message in done.errors, (name, done.errors)
        assert name in done.errors
        assert done.errors.count("\n") == 1
    measured(f"{len(bad_models)} bad models: exit code 2, one line, no record, within {slowest:.1f} s with the start")


@pytest.mark.fault(20)
def test_a_model_of_another_hash_is_refused(tmp_path: Path, canary: Path, measured: Measured) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model())
    right = hashlib.sha256(model.read_bytes()).hexdigest()
    wrong = hashlib.sha256(b"another").hexdigest()
    for pinned in (right, right.upper()):
        assert Detector(model, device="cpu", threads=1, sha256=pinned).sha256 == right
    with pytest.raises(ModelError, match=rf"its SHA-256 is {right}, expected {wrong}"):
        Detector(model, device="cpu", sha256=wrong)
    for nonsense in ("", "abc", right + "0", "g" * 64):
        with pytest.raises(ConfigurationError, match="64 hexadecimal digits"):
            Detector(model, device="cpu", sha256=nonsense)
    measured("wrong hash: refused by Detector(sha256=...)")


@pytest.mark.fault(20)
def test_the_command_pins_a_model(tmp_path: Path, canary: Path, measured: Measured) -> None:
    model = tmp_path / "model.onnx"
    model.write_bytes(build_model())
    right = hashlib.sha256(model.read_bytes()).hexdigest()
    assert screen(tmp_path, canary, "--sha256", right, model=model).exit_code == 0
    for pinned in (hashlib.sha256(b"another").hexdigest(), "abc"):
        done = screen(tmp_path, canary, "--sha256", pinned, model=model)
        assert read_nothing(done), done
        assert pinned in done.errors
    measured("wrong hash: asr-screen --sha256 ends with exit code 2, no record")


@pytest.mark.fault(20)
def test_a_frame_for_which_the_model_gives_nan_is_an_error_and_the_next_goes_on(
    tmp_path: Path, measured: Measured
) -> None:
    model = tmp_path / "logarithm.onnx"
    model.write_bytes(build_model(logarithm=True))  # infinite on black
    for name, level in (("1.png", 200), ("2.png", 0), ("3.png", 90)):
        (tmp_path / name).write_bytes(encoded(np.full((32, 32, 3), level, np.uint8), ".png"))
    done = screen(tmp_path, tmp_path / "1.png", tmp_path / "2.png", tmp_path / "3.png", model=model)
    assert done.exit_code == 1
    assert [record["type"] for record in done.records] == ["image", "error", "image", "summary"]
    assert done.records[1]["kind"] == "InferenceError"
    assert "NaN or infinity" in done.records[1]["error"]
    measured("NaN or infinity: that image is an error, the next is scored, exit code 1")


@pytest.mark.fault(20)
def test_a_model_that_gives_nan_always_is_refused(tmp_path: Path, canary: Path, measured: Measured) -> None:
    model = onnx.load_from_string(build_model())
    scale = next(t for t in model.graph.initializer if t.name == "scale")
    scale.CopyFrom(onnx.numpy_helper.from_array(np.float32("nan"), "scale"))
    (tmp_path / "nan.onnx").write_bytes(model.SerializeToString())
    done = screen(tmp_path, canary, model=tmp_path / "nan.onnx")
    assert read_nothing(done), done
    assert "its self-check failed" in done.errors
    measured("NaN always: found by the self-check, exit code 2")
