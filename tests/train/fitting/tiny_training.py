"""The smallest ASRNet-Lite that can be trained: two blocks, windows of 48 pixels, two views."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from asr_models import ASRNetLite
from asr_train.fitting.config import TrainConfig, recipe


def tiny(data: Path) -> TrainConfig:
    """Return its configuration for a data folder."""
    given = {"options": {"blocks": 2}, "data": str(data), "views": 2, "batch_size": 4, "workers": 0, "ridge": 1.0}
    config = recipe("asrnet-lite", **given)
    return dataclasses.replace(config, preprocess={**config.preprocess, "size": 48})


def network_with_two_blocks() -> ASRNetLite:
    """Return the network with its pretrained trunk."""
    network = ASRNetLite(blocks=2)
    network.load_pretrained("imagenet")
    return network
