"""The PyTorch twin of the exported graph: from raw frames to a calibrated probability."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr_models.input_transform import InputTransform

__all__ = ["Deployed"]


class Deployed(nn.Module):
    """Preprocessing, network and calibration as one module; evaluation runs it, export lowers it.

    Args:
        preprocess: from frames to the network's input.
        network: normalised RGB (N, 3, S, S) -> logits (N, 2), `[real, ai]`; one of `create_model`.
        temperature: divides the margin logit_ai - logit_real; above 0.
        shift: added after it.
    """

    def __init__(
        self, preprocess: InputTransform, network: nn.Module, temperature: float = 1.0, shift: float = 0.0
    ) -> None:
        super().__init__()
        self.preprocess = preprocess
        self.network = network
        self.temperature = temperature
        self.shift = shift

    def forward(self, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Score frames.

        Args:
            frames: uint8 (N, H, W, 3), BGR as OpenCV gives them, any size.

        Returns:
            probability of being AI-generated, float32 (N,), in [0, 1]; logits float32 (N, 2), `[real, ai]`.
        """
        logits = self.network(self.preprocess(frames))
        return self.probability(logits), logits

    def stages(self) -> tuple[str, ...]:
        """Names of the submodules whose outputs, in this order, lie between frames and logits."""
        inside: tuple[str, ...] = self.network.stages()  # type: ignore[operator]
        return ("preprocess", *(f"network.{name}" for name in inside))

    def probability(self, logits: Tensor) -> Tensor:
        """(N, 2) -> (N,): sigmoid(margin / temperature + shift)."""
        margin = logits[:, 1] - logits[:, 0]
        return torch.sigmoid(margin / self.temperature + self.shift)
