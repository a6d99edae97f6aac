"""Values between frames and logits, under one name in PyTorch and in the exported file.

An exported file keeps the output of every stage under the name `stage/<submodule>`, so that two implementations can be
compared stage by stage, and the first one at which they part can be named.
"""

from __future__ import annotations

import onnx
import torch
from torch import Tensor, nn

from asr_models import Deployed

__all__ = ["STAGE", "Staged", "hide_stages", "stages_in", "with_stages"]

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
        found: dict[str, Tensor] = {}

        def keep(name: str, output: Tensor) -> None:
            found.setdefault(name, output)  # of a stage that runs at several scales, the first

        hooks = [
            self.deployed.get_submodule(name).register_forward_hook(lambda _, __, output, name=name: keep(name, output))
            for name in self.names
        ]
        try:
            outputs = self.deployed(frames)
        finally:
            for hook in hooks:
                hook.remove()
        return (*outputs, *(found[name] for name in self.names))

    @torch.inference_mode()
    def stages(self, frames: Tensor) -> dict[str, Tensor]:
        """uint8 (N, H, W, 3) -> output of every stage by name, then the logits."""
        _, logits, *outputs = self(frames)
        return {**dict(zip(self.names, outputs, strict=True)), "logits": logits}


def hide_stages(model: onnx.ModelProto) -> None:
    """Make stage outputs inner values of the graph that keep their names."""
    kept = [output for output in model.graph.output if not output.name.startswith(STAGE)]
    del model.graph.output[:]
    model.graph.output.extend(kept)


def stages_in(model: onnx.ModelProto) -> list[str]:
    """Return the stages that the graph still holds, first to last, without the prefix."""
    return [name.removeprefix(STAGE) for node in model.graph.node for name in node.output if name.startswith(STAGE)]


def with_stages(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy whose stages are outputs again."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    for name in stages_in(model):
        copy.graph.output.append(onnx.helper.make_tensor_value_info(STAGE + name, onnx.TensorProto.FLOAT, None))
    return copy
