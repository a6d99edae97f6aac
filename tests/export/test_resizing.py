"""Resizing inside the exported graph: the same pixels in every engine, at every frame size."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from numpy.typing import NDArray
from onnx.reference import ReferenceEvaluator

from asr_models import InputTransform
from asr_runtime.inference.openvino_engine import openvino_core

pytestmark = pytest.mark.heavy

_Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@pytest.fixture(scope="module")
def resized(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preprocessing of the FFT networks alone, values in [0, 1]."""
    path = tmp_path_factory.mktemp("resized") / "preprocess.onnx"
    example = torch.zeros(2, 96, 128, 3, dtype=torch.uint8)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own deprecations
        torch.onnx.export(
            InputTransform("resize-crop", 224, 256).eval(),
            (example,),
            str(path),
            dynamo=True,
            input_names=["frames"],
            dynamic_shapes=({0: "N", 1: "H", 2: "W"},),
            opset_version=20,
            external_data=False,
            verbose=False,
        )
    return path


@pytest.fixture(scope="module")
def engines(resized: Path) -> dict[str, _Run]:
    core = openvino_core()
    compiled = core.compile_model(core.read_model(resized), "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session, evaluator = onnxruntime.InferenceSession(str(resized)), ReferenceEvaluator(str(resized))
    return {
        "onnxruntime": lambda frames: session.run(None, {"frames": frames})[0],
        "openvino": lambda frames: compiled(frames)[0],
        "onnx-reference": lambda frames: evaluator.run(None, {"frames": frames})[0],
    }


@pytest.mark.parametrize(("height", "width"), [(1, 1), (37, 21), (224, 640), (1920, 1080), (2160, 3840), (97, 5000)])
def test_every_engine_gives_pytorchs_pixels(height: int, width: int, engines: dict[str, _Run]) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), dtype=np.uint8)
    expected = InputTransform("resize-crop", 224, 256)(torch.from_numpy(frames)).numpy()
    for name, run in engines.items():
        assert np.abs(run(frames) - expected).max() < 1e-6, name
