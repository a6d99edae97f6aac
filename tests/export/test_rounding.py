"""Convolutions in 8 bits: rounding takes correlated inputs into account; convolutions left in float32 stay so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import numpy_helper

from asr_export.onnx_file import export
from asr_export.quantise import _named, _quantised, _ranges
from asr_export.rounding import _moments, round_kernels
from asr_models import Checkpoint, create_model, default_preprocess
from asr_runtime import read_image


@pytest.fixture(scope="module")
def images(examples: Path) -> list[Path]:
    return sorted((examples / "real").iterdir())


@pytest.fixture(scope="module")
def trunk(tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    """The first four blocks of the pretrained trunk, and a head that no one trained, as a graph with named nodes."""
    torch.manual_seed(0)
    network = create_model("asrnet-lite", blocks=4).eval()
    network.load_pretrained("imagenet")
    options = {"blocks": 4}
    path = tmp_path_factory.mktemp("trunk") / "trunk.onnx"
    export(Checkpoint("asrnet-lite", options, default_preprocess("asrnet-lite"), network), path)
    return _named(onnx.load(path))


def _margins(model: onnx.ModelProto, images: list[Path], optimised: bool = True) -> np.ndarray:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    if not optimised:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    logits = [session.run(["logits"], {"frames": read_image(path)[None]})[0][0] for path in images]
    return np.array([ai - real for real, ai in logits])


def test_rounding_halves_the_error_of_most_convolutions_on_other_images(
    trunk: onnx.ModelProto, images: list[Path]
) -> None:
    kernels = round_kernels(trunk, images[::2])
    constants = {t.name: numpy_helper.to_array(t) for t in trunk.graph.initializer}
    biases = {n.input[1]: constants[n.input[2]] for n in trunk.graph.node if n.op_type == "Conv"}
    shapes = {name: list(values.shape) for name, values in constants.items()}
    shares = []
    for name, (groups, covariance, mean) in _moments(trunk, shapes, images[1::2]).items():
        rounded, kernel = kernels[name], constants[name]
        steps = rounded.steps[:, None, None, None]
        multiples = rounded.kernel / steps
        assert np.abs(multiples - np.rint(multiples)).max() < 1e-3, name
        assert np.abs(multiples).max() < 127.01, name
        squares = []
        for new, bias in ((rounded.kernel, rounded.bias), (np.rint(kernel / steps) * steps, biases[name])):
            wrong = (new - kernel).reshape(groups, kernel.shape[0] // groups, -1)  # (G, O, K)
            shift = (wrong @ mean[:, :, None]).reshape(-1) + bias - biases[name]
            squares.append(float(((wrong @ covariance) * wrong).sum() + (shift**2).sum()))
        shares.append(squares[0] / squares[1])
    assert np.sqrt(np.median(shares)) < 0.5
    assert max(shares) < 1


@pytest.mark.vnni
def test_a_convolution_left_in_float32_stays_so_in_onnxruntime(trunk: onnx.ModelProto, images: list[Path]) -> None:
    kernels, ranges = round_kernels(trunk, images), _ranges(trunk, images)
    convolutions = [node.name for node in trunk.graph.node if node.op_type == "Conv"]
    graph = _quantised(trunk, ranges, kernels, [convolutions[0], *convolutions[2:]])  # not the depthwise one
    as_written, as_run, exact = (
        _margins(graph, images, optimised=False),
        _margins(graph, images),
        _margins(trunk, images),
    )
    assert np.abs(as_run - as_written).max() < np.abs(as_written - exact).max()
