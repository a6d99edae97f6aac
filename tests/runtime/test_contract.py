"""The card: what it refuses, and that nothing is lost on the way through JSON."""

from __future__ import annotations

import dataclasses
import json
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from asr_runtime.contract import (
    Calibration,
    Decision,
    ModelCard,
    OperatingPoint,
    Preprocess,
    VideoRule,
    WholeLook,
    from_checkpoint,
    sigmoid,
)
from asr_runtime.errors import ModelError

CARD = ModelCard(
    name="asrnet",
    options={"dim": 32},
    preprocess=Preprocess("resize-crop", 224, 256, (0.1, 0.2, 0.3), (0.4, 0.5, 0.6)),
    calibration=Calibration(1.5, -0.25, "a split"),
    decision=Decision(0.3, 0.7, "a rule"),
    operating_points=(OperatingPoint(0.01, 0.9, 0.1), OperatingPoint(0.05, 0.7, 0.4)),
    training={"images": 2},
    metrics={"seen": {"auroc": 0.7}},
    checkpoint_sha256="ab" * 32,
    tool_versions={"torch": "2"},
    fft="matmul",
    precision="fp32",
)


def test_a_card_comes_back_from_json_as_it_was() -> None:
    assert ModelCard.from_json(CARD.to_json()) == CARD
    video = VideoRule(Calibration(0.5, 0.1, "clips"), Decision(0.2, 0.8, "a rule"))
    calibrated = dataclasses.replace(CARD, video=video)
    assert ModelCard.from_json(calibrated.to_json()) == calibrated


WHOLE = WholeLook(
    windows=((0.5, 0.5), (0.0, 0.0), (0.0, 1.0), (1.0, 0.0), (1.0, 1.0)),
    top=3,
    calibration=Calibration(0.9, -0.3, "a split"),
    decision=Decision(0.2, 0.8, "a rule"),
    operating_points=(OperatingPoint(0.05, 0.8, 0.6),),
    is_default=True,
    video=VideoRule(Calibration(0.5, 0.1, "clips"), Decision(0.2, 0.8, "a rule")),
)


def test_a_card_with_a_whole_look_comes_back_from_json() -> None:
    card = dataclasses.replace(CARD, preprocess=Preprocess("crop", 224), whole=WHOLE)
    assert ModelCard.from_json(card.to_json()) == card


def test_windows_need_a_model_that_crops() -> None:
    with pytest.raises(ValueError, match="windows need preprocess mode crop, and this is resize-crop"):
        dataclasses.replace(CARD, whole=WHOLE)


@pytest.mark.parametrize(
    ("height", "width", "corners"),
    [
        (301, 225, [(38, 0), (0, 0), (0, 1), (77, 0), (77, 1)]),
        (301, 100, [(38, 0), (0, 0), (77, 0)]),
        (224, 224, [(0, 0)]),
        (1, 1, [(0, 0)]),
    ],
    ids=["room both ways", "narrow", "exactly a window", "a pixel"],
)
def test_windows_lie_in_the_room_that_the_picture_leaves(height: int, width: int, corners: list[Any]) -> None:
    assert WHOLE.corners(height, width, 224) == corners


def test_the_margin_of_a_picture_is_the_mean_of_the_largest() -> None:
    assert WHOLE.margin([-1.0, 3.0, 0.5, 2.0, -7.0]) == pytest.approx((3.0 + 2.0 + 0.5) / 3)
    assert WHOLE.margin([-1.0, 3.0]) == pytest.approx(1.0)


def test_a_calibration_gives_probabilities_of_any_margin() -> None:
    calibration = Calibration(2.0, 0.25)
    assert calibration.probability(1.0) == pytest.approx(1 / (1 + math.exp(-0.75)))
    assert calibration.probability(-1e9) == pytest.approx(0.0)
    assert calibration.probability(1e9) == 1.0


def test_a_card_without_a_rule_for_videos_is_read() -> None:
    plain = json.loads(CARD.to_json())
    del plain["video"]
    assert ModelCard.from_json(json.dumps(plain)) == CARD


