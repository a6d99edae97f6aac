"""Figures against hand-made cases and independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_runtime.errors import DatasetError
from asr_train.calibrate import calibrate
from asr_train.metrics import binary_metrics, metrics_by_source, threshold_at


def test_a_hand_made_case() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    probability = np.array([0.1, 0.2, 0.6, 0.3, 0.9, 0.8, 0.4, 0.7])
    found = binary_metrics(labels, probability)
    assert found["confusion_matrix"] == [[3, 1], [1, 3]]
    assert (found["accuracy"], found["precision"], found["recall"], found["f1"]) == (0.75, 0.75, 0.75, 0.75)
    assert found["auroc"] == 15 / 16  # one of 16 pairs is in the wrong order
    assert found["tpr_at_fpr_5%"] == 0.75


@settings(max_examples=60)
@given(
    scores=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=60), rate=st.sampled_from([0.0, 0.01, 0.05, 0.3])
)
def test_a_threshold_keeps_its_promise_and_is_the_lowest_that_does(scores: list[float], rate: float) -> None:
    real = np.array(scores)
    threshold = threshold_at(real, rate)
    assert (real >= threshold).mean() <= rate
    just_below = np.nextafter(threshold, -np.inf)
    assert (real >= just_below).mean() > rate


def test_a_generator_is_measured_against_its_own_photos_where_it_has_them() -> None:
    labels = np.array([0, 0, 1, 1, 0, 1])
    probability = np.array([0.1, 0.9, 0.8, 0.7, 0.2, 0.6])
    found = metrics_by_source(labels, probability, ["a", "a", "a", "a", "photos", "b"])
    assert (found["a"]["against"], found["a"]["images"]) == ("own photos", 4)
    assert found["a"]["auroc"] == 0.5
    assert (found["b"]["against"], found["b"]["images"]) == ("all photos", 4)
    assert found["b"]["auroc"] == pytest.approx(2 / 3)
    assert found["photos"] == {"images": 1, "against": None, "accuracy": 1.0, "mean_probability": 0.2}


def test_one_class_alone_gives_no_curve_but_an_accuracy() -> None:
    found = binary_metrics(np.array([1, 1]), np.array([0.9, 0.2]))
    assert (found["auroc"], found["ap"], found["tpr_at_fpr_1%"]) == (None, None, None)
    assert found["accuracy"] == 0.5


def _margins(n: int, scale: float, offset: float) -> tuple[np.ndarray, np.ndarray]:
    """Margins that are `scale` times too large and off by `offset` from true log-odds."""
    rng = np.random.default_rng(0)
    log_odds = rng.normal(0, 2, n)
    labels = (rng.random(n) < 1 / (1 + np.exp(-log_odds))).astype(int)
    return labels, log_odds * scale + offset


def test_calibration_finds_scale_and_offset() -> None:
    labels, margins = _margins(20_000, 3.0, 1.5)
    fitted = calibrate(labels, margins, "a test").calibration
    assert fitted.temperature == pytest.approx(3.0, rel=0.1)
    assert fitted.shift == pytest.approx(-0.5, abs=0.1)
    probability = 1 / (1 + np.exp(-(margins / fitted.temperature + fitted.shift)))
    assert binary_metrics(labels, probability)["ece"] < 0.02


def test_thresholds_keep_their_false_positive_rates_and_order() -> None:
    labels, margins = _margins(5_000, 1.0, 0.0)
    fitted = calibrate(labels, margins, "a test")
    probability = 1 / (1 + np.exp(-(margins / fitted.calibration.temperature + fitted.calibration.shift)))
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
    assert abs(1 / (1 + np.exp(-(5.0 / fitted.temperature + fitted.shift))) - 0.5) < 0.01


def test_calibration_needs_both_classes() -> None:
    with pytest.raises(DatasetError, match="both classes"):
        calibrate(np.array([1, 1]), np.array([0.1, 0.2]), "a test")
