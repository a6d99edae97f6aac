"""What is timed: each engine loads a model and then scores one raw frame per call."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import Calibration
from asr_runtime.errors import ConfigurationError

__all__ = ["ENGINES", "OURS", "Engine", "Naive", "Task", "available", "load"]

Engine = Callable[[NDArray[np.uint8]], NDArray[np.float64]]
"""uint8 (N, H, W, 3), BGR -> probability float64 (N,)."""

OURS = "asrnet-edge"
ENGINES = (
    "torch eager",
    "torch compiled",
    "naive onnxruntime",
    OURS,
    "openvino f32",
    "openvino bf16",
)
"""Where a user starts, PyTorch at its best, what a user writes first with ONNX, this project, its rivals."""

_NEED_CHECKPOINT = ("torch eager", "torch compiled", "naive onnxruntime")


@dataclass(frozen=True)
class Naive:
    """A network exported alone.

    Attributes:
        path: the file.
        preprocess: arguments of `asr_models.InputTransform`, done with PIL and numpy.
        temperature: of the calibration.
        shift: of the calibration.
    """

    path: Path
    preprocess: Mapping[str, Any]
    temperature: float
    shift: float


@dataclass(frozen=True)
class Task:
    """What an engine loads; travels to its process.

    Attributes:
        engine: one of `ENGINES`.
        model: the exported file.
        checkpoint: what it was made from; None without one.
        naive: the network alone, exported as its first user would, and how to feed it (`asr_bench.naive`).
        threads: of the engine.
    """

    engine: str
    model: Path
    checkpoint: Path | None
    naive: Naive | None
    threads: int


def available(checkpoint: bool) -> list[str]:
    """Return the engines that can be timed here.

    Args:
        checkpoint: whether there is one.
    """
    names = [name for name in ENGINES if checkpoint or name not in _NEED_CHECKPOINT]
    openvino = importlib.util.find_spec("openvino") is not None
    return [name for name in names if openvino or not name.startswith("openvino")]


def load(task: Task) -> Engine:
    """Load an engine; everything it needs is imported here, in its own process.

    Raises:
        ConfigurationError: no such engine, or no checkpoint for one that needs it.
    """
    if task.engine in _NEED_CHECKPOINT and task.checkpoint is None:
        raise ConfigurationError(f"{task.engine}: needs --checkpoint")
    if task.engine.startswith("torch"):
        return _torch(task)
    if task.engine == "naive onnxruntime":
        return _naive(task)
    if task.engine == OURS:
        return _ours(task)
    if task.engine.startswith("openvino"):
        return _openvino(task)
    raise ConfigurationError(f"engine {task.engine!r}: expected one of {', '.join(ENGINES)}")


def _torch(task: Task) -> Engine:
    import torch

    from asr_models import load_checkpoint

    torch.set_num_threads(task.threads)
    assert task.checkpoint is not None
    deployed = load_checkpoint(task.checkpoint).deployed()
    run: Callable[[torch.Tensor], tuple[torch.Tensor, torch.Tensor]] = deployed
    if task.engine == "torch compiled":
        deployed.network.to(memory_format=torch.channels_last)
        run = torch.compile(deployed, options={"freezing": True})

    def score(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        # Not inference mode: freezing needs parameters that autograd knows.
        with torch.no_grad():
            probability, _ = run(torch.from_numpy(frames))
        return probability.double().numpy()

    return score


def _naive(task: Task) -> Engine:
    import onnxruntime
    from PIL import Image

    assert task.naive is not None
    given = task.naive.preprocess
    mean = np.array(given.get("mean", (0, 0, 0)), np.float32)
    std = np.array(given.get("std", (1, 1, 1)), np.float32)
    size = given["size"]
    calibration = Calibration(task.naive.temperature, task.naive.shift)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = task.threads  # all else is the default
    session = onnxruntime.InferenceSession(str(task.naive.path), options, providers=["CPUExecutionProvider"])

    def score(frames: NDArray[np.uint8]) -> NDArray[np.float64]:
        probabilities = []
        for frame in frames:
            image = Image.fromarray(frame[:, :, ::-1])
            if given["mode"] == "squash":
                image = image.resize((size, size), Image.Resampling.BILINEAR)
            elif given["mode"] == "resize-crop":
                ratio = given["resize"] / min(image.size)
                longer = [round(side * ratio) for side in image.size]
                image = image.resize((longer[0], longer[1]), Image.Resampling.BILINEAR)
            left, top = (image.width - size) // 2, (image.height - size) // 2
            image = image.crop((left, top, left + size, top + size))
            x = (np.asarray(image, np.float32) / 255 - mean) / std
            (logits,) = session.run(None, {"input": x.transpose(2, 0, 1)[None].astype(np.float32)})
            probabilities.append(calibration.probability(float(logits[0, 1] - logits[0, 0])))
        return np.array(probabilities)

    return score


def _ours(task: Task) -> Engine:
    from asr_runtime import Detector

    detector = Detector(task.model, device="cpu", threads=task.threads)
    return lambda frames: detector(frames).probability.astype(np.float64)


def _openvino(task: Task) -> Engine:
    from asr_runtime.inference.openvino_engine import openvino_core

    core = openvino_core()
    settings = {
        "INFERENCE_PRECISION_HINT": task.engine.removeprefix("openvino "),
        "INFERENCE_NUM_THREADS": task.threads,
    }
    compiled = core.compile_model(core.read_model(task.model), "CPU", settings)
    return lambda frames: np.array(compiled(frames)["probability"], np.float64)