def _set(card: dict[str, Any], path: str, value: Any) -> None:
    *parents, last = path.split(".")
    for name in parents:
        card = card[int(name)] if isinstance(card, list) else card[name]
    if value is ...:
        del card[last]
    else:
        card[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("schema", 2, "schema 2, this version reads 1"),
        ("schema", ..., "schema None"),
        ("name", ..., "field 'name' is missing"),
        ("name", 7, "ModelCard.name: 7, expected str"),
        ("colour", "red", "unknown field 'colour'"),
        ("fft", "fast", "ModelCard.fft: 'fast', expected one of 'matmul', 'dft'"),
        ("classes", ["ai", "real"], r"classes \['ai', 'real'\]: expected \['real', 'ai'\]"),
        ("preprocess.mode", "zoom", "ModelCard.preprocess.mode: 'zoom'"),
        ("preprocess.size", 0, "preprocess size 0"),
        ("preprocess.size", True, "preprocess.size: True, expected int"),
        ("preprocess.resize", 100, "resize 100 is smaller than the crop 224"),
        ("video", {"calibration": {}}, "field 'decision' is missing"),
        ("preprocess.mean", [0.1, 0.2], "preprocess.mean: 2 values, expected 3"),
        ("calibration.temperature", 0, "temperature > 0"),
        ("decision.real_below", 0.8, "real_below <= ai_from"),
        ("decision.real_below", 0.51, "0.51 and 0.7 contradict the probabilities"),
        ("decision", {"real_below": 0.0004, "ai_from": 0.0004, "rule": "collapsed"}, "expected real_below <= 0.5"),
        ("decision", {"real_below": 0.5, "ai_from": 0.5, "rule": "no band"}, "0.5 < ai_from; train again"),
        (
            "video",
            {"calibration": {}, "decision": {"real_below": 0.1, "ai_from": 0.2}},
            "thresholds 0.1 and 0.2 contradict",
        ),
        ("operating_points.0.threshold", "high", r"operating_points\[0\].threshold: 'high', expected float"),
        ("operating_points.1.threshold", float("nan"), "operating point: expected"),
        ("tool_versions", ["torch"], "tool_versions: list, expected an object"),
    ],
)
def test_a_card_that_is_not_right_is_refused_by_name(path: str, value: Any, message: str) -> None:
    card = json.loads(CARD.to_json())
    _set(card, path, value)
    with pytest.raises(ModelError, match=message) as caught:
        ModelCard.from_json(json.dumps(card))
    assert "\n" not in str(caught.value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(), lambda x: st.lists(x) | st.dictionaries(st.text(), x)
    )
)
def test_any_other_json_is_refused_without_a_traceback(value: Any) -> None:
    with pytest.raises(ModelError):
        ModelCard.from_json(json.dumps(value))


def test_json_that_is_nested_without_end_is_refused() -> None:
    with pytest.raises(ModelError, match="not valid JSON"):
        ModelCard.from_json("[" * 100_000)


@given(st.text(max_size=200))
def test_any_text_is_refused_without_a_traceback(text: str) -> None:
    with pytest.raises(ModelError):
        ModelCard.from_json(text)


@given(low=st.floats(0, 0.5), high=st.floats(0.5, 1, exclude_min=True), probability=st.floats(0, 1))
def test_a_verdict_follows_the_band(low: float, high: float, probability: float) -> None:
    verdict = Decision(low, high).verdict(probability)
    assert verdict == ("ai" if probability >= high else "real" if probability < low else "unsure")


@pytest.mark.parametrize(
    "fact",
    [CARD, WHOLE, CARD.preprocess, CARD.calibration, CARD.decision, CARD.operating_points[0], WHOLE.video],
    ids=lambda fact: type(fact).__name__,
)
def test_facts_cannot_be_changed_afterwards(fact: Any) -> None:
    name = dataclasses.fields(fact)[0].name
    with pytest.raises(dataclasses.FrozenInstanceError):
        setattr(fact, name, getattr(fact, name))


