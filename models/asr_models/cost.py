"""What a network costs to compute."""

from __future__ import annotations

import torch
from torch.utils.flop_counter import FlopCounterMode

from asr_models.checkpoint import Checkpoint

__all__ = ["multiply_adds"]


def multiply_adds(checkpoint: Checkpoint) -> float:
    """Count the multiply-adds of a network on one crop: convolutions and matrix products, but no Fourier transforms."""
    side = checkpoint.preprocess["size"]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        checkpoint.network(torch.zeros(1, 3, side, side))
    return float(counter.get_total_flops()) / 2
