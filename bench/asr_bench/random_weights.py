"""Networks with random weights, the same at every call: neither speed nor parity asks for trained ones."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint

__all__ = ["random_checkpoint"]


def random_checkpoint(name: str, path: Path, options: Mapping[str, Any] | None = None) -> Checkpoint:
    """Write a checkpoint with random weights and load it; a file that is there already is loaded as it is.

    Args:
        name: registry name.
        path: of the file.
        options: of the network; None: its defaults.
    """
    if not path.exists():
        options = dict(options or {})
        torch.manual_seed(0)
        network = create_model(name, **options).eval()
        calibration = {"temperature": 1.0, "shift": 0.0, "fitted_on": "nothing: random weights"}
        decision = {"real_below": 0.4, "ai_from": 0.6, "rule": "none: random weights"}
        checkpoint = Checkpoint(
            name, options, default_preprocess(name), network, calibration=calibration, decision=decision
        )
        save_checkpoint(path, checkpoint)
    return load_checkpoint(path)