def test_facts_that_are_left_out_mean_nothing_is_changed() -> None:
    plain = Preprocess("crop", 1)
    assert (plain.resize, plain.mean, plain.std) == (None, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert Calibration().log_odds(0.75) == 0.75
    assert [Decision().verdict(p) for p in (0.39, 0.4, 0.59, 0.6)] == ["real", "unsure", "unsure", "ai"]
    assert (CARD.parity, CARD.video, CARD.whole, CARD.classes, CARD.schema) == ({}, None, None, ("real", "ai"), 1)
    assert WholeLook(((0.5, 0.5),), 1, Calibration(), Decision(), (), False).video is None


@pytest.mark.parametrize(
    "made",
    [
        lambda: OperatingPoint(0.0, 0.0, 0.0),
        lambda: OperatingPoint(1.0, 1.0, 1.0),
        lambda: Decision(0.0, 1.0),
        lambda: Decision(0.5, 0.51),
        lambda: Preprocess("resize-crop", 224, 224),
        lambda: dataclasses.replace(WHOLE, top=1),
        lambda: dataclasses.replace(WHOLE, top=5),
    ],
)
def test_the_ends_of_a_range_belong_to_it(made: Any) -> None:
    made()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        *((lambda v=v, i=i: OperatingPoint(*(v if i == k else 0.5 for k in range(3))), "from 0 to 1")
          for v in (-0.01, 1.01) for i in range(3)),
        (lambda: Decision(-0.1, 0.6), "0 <= real_below"),
        (lambda: Decision(0.4, 1.1), "ai_from <= 1"),
        (lambda: Preprocess("crop", -1), "preprocess size -1"),
        (lambda: Preprocess("crop", 224, 256), "`resize` belongs to mode resize-crop"),
        (lambda: Preprocess("resize-crop", 224), "`resize` belongs to mode resize-crop"),
        *((lambda t=t: Calibration(t), "temperature > 0") for t in (-1.0, math.inf, math.nan)),
        *((lambda s=s: Calibration(1.0, s), "both finite") for s in (-math.inf, math.nan)),
        (lambda: dataclasses.replace(WHOLE, windows=()), "the centre"),
        (lambda: dataclasses.replace(WHOLE, stops=((-1.0, 1.0),)), "mean of all windows"),
        (lambda: dataclasses.replace(WHOLE, top=len(WHOLE.windows), stops=((1.0, 1.0),)), "the lower one first"),
        (lambda: dataclasses.replace(WHOLE, windows=((0.5, 0.4),), top=1), "the centre"),
        (lambda: dataclasses.replace(WHOLE, windows=((0.5, 0.5), (0.5, 1.1))), "places from 0 to 1"),
        (lambda: dataclasses.replace(WHOLE, windows=((0.5, 0.5), (-0.1, 0.5))), "places from 0 to 1"),
        (lambda: dataclasses.replace(WHOLE, top=0), "top 0, expected 1 to 5"),
        (lambda: dataclasses.replace(WHOLE, top=6), "top 6, expected 1 to 5"),
        (lambda: dataclasses.replace(CARD, metrics={"x": math.nan}).to_json(), "Out of range"),
    ],
)  # fmt: skip
def test_what_lies_outside_its_range_is_refused(made: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        made()


def test_whole_numbers_are_read_as_numbers_and_truth_values_are_not() -> None:
    card = json.loads(CARD.to_json())
    card["calibration"]["temperature"] = 2
    assert type(ModelCard.from_json(json.dumps(card)).calibration.temperature) is float
    for path, message in (
        ("calibration.temperature", "True, expected float"),
        ("operating_points", "bool, expected a list"),
    ):
        card = json.loads(CARD.to_json())
        _set(card, path, True)
        with pytest.raises(ModelError, match=message):
            ModelCard.from_json(json.dumps(card))


def test_the_same_card_is_the_same_text() -> None:
    turned = dataclasses.replace(CARD, tool_versions={"torch": "2", "numpy": "1"})
    assert turned.to_json() == dataclasses.replace(CARD, tool_versions={"numpy": "1", "torch": "2"}).to_json()


@given(st.floats(allow_nan=False, allow_infinity=False), st.floats(min_value=5e-324, max_value=1e300))
def test_every_margin_has_a_probability_at_any_temperature(margin: float, temperature: float) -> None:
    calibration = Calibration(temperature)
    probability = calibration.probability(margin)
    assert 0.0 <= probability <= 1.0
    assert (probability > 0.5) <= (margin > 0)
    assert (probability < 0.5) <= (margin < 0)
    assert calibration.probability(np.array([margin]))[0] == probability


def test_a_probability_is_the_logistic_function_and_keeps_small_digits() -> None:
    calibration = Calibration(2.0, 0.25)
    margins = np.array([[-1400.0, -80.0], [0.0, 3.0]])
    probability = calibration.probability(margins)
    assert probability.shape == margins.shape
    assert probability == pytest.approx(1 / (1 + np.exp(-(margins / 2.0 + 0.25))), rel=1e-12)
    assert 0 < probability[0, 0] < 1e-300
    assert np.isnan(sigmoid(np.array([np.nan]))).all()
    assert isinstance(calibration.probability(np.float32(3.0)), float)


def test_thresholds_of_a_checkpoint_are_refused_by_its_name() -> None:
    with pytest.raises(ModelError, match=r"checkpoint net: decision: thresholds 0.1 and 0.2 contradict"):
        from_checkpoint(Decision, {"real_below": 0.1, "ai_from": 0.2}, "net")
    with pytest.raises(ModelError, match="checkpoint net: Decision: unknown field 'low'"):
        from_checkpoint(Decision, {"low": 0.1}, "net")


def test_a_quick_look_ends_where_the_mean_of_the_margins_leaves_the_range_of_its_stop() -> None:
    look = dataclasses.replace(WHOLE, top=len(WHOLE.windows), stops=((-1.0, 1.0), (-0.5, 0.5)))
    ends = {
        margins: look.stops_at(margins) for margins in ((), (0.9,), (1.0,), (-0.9,), (-1.0,), (0.9, 0.0), (1.0, 0.0))
    }
    assert ends == {
        **{(): False, (0.9,): False, (1.0,): True, (-0.9,): False, (-1.0,): True},
        **{(0.9, 0.0): False, (1.0, 0.0): True},
    }
    assert not look.stops_at((9.0, 9.0, 9.0)), "there is no third stop"


def test_one_margin_gives_a_number_and_many_give_an_array() -> None:
    assert isinstance(Calibration().log_odds(1.0), float)
    assert isinstance(Calibration().probability(1.0), float)
    assert Calibration().log_odds(np.ones(2)).shape == (2,)


def test_the_largest_network_input_is_4096_pixels() -> None:
    assert Preprocess("resize-crop", 4096, 4096).size == 4096
    for wrong in (lambda: Preprocess("crop", 4097), lambda: Preprocess("resize-crop", 224, 4097)):
        with pytest.raises(ValueError, match="expected 1 to 4096 pixels"):
            wrong()
