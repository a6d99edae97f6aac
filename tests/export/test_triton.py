"""Model repositories for Triton: Triton's own protocol buffers read them, and the command writes them."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest
from google.protobuf import text_format
from tritonclient.grpc import model_config_pb2

import asr_runtime
from asr_export.triton import write_triton
from asr_runtime.contract import CARD_KEY, ModelCard
from asr_runtime.errors import ModelError
from asr_runtime.inference.builtin import builtin_path

_MODEL = builtin_path("asrnet-lite-tiny")
_TYPES = {"tensor(uint8)": "TYPE_UINT8", "tensor(float)": "TYPE_FP32"}


def _shape(tensor: object) -> list[int]:
    """Dimensions that a client sees, without the batch."""
    return list(tensor.dims)  # type: ignore[attr-defined]


def test_the_configuration_says_what_the_graph_takes_and_gives(tmp_path: Path) -> None:
    home = write_triton(_MODEL, tmp_path / "models")
    assert home == tmp_path / "models" / "asrnet-lite-tiny"
    assert (home / "1" / "model.onnx").read_bytes() == _MODEL.read_bytes()
    config = text_format.Parse((home / "config.pbtxt").read_text(), model_config_pb2.ModelConfig())
    session = onnxruntime.InferenceSession(str(home / "1" / "model.onnx"), providers=["CPUExecutionProvider"])
    assert config.name == home.name
    assert config.backend == "onnxruntime"
    assert config.max_batch_size >= max(config.dynamic_batching.preferred_batch_size)
    name = model_config_pb2.DataType.Name
    [frames] = session.get_inputs()
    assert [(i.name, name(i.data_type), _shape(i)) for i in config.input] == [
        (frames.name, _TYPES[frames.type], [-1, -1, 3])
    ]
    assert [(o.name, name(o.data_type)) for o in config.output] == [
        (o.name, _TYPES[o.type]) for o in session.get_outputs()
    ]
    # A batch of N gives (N,) and (N, 2); Triton wants a dimension behind N, which it drops on the way in.
    assert [(_shape(o), list(o.reshape.shape), o.HasField("reshape")) for o in config.output] == [
        ([1], [], True),
        ([2], [], False),
    ]
    for sample in config.model_warmup:
        height, width, channels = sample.inputs["frames"].dims
        assert channels == 3
        assert sample.batch_size <= config.max_batch_size
        assert height * width > 0
    card = ModelCard.from_json(config.parameters[CARD_KEY].string_value)
    assert card == asr_runtime.Detector(_MODEL, threads=1).card


def test_the_command_takes_an_exported_file(tmp_path: Path) -> None:
    line = [sys.executable, "-c", "from asr_export.cli import export_command; export_command()"]
    result = subprocess.run([*line, _MODEL, "--triton", "models"], cwd=tmp_path, capture_output=True, check=True)
    assert result.stdout.decode().startswith("models/asrnet-lite-tiny: model repository of ")
    assert (tmp_path / "models" / "asrnet-lite-tiny" / "config.pbtxt").exists()
    missing = subprocess.run([*line, "x.pth"], cwd=tmp_path, capture_output=True, check=False)
    assert (missing.returncode, missing.stderr.decode()) == (
        2,
        "asr-export: -o: expected the ONNX file to write, -o X.onnx\n",
    )


def test_a_file_without_a_card_is_refused(tmp_path: Path) -> None:
    (tmp_path / "x.onnx").write_bytes(b"no model")
    with pytest.raises(ModelError, match=r"x\.onnx: not an ONNX file"):
        write_triton(tmp_path / "x.onnx", tmp_path / "models")
    with pytest.raises(ModelError, match=r"absent\.onnx: not an ONNX file"):
        write_triton(tmp_path / "absent.onnx", tmp_path / "models")
