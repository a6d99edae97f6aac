"""Engines that compute an exported file: each answers for the same frames, to be compared with PyTorch."""

from __future__ import annotations

import importlib.util
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from asr_export.answers import Engine, onnxruntime
from asr_runtime import Detector
from asr_runtime.errors import ConfigurationError

__all__ = ["ENGINES", "engine", "installed_engines"]

ENGINES = ("onnxruntime", "openvino", "onnx-reference")
"""`onnx-reference` is the evaluator inside the onnx package: plain numpy, the definition of the operators, slow."""


def installed_engines() -> list[str]:
    """Return the engines that are installed here, but not the reference evaluator, which takes seconds a frame."""
    return ["onnxruntime", *(["openvino"] if importlib.util.find_spec("openvino") else [])]


def engine(name: str, model: bytes) -> Engine:
    """Load an exported file into an engine, on the CPU, in the precision that the file has.

    Args:
        name: one of `ENGINES`.
        model: the file.

    Raises:
        ConfigurationError: no such engine.
        DependencyError: it is not installed.
        ModelError: the engine refuses the file.
    """
    if name == "onnxruntime":
        return onnxruntime(Detector(model, device="cpu"))
    if name == "openvino":
        return _openvino(model)
    if name == "onnx-reference":
        return _reference(model)
    raise ConfigurationError(f"engine {name}: expected one of {', '.join(ENGINES)}")


def _openvino(model: bytes) -> Engine:
    from asr_runtime.inference.openvino_engine import OpenVinoSession

    session = OpenVinoSession(model, "fp32")

    def run(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return _doubles(*session.run(["probability", "logits"], {"frames": frames}))

    return run


def _reference(model: bytes) -> Engine:
    from onnx.reference import ReferenceEvaluator

    evaluator = ReferenceEvaluator(onnx.load_from_string(model))

    def run(frames: NDArray[np.uint8]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        return _doubles(*evaluator.run(["probability", "logits"], {"frames": frames}))

    return run


def _doubles(probability: Any, logits: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    return np.array(probability, np.float64), np.array(logits, np.float64)
