"""The smallest detectors that can be trained, on windows of 48 pixels; and asr-train as a user starts it."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from click.testing import CliRunner, Result

from asr_models import ASRNetLite
from asr_train.cli import train_command
from asr_train.fitting.config import ClosedFormConfig, LoopConfig, recipe


def tiny(data: Path, **changes: object) -> ClosedFormConfig:
    """Return the configuration of an ASRNet-Lite of two blocks, with two views, for a data folder."""
    given = {"options": {"blocks": 2}, "data": str(data), "views": 2, "batch_size": 4, "workers": 0, "ridge": 1.0}
    config = recipe("asrnet-lite", **{**given, **changes})
    assert isinstance(config, ClosedFormConfig)
    return dataclasses.replace(config, preprocess={**config.preprocess, "size": 48})


def tiny_loop(data: Path, **changes: object) -> LoopConfig:
    """Return the configuration of an ASRNet of 4 channels, trained for two epochs, for a data folder."""
    given = {"options": {"dim": 4}, "data": str(data), "epochs": 2, "batch_size": 4, "workers": 0}
    config = recipe("asrnet", **{**given, **changes})
    assert isinstance(config, LoopConfig)
    return dataclasses.replace(config, preprocess={"mode": "crop", "size": 48})


def network_with_two_blocks() -> ASRNetLite:
    """Return the network with its pretrained trunk."""
    network = ASRNetLite(blocks=2)
    network.load_pretrained("imagenet")
    return network


def run_train(*args: object) -> Result:
    """Run asr-train with these arguments."""
    return CliRunner().invoke(train_command, [*map(str, args)])
