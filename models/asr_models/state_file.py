"""Weights in a file: a state dict, read without trusting it."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from asr_models.errors import WeightsError, reason

__all__ = ["read_state"]


def read_state(path: Path) -> dict[str, Tensor]:
    """Read a state dict: names and tensors, nothing is unpickled beyond them.

    Raises:
        WeightsError: no such file, damaged, or something else.
    """
    if not path.is_file():
        raise WeightsError(f"{path}: no such weights file")
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch.load raises whatever the damaged bytes lead to
        raise WeightsError(f"{path}: not a state dict, or damaged ({reason(error)})") from None
    if not isinstance(state, dict) or not all(isinstance(v, Tensor) for v in state.values()):
        raise WeightsError(f"{path}: not a state dict: expected a mapping of names to tensors")
    return state
