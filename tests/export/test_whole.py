"""Several windows of a picture: they travel from the checkpoint to the file, which scores them as PyTorch does."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from asr_export.card_text import card_text
from asr_export.onnx_file import export
from asr_export.parity_inputs import packaged_images
from asr_export.quantise import _carried
from asr_export.whole import WHOLE_TOLERANCE, whole_difference
from asr_models import create_model, load_checkpoint, save_checkpoint
from asr_runtime import Detector
from asr_runtime.contract import Calibration, ModelCard, OperatingPoint
from asr_runtime.errors import ModelError

WHOLE: dict[str, Any] = {
    "windows": [[0.5, 0.5], [0.2, 0.2], [0.2, 0.8], [0.8, 0.2], [0.8, 0.8]],
    "top": 3,
    "calibration": {"temperature": 0.6, "shift": -0.4, "fitted_on": "windows of nothing"},
    "decision": {"real_below": 0.3, "ai_from": 0.7, "rule": "a test's"},
    "operating_points": [{"false_positive_rate": 0.05, "threshold": 0.7, "true_positive_rate": 0.5}],
    "is_default": True,
    "video": {
        "calibration": {"temperature": 0.9, "shift": 0.1, "fitted_on": "clips of nothing"},
        "decision": {"real_below": 0.3, "ai_from": 0.7, "rule": "a test's"},
    },
}


@pytest.fixture(scope="module")
def looking(checkpoint: Path) -> Path:
    """The checkpoint with a whole look."""
    path = checkpoint.with_name("whole.pth")
    save_checkpoint(path, dataclasses.replace(load_checkpoint(checkpoint), training={}, whole=WHOLE))
    return path


@pytest.fixture(scope="module")
def card(looking: Path) -> ModelCard:
    return export(load_checkpoint(looking), looking.with_suffix(".onnx"))


def test_windows_travel_to_the_card(looking: Path, card: ModelCard) -> None:
    whole = Detector(looking.with_suffix(".onnx")).card.whole
    assert whole is not None
    assert whole == card.whole
    assert (whole.windows[1], whole.top, whole.calibration.shift) == ((0.2, 0.2), 3, -0.4)
    assert whole.operating_points == (OperatingPoint(0.05, 0.7, 0.5),)
    assert whole.video is not None
    assert card.parity["whole_probability_absolute"] < WHOLE_TOLERANCE


def test_a_file_that_scores_windows_as_another_network_is_noticed(looking: Path, card: ModelCard) -> None:
    torch.manual_seed(1)
    other = dataclasses.replace(load_checkpoint(looking), network=create_model("asrnet", dim=8).eval())
    detector = Detector(looking.with_suffix(".onnx"), device="cpu")
    assert whole_difference(load_checkpoint(looking).deployed(), detector, packaged_images()) < WHOLE_TOLERANCE
    assert whole_difference(other.deployed(), detector, packaged_images()) > WHOLE_TOLERANCE


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"top": 6}, "top 6, expected 1 to 5"),
        ({"windows": [[0.0, 0.0]]}, "expected the centre"),
        ({"preprocess": {"mode": "squash", "size": 96}}, "windows need preprocess mode crop"),
    ],
)
def test_an_impossible_whole_look_is_refused(
    looking: Path, tmp_path: Path, change: dict[str, Any], message: str
) -> None:
    preprocess = change.pop("preprocess", None)
    broken = dataclasses.replace(load_checkpoint(looking), whole={**WHOLE, **change})
    if preprocess:
        broken = dataclasses.replace(broken, preprocess=preprocess)
    with pytest.raises(ModelError, match=message):
        export(broken, tmp_path / "x.onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_text_of_the_card_describes_the_whole_look(card: ModelCard) -> None:
    text = card_text(card, "a model", 1_000_000, 1e9)
    assert "5 windows of 192 x 192 pixels" in text
    assert "the mean m of the 3 largest margins" in text
    assert "sigmoid(m / 0.6 + -0.4)" in text
    assert "(0.2, 0.8)" in text
    assert "It sees windows of a picture" in text
    alone = card_text(dataclasses.replace(card, whole=None), "a model", 1_000_000, 1e9)
    assert "It sees the centre of a picture only" in alone
    assert "windows" not in alone


def test_a_corrected_calibration_corrects_that_of_whole_looks(card: ModelCard) -> None:
    """Margins of a lower precision are a scaled and shifted copy: the probability of a whole look stays the same."""
    assert card.whole is not None
    before, after = Calibration(0.7, -0.3), Calibration(0.63, -0.1)
    carried = _carried(card.whole, before, after)
    margins = np.array([-1.5, 2.0, 0.3, 0.1, -4.0])
    lower = ((margins / before.temperature + before.shift) - after.shift) * after.temperature
    exact = card.whole.calibration.probability(card.whole.margin(margins.tolist()))
    assert carried.calibration.probability(carried.margin(lower.tolist())) == pytest.approx(exact, abs=1e-9)


def test_a_checkpoint_of_an_earlier_version_has_no_whole_look(tmp_path: Path, checkpoint: Path) -> None:
    content = torch.load(checkpoint, weights_only=True)
    del content["whole"]
    torch.save(content, tmp_path / "old.pth")
    assert load_checkpoint(tmp_path / "old.pth").whole == {}
