"""A network that learns as in asr-train, one step at a time, by each way in which a step can be computed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from asr_models import InputTransform, create_model
from asr_runtime.errors import ConfigurationError
from asr_runtime.machine import has_bf16
from asr_train.fitting.config import LoopConfig, recipe

__all__ = ["WAYS", "Learner", "Way", "default_way", "loop_recipe"]


@dataclass(frozen=True)
class Way:
    """How a step is computed.

    Attributes:
        bf16: convolutions and matrix products in bfloat16, weights and statistics in float32 (autocast).
        channels_last: the memory layout of maps; False: channels first.
        fused: AdamW updates all weights in one kernel.
        compiled: by `torch.compile`, which needs a C++ compiler.
    """

    bf16: bool = False
    channels_last: bool = True
    fused: bool = False
    compiled: bool = False


WAYS: Mapping[str, Way] = {
    "float32": Way(),
    "float32, channels first": Way(channels_last=False),
    "float32, fused AdamW": Way(fused=True),
    "float32, compiled": Way(compiled=True),
    "bf16": Way(bf16=True),
    "bf16, fused AdamW": Way(bf16=True, fused=True),
    "bf16, compiled": Way(bf16=True, compiled=True),
}
"""The first is what asr-train does where the processor has no bfloat16, `bf16` what it does where it has."""


def default_way() -> str:
    """Return the name of the way that asr-train takes on this processor."""
    return "bf16" if has_bf16() else "float32"


class Learner:
    """A network and its optimiser, from the recipe of asr-train; the same weights at every call.

    Args:
        config: recipe of the network.
        way: how its step is computed.
    """

    def __init__(self, config: LoopConfig, way: Way) -> None:
        torch.manual_seed(0)
        options = {name: value for name, value in config.options.items() if name != "freeze"}
        self.network = create_model(config.model, **options).train()
        self.layout = torch.channels_last if way.channels_last else torch.contiguous_format
        self.network.to(memory_format=self.layout)
        self.compute = torch.compile(self.network) if way.compiled else self.network
        self.transform = InputTransform(**config.preprocess)
        # None is torch's own choice; False would switch its other fast path off.
        fused = True if way.fused else None
        self.optimizer = torch.optim.AdamW(
            self.network.parameters(), config.lr, config.betas, weight_decay=config.weight_decay, fused=fused
        )
        self.config, self.way = config, way

    def step(self, frames: Tensor, labels: Tensor) -> float:
        """Learn from one batch.

        Args:
            frames: (B, S, S, 3) BGR in [0, 255].
            labels: int64 (B,), 0 or 1.

        Returns:
            The loss before the update.
        """
        x = self.transform.normalise(frames).contiguous(memory_format=self.layout)
        with torch.autocast("cpu", torch.bfloat16, enabled=self.way.bf16):
            loss = F.cross_entropy(self.compute(x), labels, label_smoothing=self.config.label_smoothing)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.config.clip:
            torch.nn.utils.clip_grad_norm_(self.network.parameters(), self.config.clip)
        self.optimizer.step()
        return float(loss.detach())


def loop_recipe(model: str) -> LoopConfig:
    """Return the recipe of a network, without pretrained weights.

    Raises:
        ConfigurationError: the network is solved for in closed form.
    """
    config = recipe(model, weights="none")
    if not isinstance(config, LoopConfig):
        raise ConfigurationError(
            f"{model} is solved for in closed form; expected a network that gradient descent trains"
        )
    return config
