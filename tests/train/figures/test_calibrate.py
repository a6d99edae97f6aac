"""Calibration and thresholds: probabilities that can be believed, and rates that hold on other images."""

from __future__ import annotations

import logging

import numpy as np
import pytest

from asr_runtime.contract import Calibration, Decision, VideoRule
from asr_runtime.errors import DatasetError
from asr_train.figures.calibrate import UNSURE_BAND, calibrate, calibrate_video, video_figures
from asr_train.figures.metrics import binary_metrics


def _margins(n: int, scale: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Margins that are `scale` times too large and off by `offset` from true log-odds."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(int)
    return labels, log_odds * scale + offset


def _separated(n: int, separation: float, seed: int, photos: float = 0.5) -> tuple[np.ndarray, np.ndarray]:
    """Labels, and margins whose classes are `separation` standard deviations apart; a share of `photos` is real."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(n) >= photos).astype(int)
    return labels, rng.normal(labels * separation, 1.0)


def test_calibration_finds_scale_and_offset() -> None:
    labels, margins = _margins(20_000, 3.0, 1.5)
    fitted = calibrate(labels, margins, "a test").calibration
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    assert fitted.shift == pytest.approx(-0.5, abs=0.1)
    probability = fitted.probability(margins)
    assert binary_metrics(labels, probability)["ece"] < 0.02


def test_thresholds_keep_their_false_positive_rates_and_order() -> None:
    labels, margins = _margins(5_000, 1.0, 0.0)
    fitted = calibrate(labels, margins, "a test")
    probability = fitted.calibration.probability(margins)
    for point in fitted.operating_points:
        assert (probability[labels == 0] >= point.threshold).mean() <= point.false_positive_rate
        assert (probability[labels == 1] >= point.threshold).mean() == pytest.approx(point.true_positive_rate)
    decision = fitted.decision
    assert decision.real_below < decision.ai_from == fitted.operating_points[-1].threshold
    assert [decision.verdict(p) for p in (0.0, (decision.real_below + decision.ai_from) / 2, 1.0)] == [
        "real",
        "unsure",
        "ai",
    ]


def test_margins_that_tell_nothing_give_no_confidence() -> None:
    labels = np.array([0, 1] * 50)
    margins = np.where(labels == 1, -1.0, 1.0)  # worse than chance
    fitted = calibrate(labels, margins, "a test").calibration
    assert abs(fitted.probability(5.0) - 0.5) < 0.01


def test_calibration_needs_both_classes() -> None:
    with pytest.raises(DatasetError, match="both classes"):
        calibrate(np.array([1, 1]), np.array([0.1, 0.2]), "a test")


@pytest.mark.parametrize("separation", [0.5, 1.0, 2.0, 4.0, 8.0, 40.0])
def test_ai_needs_more_than_one_half_and_the_promised_rate(separation: float) -> None:
    """A detector that separates its data well does not call one photo in twenty ai for that."""
    fitted = calibrate(*_separated(4_000, separation, 0), "a test")
    decision = fitted.decision
    lowest, highest = UNSURE_BAND
    assert decision.real_below <= lowest < 0.5 < highest <= decision.ai_from < 1
    labels, margins = _separated(40_000, separation, 1)
    probability = fitted.calibration.probability(margins)
    called_ai = (probability[labels == 0] >= decision.ai_from).mean()
    assert called_ai < 0.06
    assert called_ai <= (probability[labels == 0] >= 0.5).mean()
    assert decision.verdict(0.5) == "unsure"


def test_videos_have_the_same_thresholds_as_images() -> None:
    labels, margins = _separated(2_000, 6.0, 0)
    assert calibrate_video(labels, margins, "a test").decision == calibrate(labels, margins, "a test").decision


def test_both_classes_weigh_the_same_in_calibration() -> None:
    """Nine photos in ten: a margin half way between the classes is still as likely real as generated."""
    labels, margins = _separated(20_000, 2.0, 0, photos=0.9)
    assert calibrate(labels, margins, "a test").calibration.probability(1.0) == pytest.approx(0.5, abs=0.02)


def test_a_few_images_without_an_error_give_no_certainty() -> None:
    labels = np.array([0] * 5 + [1] * 5)
    margins = np.array([-1.2, -1.1, -1.0, -0.9, -0.8, 0.8, 0.9, 1.0, 1.1, 1.2])
    probability = calibrate(labels, margins, "a test").calibration.probability(margins)
    assert probability[labels == 1].mean() == pytest.approx(6 / 7, abs=0.02)  # Platt's target for 5 images
    assert probability.max() < 0.97


def test_scores_that_cannot_carry_a_threshold_are_refused() -> None:
    labels = np.array([0, 1] * 10)
    with pytest.raises(DatasetError, match="every image gets the same score"):
        calibrate(labels, np.full(20, 0.3), "a test")
    with pytest.raises(DatasetError, match="NaN or infinity"):
        calibrate(labels, np.where(labels, np.nan, 0.0), "a test")


def test_a_detector_that_is_always_unsure_is_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    labels = np.array([0, 1] * 50)
    logging.getLogger("asr_train").addHandler(caplog.handler)  # the commands switch propagation off
    try:
        calibrate(labels, np.where(labels == 1, -1.0, 1.0), "a test")
    finally:
        logging.getLogger("asr_train").removeHandler(caplog.handler)
    assert "every verdict will be unsure" in caplog.text


def test_a_rule_keeps_its_promise_on_other_videos() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 20_000)
    log_odds = rng.normal(labels * 2 - 2.5, 1.0)  # not calibrated: half way between the classes lies -1.5, not 0
    rule = calibrate_video(labels[:10_000], log_odds[:10_000], "a test")
    figures = video_figures(labels[10_000:], log_odds[10_000:], rule)
    assert figures["balanced_ece"] < 0.02 < 0.2 < figures["balanced_ece_as_images"]
    assert figures["false_positive_rate"] == pytest.approx(0.05, abs=0.01)
    assert figures["videos"] == 10_000
    assert video_figures(labels[labels == 0], log_odds[labels == 0], rule) == {}
    with pytest.raises(DatasetError, match="both classes"):
        calibrate_video(np.zeros(3, int), np.zeros(3), "a test")


def test_one_generated_image_in_ten_is_called_real() -> None:
    labels, margins = _margins(5_000, 1.0, 0.0)
    fitted = calibrate(labels, margins, "a test")
    probability = fitted.calibration.probability(margins)
    assert fitted.decision.real_below < UNSURE_BAND[0]
    assert (probability[labels == 1] < fitted.decision.real_below).mean() == pytest.approx(0.1, abs=0.001)


def test_a_slope_of_nearly_nothing_is_a_temperature_of_1000() -> None:
    labels = np.array([0, 1] * 500)
    margins = np.random.default_rng(0).normal(0, 1000.0, 1000) + labels
    fitted = calibrate(labels, margins, "a test").calibration
    assert (fitted.temperature, fitted.shift) == (1000.0, 0.0)
    steep = calibrate(labels, np.linspace(0, 900, 1000) + 100 * labels, "a test").calibration
    assert 100 < steep.temperature < 1000


def test_a_detector_that_decides_is_not_warned_of(caplog: pytest.LogCaptureFixture) -> None:
    """One verdict of the two will do: here nothing is called real, for generated images have the lowest margin."""
    labels = np.array([0] * 90 + [1] * 100)
    margins = np.concatenate([np.zeros(90), np.full(15, -1.0), np.full(85, 5.0)])
    logging.getLogger("asr_train").addHandler(caplog.handler)
    try:
        decision = calibrate(labels, margins, "a test").decision
    finally:
        logging.getLogger("asr_train").removeHandler(caplog.handler)
    assert decision.verdict(1.0) == "ai"
    assert caplog.text == ""


def test_an_image_at_a_threshold_of_real_is_unsure_and_so_is_every_other(caplog: pytest.LogCaptureFixture) -> None:
    """One photo in ten has the highest margin, so no threshold keeps 5%; `real_below` is the lowest probability."""
    labels = np.repeat([0, 1], 100)
    margins = np.repeat([0.0, 0.5, -1.0, 0.5], [90, 10, 15, 85])
    logging.getLogger("asr_train").addHandler(caplog.handler)
    try:
        fitted = calibrate(labels, margins, "a test")
    finally:
        logging.getLogger("asr_train").removeHandler(caplog.handler)
    assert fitted.decision.real_below == fitted.calibration.probability(-1.0) < 0.4
    assert {fitted.decision.verdict(float(p)) for p in fitted.calibration.probability(margins)} == {"unsure"}
    assert "every verdict will be unsure" in caplog.text


def test_a_hand_made_set_of_videos() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    probability = np.array([0.1, 0.2, 0.5, 0.9, 0.3, 0.55, 0.8, 0.95])
    log_odds = np.log(probability / (1 - probability))
    figures = video_figures(labels, log_odds, VideoRule(Calibration(), Decision(0.4, 0.6)))
    assert (figures["unsure"], figures["false_positive_rate"], figures["true_positive_rate"]) == (2 / 8, 1 / 4, 2 / 4)
    assert figures["auroc"] == 12 / 16
    assert figures["balanced_ece"] == pytest.approx(figures["balanced_ece_as_images"])


@pytest.mark.parametrize("count", [8, 20])
def test_images_without_an_error_are_as_certain_as_platts_targets(count: int) -> None:
    labels = np.repeat([0, 1], count)
    calibration = calibrate(labels, np.where(labels == 1, 1.0, -1.0), "x").calibration
    assert calibration.probability(1.0) == pytest.approx((count + 1) / (count + 2), abs=1e-3)
    assert calibration.probability(-1.0) == pytest.approx(1 / (count + 2), abs=1e-3)
