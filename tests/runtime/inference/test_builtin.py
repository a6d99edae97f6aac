"""The model inside the package: its size, what its card says, and that it scores the examples."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from asr_runtime import Detector, read_image
from asr_runtime.inference.builtin import BUILTIN, builtin_path
from asr_runtime.inference.engine_choice import passed_bf16_gate


@pytest.mark.parametrize("name", sorted(BUILTIN))
def test_it_is_small_and_its_card_says_what_it_was_trained_on(name: str) -> None:
    assert builtin_path(name).stat().st_size <= 6_000_000
    card = Detector(name).card
    assert card.name == "asrnet-lite"
    assert card.parity["passed"] is True
    assert [p.false_positive_rate for p in card.operating_points] == [0.01, 0.05]
    assert "never saw its family of generators or its kind of photos" in card.calibration.fitted_on
    assert card.whole is not None
    assert len(card.whole.windows) == 5
    images = card.training["data"]["images"]
    assert sum(images["train"]["real"].values()) > 3000
    assert sum(images["train"]["ai"].values()) > 2500
    for protocol in (
        "leave-one-family-out",
        "leave-one-photo-kind-out",
        "seen-generators",
    ):
        assert protocol in card.metrics, f"the card lacks {protocol}"
        assert card.metrics[protocol]["decisions"], f"{protocol} has no decision table"


def test_it_scores_the_examples_and_the_batch_does_not_matter(examples: Path) -> None:
    detector = Detector(device="cpu")
    images = [read_image(p) for p in sorted((examples / "real").glob("*.jpg"))]
    together = detector(np.stack(images)).probability
    alone = [float(detector(image).probability[0]) for image in images]
    np.testing.assert_allclose(together, alone, atol=1e-5)
    assert len(set(alone)) == len(alone)


def test_bf16_is_promised_by_cards_that_passed_as_they_look_by_default() -> None:
    cards = {name: Detector(name).card for name in BUILTIN}
    assert {name: passed_bf16_gate(card) for name, card in cards.items()} == {
        "asrnet-lite": False,  # 9.2% of the verdicts changed, more than by JPEG 96
        "asrnet-lite-tiny": True,
    }
    assert cards["asrnet-lite-tiny"].metrics["bf16 against fp32"]["look"] == "whole"


def test_the_command_needs_no_option(examples: Path) -> None:
    code = "from asr_runtime.cli import screen_command as c; c()"
    args = [sys.executable, "-c", code, str(examples / "real"), str(examples / "video"), "--fps", "2"]
    done = subprocess.run(args, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith("127 read: 17 scored, 0 failed, 110 skipped")
