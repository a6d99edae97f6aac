"""Figures against hand-made cases and independent formulas."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import average_precision_score, roc_auc_score

from asr_runtime.contract import Decision, OperatingPoint
from asr_train.figures.bootstrap import _figures as bootstrap_figures
from asr_train.figures.bootstrap import bootstrap_intervals, concordance, resampled
from asr_train.figures.metrics import (
    balanced_calibration_error,
    binary_metrics,
    calibration_error,
    content_adjusted_auroc,
    content_strata,
    metrics_by_source,
    reliability,
    threshold_at,
    verdict_metrics,
)


def test_a_hand_made_case() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1, 1])
    probability = np.array([0.1, 0.2, 0.6, 0.3, 0.9, 0.8, 0.4, 0.7])
    figures = binary_metrics(labels, probability)
    assert figures["confusion_matrix"] == [[3, 1], [1, 3]]
    assert (figures["accuracy"], figures["precision"], figures["recall"], figures["f1"]) == (0.75, 0.75, 0.75, 0.75)
    assert figures["auroc"] == 15 / 16  # one of 16 pairs is in the wrong order
    assert figures["tpr_at_fpr_5%"] == 0.75


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
    by_source = metrics_by_source(labels, probability, ["a", "a", "a", "a", "photos", "b"])
    assert (by_source["a"]["against"], by_source["a"]["images"]) == ("own photos", 4)
    assert by_source["a"]["auroc"] == 0.5
    assert (by_source["b"]["against"], by_source["b"]["images"]) == ("all photos", 4)
    assert by_source["b"]["auroc"] == pytest.approx(2 / 3)
    assert by_source["photos"] == {
        "images": 1,
        "against": None,
        "accuracy": 1.0,
        "mean_probability": 0.2,
        "interval": {"accuracy": [1.0, 1.0]},
    }
    assert list(by_source) == ["a", "b", "photos"]  # worst generator first, photos last


def test_the_worst_generator_is_the_one_that_is_worst_with_content_controlled_for() -> None:
    rng = np.random.default_rng(0)
    n = 400
    labels = np.repeat([0, 1, 1], n)
    sources = ["photos"] * n + ["by subject"] * n + ["by trace"] * n
    content = np.concatenate([rng.normal(0, 1, n), rng.normal(2, 1, n), rng.normal(0, 1, n)])
    trace = np.concatenate([rng.normal(0, 1, 2 * n), rng.normal(1, 1, n)])
    probability = 1 / (1 + np.exp(-(content + trace)))
    by_source = metrics_by_source(labels, probability, sources, content)
    assert by_source["by subject"]["auroc"] > by_source["by trace"]["auroc"] + 0.1
    assert [name for name, figures in by_source.items() if figures["against"]] == ["by subject", "by trace"]
    assert by_source["by subject"]["content_auroc"] > 0.85
    assert abs(by_source["by trace"]["content_auroc"] - 0.5) < 0.1


def test_one_class_alone_gives_no_curve_but_an_accuracy() -> None:
    figures = binary_metrics(np.array([1, 1]), np.array([0.9, 0.2]))
    assert (figures["auroc"], figures["ap"], figures["tpr_at_fpr_1%"]) == (None, None, None)
    assert figures["accuracy"] == 0.5


def _images(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.random.Generator]:
    """Labels that content tells (AUROC about 0.8), and the content."""
    rng = np.random.default_rng(seed)
    content = rng.normal(0, 1.5, n)
    return (rng.random(n) < 1 / (1 + np.exp(-content))).astype(int), content, rng


@pytest.mark.parametrize("seed", range(3))
def test_a_detector_by_content_alone_is_worth_nothing_once_content_is_controlled_for(seed: int) -> None:
    labels, content, rng = _images(4000, seed)
    scores = content + rng.normal(0, 1, len(content))
    assert roc_auc_score(labels, scores) > 0.7
    assert content_adjusted_auroc(labels, scores, content) == pytest.approx(0.5, abs=0.03)


@pytest.mark.parametrize("seed", range(3))
def test_a_detector_by_traces_keeps_its_value_and_one_by_both_keeps_that_of_the_traces(seed: int) -> None:
    labels, content, rng = _images(4000, seed)
    trace = rng.normal(labels, 1.0)
    alone = roc_auc_score(labels, trace)
    assert content_adjusted_auroc(labels, trace, content) == pytest.approx(alone, abs=0.02)
    assert roc_auc_score(labels, trace + content) > alone + 0.05
    assert content_adjusted_auroc(labels, trace + content, content) == pytest.approx(alone, abs=0.03)


def test_the_probe_against_itself_says_what_the_bins_leave() -> None:
    labels, content, _ = _images(4000)
    coarse, fine = (content_adjusted_auroc(labels, content, content, bins) or 0.0 for bins in (8, 64))
    assert 0.53 < coarse < 0.58
    assert 0.5 <= fine < coarse


_CASES = st.lists(
    st.tuples(st.integers(0, 1), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.integers(-3, 3)), min_size=1, max_size=40
)


@settings(max_examples=80)
@given(cases=_CASES, bins=st.integers(1, 8))
def test_the_content_adjusted_auroc_pools_the_pairs_of_each_bin(cases: list[tuple[int, float, int]], bins: int) -> None:
    labels, scores, content = (np.array(column) for column in zip(*cases, strict=True))
    strata = content_strata(content, bins)
    right = pairs = 0.0
    for i in np.flatnonzero(labels == 1):
        for j in np.flatnonzero(labels == 0):
            if strata[i] == strata[j]:
                pairs += 1
                right += (scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j])
    adjusted = content_adjusted_auroc(labels, scores, content, bins)
    assert adjusted == (pytest.approx(right / pairs) if pairs else None)


def test_content_is_put_into_eight_bins_of_as_many_images() -> None:
    assert content_strata(np.arange(80.0)).tolist() == np.repeat(np.arange(8), 10).tolist()
    assert content_strata(np.array([3.0, 1.0, 2.0, 4.0]), bins=2).tolist() == [1, 0, 0, 1]
    assert content_strata(np.array([7.0, 7.0, 7.0, 9.0]), bins=4).tolist() == [2, 2, 2, 3]  # equal scores share a bin


def test_content_that_separates_the_classes_leaves_nothing_to_compare() -> None:
    labels = np.array([0, 0, 1, 1])
    assert content_adjusted_auroc(labels, np.array([0.1, 0.2, 0.3, 0.4]), labels.astype(float), 2) is None
    figures = binary_metrics(labels, np.array([0.1, 0.2, 0.3, 0.4]), labels.astype(float))
    assert figures["ca_auroc"] is None
    assert "ca_auroc" not in figures["interval"]


@settings(max_examples=30)
@given(data=st.data(), n=st.integers(2, 60))
def test_intervals_contain_their_figure_and_lie_between_0_and_1(data: st.DataObject, n: int) -> None:
    labels = np.array(data.draw(st.lists(st.integers(0, 1), min_size=n, max_size=n)))
    probability = np.array(data.draw(st.lists(st.floats(0, 1, width=32), min_size=n, max_size=n)))
    content = np.array(data.draw(st.lists(st.integers(0, 4), min_size=n, max_size=n)))
    figures = binary_metrics(labels, probability, content)
    assert set(figures["interval"]) == {
        key
        for key in ("accuracy", "ece", "auroc", "ca_auroc", "ap", "tpr_at_fpr_1%", "tpr_at_fpr_5%")
        if figures[key] is not None
    }
    for key, (low, high) in figures["interval"].items():
        assert 0 <= low <= figures[key] <= high <= 1 + 1e-9, key


def test_intervals_shrink_with_the_number_of_images_and_cover_what_they_promise() -> None:
    def interval(n: int, seed: int) -> list[float]:
        labels, _, rng = _images(n, seed)
        scores = 1 / (1 + np.exp(-rng.normal(labels, 1.0)))
        ends: list[float] = binary_metrics(labels, scores)["interval"]["auroc"]
        return ends

    widths = [high - low for low, high in (interval(n, 0) for n in (100, 400, 1600))]
    assert widths[0] / widths[1] == pytest.approx(2, rel=0.35)
    assert widths[1] / widths[2] == pytest.approx(2, rel=0.35)
    truth = 0.7602  # P(N(1, 1) > N(0, 1)) = Phi(1 / sqrt 2)
    covered = sum(low <= truth <= high for low, high in (interval(200, seed) for seed in range(60)))
    assert covered >= 52  # 95% of 60 is 57


def test_a_resample_of_every_image_once_gives_the_figures_themselves(monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_train.figures import bootstrap

    labels, content, rng = _images(300)
    probability = np.round(1 / (1 + np.exp(-rng.normal(labels, 1.0))), 2)  # with ties
    expected = binary_metrics(labels, probability, content)
    monkeypatch.setattr(bootstrap, "_resamples", lambda labels, seed: iter([np.ones((1, len(labels)))]))
    intervals = bootstrap_intervals(labels, probability, content_strata(content), (0.01, 0.05), 15, expected)
    assert len(intervals) == 7
    for key, (low, high) in intervals.items():
        assert (low, high) == pytest.approx((expected[key], expected[key]), abs=1e-6), key
    twice = np.repeat(np.arange(300), 1 + labels)  # every generated image drawn twice
    drawn = bootstrap._figures(labels, probability, None, (0.05,), 15, np.array([1.0 + labels]))
    assert drawn["auroc"] == pytest.approx(roc_auc_score(labels[twice], probability[twice]))
    assert drawn["ap"] == pytest.approx(average_precision_score(labels[twice], probability[twice]))


@pytest.mark.parametrize("digits", [2, 12])
def test_the_tpr_of_a_resample_is_that_of_the_images_drawn(digits: int) -> None:
    labels, _, rng = _images(200)
    probability = np.round(1 / (1 + np.exp(-rng.normal(labels, 1.0))), digits)
    counts = resampled(labels, 20, rng)
    drawn = bootstrap_figures(labels, probability, None, (0.01, 0.05, 0.2), 15, counts)
    for row, count in enumerate(counts.astype(int)):
        index = np.repeat(np.arange(len(labels)), count)
        real, ai = (probability[index][labels[index] == label] for label in (0, 1))
        for rate in (0.01, 0.05, 0.2):
            expected = (ai >= threshold_at(real, rate)).mean()
            assert drawn[f"tpr_at_fpr_{rate * 100:g}%"][row] == pytest.approx(expected)


def test_verdicts_and_thresholds_are_measured_on_each_photo_source() -> None:
    labels = np.array([0, 0, 0, 0, 1, 1, 1])
    probability = np.array([0.1, 0.5, 0.95, 0.2, 0.9, 0.1, 0.5])
    sources = ["a", "a", "b", "b", "g", "g", "g"]
    figures = verdict_metrics(
        labels, probability, sources, Decision(0.3, 0.8, "a test"), (OperatingPoint(0.05, 0.92, 0.5),)
    )
    assert figures["unsure"] == pytest.approx(2 / 7)
    assert (figures["unsure_real"], figures["unsure_ai"]) == pytest.approx((1 / 4, 1 / 3))
    assert figures["error"] == pytest.approx(2 / 5)  # 0.95 called ai, 0.1 called real
    (point,) = figures["operating_points"]
    assert (point["false_positive_rate"], point["found"], point["true_positive_rate"]) == (0.05, 0.25, 0.0)
    assert list(point["found_by_source"].items()) == [("b", 0.5), ("a", 0.0)]


def test_balanced_calibration_error_does_not_depend_on_the_mix() -> None:
    rng = np.random.default_rng(0)
    probability = rng.random(200_000)
    labels = (rng.random(len(probability)) < probability).astype(int)  # calibrated where both are alike
    rare = (labels == 0) | (rng.random(len(labels)) < 0.05)
    few, odds = labels[rare], probability[rare]
    assert balanced_calibration_error(labels, probability) < 0.01
    assert balanced_calibration_error(few, odds) < 0.02
    assert binary_metrics(few[:5000], odds[:5000])["ece"] > 0.2
    assert balanced_calibration_error(few, np.sqrt(odds)) > 0.1


@pytest.mark.parametrize(
    ("labels", "probability", "expected"),
    [
        ([0, 1], [0.2, 0.9], 0.15),  # a bin each: half of |0 - 0.2| and half of |1 - 0.9|
        ([1, 0], [0.94, 1.0], 0.47),  # the last bin has both, 1 included
        ([0, 0, 0, 1], [0.0, 0.0, 0.3, 0.3], 0.3),  # 1/2 - 0.3 (1/6 + 1/2): one photo of three
        ([0, 1], [0.0, 1.0], 0.0),
    ],
)
def test_a_hand_made_calibration_error(labels: list[int], probability: list[float], expected: float) -> None:
    assert balanced_calibration_error(np.array(labels), np.array(probability)) == pytest.approx(expected)


def test_tables_of_several_sets_add_up() -> None:
    labels, _, rng = _images(300)
    probability = rng.random(300)
    parts = [reliability(labels[part], probability[part]) for part in (slice(0, 120), slice(120, None))]
    assert parts[0].shape == (2, 2, 15)
    assert calibration_error(parts[0] + parts[1]) == pytest.approx(balanced_calibration_error(labels, probability))


def test_figures_that_nothing_is_left_for_are_none() -> None:
    labels, unsure = np.array([0, 1]), np.array([0.5, 0.5])
    figures = verdict_metrics(labels, unsure, ["a", "g"], Decision(), (OperatingPoint(0.05, 0.5, 1.0),))
    assert (figures["unsure"], figures["error"]) == (1.0, None)
    assert figures["operating_points"][0]["found"] == 1.0  # at the threshold is above it
    alone = verdict_metrics(labels[1:], unsure[1:], ["g"], Decision(), (OperatingPoint(0.05, 0.5, 1.0),))
    assert (alone["unsure_real"], alone["operating_points"][0]["found_by_source"]) == (None, {})


def test_a_generator_without_any_photos_is_the_worst() -> None:
    by_source = metrics_by_source(np.array([1, 1]), np.array([0.9, 0.4]), ["b", "a"])
    assert [figures["auroc"] for figures in by_source.values()] == [None, None]
    assert [figures["content_auroc"] for figures in by_source.values()] == [None, None]
    with_photos = metrics_by_source(np.array([0, 0, 1, 1]), np.array([0.6, 0.1, 0.9, 0.2]), ["x", "y", "a", "b"])
    assert list(with_photos) == ["b", "a", "x", "y"]  # worst photos first, after the generators


def test_nothing_called_ai_has_no_precision() -> None:
    figures = binary_metrics(np.array([0, 1]), np.array([0.1, 0.2]))
    assert (figures["precision"], figures["recall"], figures["f1"], figures["accuracy"]) == (0.0, 0.0, 0.0, 0.5)
    assert binary_metrics(np.array([0, 1]), np.array([0.1, 0.5]))["recall"] == 1.0  # ai from 0.5 on


def test_every_photo_may_be_called_ai_at_a_rate_of_one() -> None:
    assert threshold_at(np.array([0.3, 0.2, 0.7]), 1.0) == 0.2


def test_resamples_keep_the_number_of_images_of_a_class_and_differ() -> None:
    groups = np.array([0, 1, 1, 0, 1, 2])
    counts = resampled(groups, 500, np.random.default_rng(0))
    assert counts.shape == (500, 6)
    for group, size in ((0, 2), (1, 3), (2, 1)):
        assert (counts[:, groups == group].sum(1) == size).all()
    assert counts.mean(0) == pytest.approx(np.ones(6), abs=0.15)
    assert len(np.unique(counts, axis=0)) > 10


def test_the_ends_of_an_interval_are_quantiles_of_a_thousand_resamples() -> None:
    labels, _, rng = _images(80)
    probability = rng.random(80)
    point = binary_metrics(labels, probability)
    intervals = bootstrap_intervals(labels, probability, None, (0.05,), 15, point, seed=3)
    counts = resampled(labels, 1000, np.random.default_rng(3))
    accuracies = counts @ ((probability >= 0.5) == (labels == 1)) / 80
    assert intervals["accuracy"] == pytest.approx(np.quantile(accuracies, [0.025, 0.975]))
    assert intervals == bootstrap_intervals(labels, probability, None, (0.05,), 15, point, seed=3)
    first = bootstrap_intervals(labels, probability, None, (0.05,), 15, point)
    assert first == bootstrap_intervals(labels, probability, None, (0.05,), 15, point, seed=0) != intervals
    assert "tpr_at_fpr_1%" not in intervals


def test_a_probability_of_one_half_is_ai_in_every_resample_too() -> None:
    labels, probability, once = np.array([0, 1, 1]), np.array([0.2, 0.5, 0.2]), np.ones((1, 3))
    assert bootstrap_figures(labels, probability, None, (), 15, once)["accuracy"].tolist() == [2 / 3]
    assert concordance(labels, probability, np.zeros(3, int)).tolist() == [0.75]  # one pair is equal


def test_many_images_are_resampled_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    from asr_train.figures import bootstrap

    monkeypatch.setattr(bootstrap, "_LARGEST_BLOCK", 2_100)  # 300 rows of 7 images
    blocks = list(bootstrap._resamples(np.array([0, 0, 0, 1, 1, 1, 1]), 0))
    assert [len(block) for block in blocks] == [300, 300, 300, 100]
    monkeypatch.setattr(bootstrap, "_LARGEST_BLOCK", 3)  # fewer than there are images
    assert len(list(bootstrap._resamples(np.array([0, 0, 1, 1]), 0))) == 1000


def test_of_the_verdicts_that_are_decided_the_wrong_ones_count_for_both_classes() -> None:
    labels = np.array([1, 1, 1, 1, 0, 0, 0])
    probability = np.array([0.9, 0.8, 0.1, 0.5, 0.9, 0.1, 0.2])  # ai, ai, real (wrong), unsure; ai (wrong), real, real
    figures = verdict_metrics(labels, probability, list("aaaarrr"), Decision(0.4, 0.6), [])
    assert figures["error"] == pytest.approx(2 / 6)
    assert (figures["unsure_ai"], figures["unsure_real"]) == (0.25, 0.0)
