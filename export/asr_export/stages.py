"""Values between frames and logits, under one name in PyTorch and in the exported file.

An exported file keeps the output of every stage under the name `stage/<submodule>`, so that two implementations can be
compared stage by stage, and the first one at which they part can be named.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from asr_models import Deployed
from asr_runtime.inference.onnxruntime_engine import open_session

__all__ = ["STAGE", "StageError", "Staged", "hide_stages", "stage_errors", "stages_in"]

STAGE = "stage/"
"""How the names of stage outputs begin in an exported file."""


class Staged(nn.Module):
    """The deployed chain with the outputs of its stages beside its own.

    Args:
        deployed: as trained, or lowered.
    """

    def __init__(self, deployed: Deployed) -> None:
        super().__init__()
        self.deployed = deployed
        self.names = deployed.stages()

    def forward(self, frames: Tensor) -> tuple[Tensor, ...]:
        """uint8 (N, H, W, 3) -> probability (N,), logits (N, 2), the output of each of `names`."""
        recorded: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            recorded.setdefault(name, output)  # of a stage that runs at several scales, the first

        hooks = [
            self.deployed.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            for name in self.names
        ]
        try:
            outputs = self.deployed(frames)
        finally:
            for hook in hooks:
                hook.remove()
        return (*outputs, *(recorded[name] for name in self.names))

    @torch.inference_mode()
    def stages(self, frames: Tensor) -> dict[str, Tensor]:
        """uint8 (N, H, W, 3) -> output of every stage by name, then the logits."""
        _, logits, *outputs = self(frames)
        return {**dict(zip(self.names, outputs, strict=True)), "logits": logits}


def hide_stages(model: onnx.ModelProto) -> None:
    """Make stage outputs inner values of the graph that keep their names."""
    outputs = [output for output in model.graph.output if not output.name.startswith(STAGE)]
    del model.graph.output[:]
    model.graph.output.extend(outputs)


def stages_in(model: onnx.ModelProto) -> list[str]:
    """Return the stages that the graph still holds, first to last, without the prefix."""
    nodes = [node for node in model.graph.node if node.op_type not in ("QuantizeLinear", "DequantizeLinear", "Cast")]
    return [name.removeprefix(STAGE) for node in nodes for name in node.output if name.startswith(STAGE)]


@dataclass(frozen=True)
class StageError:
    """How far the exported file is from PyTorch after one stage.

    Attributes:
        name: of the submodule; the last one is `logits`.
        relative: norm of the difference, divided by the norm of PyTorch's output (by 1 if that is 0).
        budget: what may be.
    """

    name: str
    relative: float
    budget: float

    @property
    def within(self) -> bool:
        """Whether the error is within its budget; NaN is not."""
        return self.relative <= self.budget


def stage_errors(deployed: Deployed, model: bytes, frames: NDArray[np.uint8], budget: float) -> list[StageError]:
    """Compare an exported file in onnxruntime with eager float32 PyTorch, stage by stage.

    The first stage that is not within its budget is where the two part: every later one only carries the error on.

    Args:
        deployed: the PyTorch twin.
        model: the file, of any precision. Stages that it does not name (an earlier version wrote it) are left out.
        frames: uint8 (N, H, W, 3).
        budget: of every stage.
    """
    graph = _with_stages(onnx.load_from_string(model))
    names = [output.name for output in graph.graph.output if output.name not in ("probability", "logits")]
    session = open_session(graph.SerializeToString(), "cpu")
    values = dict(zip(["logits", *names], session.run(["logits", *names], {"frames": frames}), strict=True))
    expected = Staged(deployed).stages(torch.from_numpy(frames))
    errors = []
    for name, reference in expected.items():
        output = values.get("logits" if name == "logits" else STAGE + name)
        if output is not None:
            exact = reference.double().numpy()
            norm = float(np.linalg.norm(exact)) or 1.0
            errors.append(StageError(name, float(np.linalg.norm(output.astype(np.float64) - exact)) / norm, budget))
    return errors


def _with_stages(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose stages are outputs again."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in stages_in(model):
        copy.graph.output.append(onnx.ValueInfoProto(name=STAGE + name))  # of whatever type it is
    return copy
