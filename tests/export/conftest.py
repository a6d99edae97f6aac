"""Small exported models, made once."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from asr_export.onnx_file import export
from asr_models import Checkpoint, create_model, default_preprocess, load_checkpoint, save_checkpoint


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An untrained, calibrated ASRNet of 8 channels."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "checkpoint_asrnet.pth"
    network = create_model("asrnet", dim=8).eval()
    save_checkpoint(
        path,
        Checkpoint(
            "asrnet",
            {"dim": 8},
            default_preprocess("asrnet"),
            network,
            calibration={"temperature": 0.7, "shift": -0.3, "fitted_on": "nothing: a test"},
            decision={"real_below": 0.4, "ai_from": 0.6, "rule": "a test's"},
            operating_points=({"false_positive_rate": 0.05, "threshold": 0.6, "true_positive_rate": 0.5},),
            training={"data": {}},
        ),
    )
    return path


@pytest.fixture(scope="session")
def exported(checkpoint: Path) -> Path:
    """The checkpoint as an ONNX file."""
    path = checkpoint.with_name("asrnet.onnx")
    export(load_checkpoint(checkpoint), path, metrics={"a test set": {"auroc": 0.5}})
    return path
