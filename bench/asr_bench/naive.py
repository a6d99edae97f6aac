"""The network alone, exported as its first user would: native Fourier operator, normalised floats in, logits out."""

from __future__ import annotations

import warnings
from pathlib import Path

import torch

from asr_bench.engines import Naive
from asr_models import Checkpoint

__all__ = ["export_naive"]


def export_naive(checkpoint: Checkpoint, path: Path) -> Naive:
    """Write `input` float32 (N, 3, S, S) -> logits (N, 2) to a file; say how it is fed."""
    side = checkpoint.preprocess["size"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the exporter's notes on its own deprecations
        torch.onnx.export(
            checkpoint.network,
            (torch.zeros(2, 3, side, side),),
            str(path),
            dynamo=True,
            input_names=["input"],
            dynamic_shapes=({0: "N"},),
            external_data=False,
            verbose=False,
        )
    deployed = checkpoint.deployed()
    return Naive(path, dict(checkpoint.preprocess), deployed.temperature, deployed.shift)
