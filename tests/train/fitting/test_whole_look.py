"""The whole look is calibrated on what the runtime will compute: different windows, the largest margins."""

from __future__ import annotations

import numpy as np
import pytest

from asr_runtime.contract import WholeLook
from asr_train.data.windows import window_places
from asr_train.figures.calibrate import calibrate
from asr_train.fitting.whole_look import has_room, judged, pooled, whole_look


def _margins(seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Windows that tell a little each; the last ten pictures have room for the centre only."""
    rng = np.random.default_rng(seed)
    labels = np.arange(400) % 2
    margins = (labels[:, None] - 0.5) + rng.normal(0, 1.0, (400, 5))
    margins[-10:] = margins[-10:, :1]
    return labels, margins


def _look(top: int) -> WholeLook:
    labels, margins = _margins()
    look = whole_look(labels, margins, window_places(5), top, "here")
    assert look is not None
    return look


@pytest.mark.parametrize("top", [1, 3, 5])
def test_pooling_is_that_of_the_card(top: int) -> None:
    _, margins = _margins()
    look = _look(top)
    expected = [look.margin(list(dict.fromkeys(row.tolist()))) for row in margins]
    assert pooled(margins, top) == pytest.approx(expected, abs=1e-5)


def test_windows_on_the_same_pixels_count_once() -> None:
    assert pooled(np.array([[1.0, 1.0, 1.0, 4.0, 4.0]]), 5) == pytest.approx([2.5])
    assert has_room(np.array([[1.0, 1.0], [1.0, 2.0]])).tolist() == [False, True]


def test_a_whole_look_is_the_default_where_it_ranks_better() -> None:
    assert _look(5).is_default
    labels, margins = _margins()
    margins[:-10, 1:] = np.random.default_rng(1).normal(0, 9.0, (390, 4))
    worse = whole_look(labels, margins, window_places(5), 5, "here")
    assert worse is not None
    assert not worse.is_default


def test_without_room_or_windows_there_is_no_whole_look() -> None:
    labels, margins = _margins()
    assert whole_look(labels, margins[:, :1], window_places(1), 1, "here") is None
    assert whole_look(labels[-10:], margins[-10:], window_places(5), 5, "here") is None


def test_a_picture_without_room_is_judged_by_its_centre() -> None:
    labels, margins = _margins()
    centre = calibrate(labels, margins[:, 0], "here")
    probability, verdicts = judged(margins, centre, _look(5))
    assert probability[-10:] == pytest.approx(centre.calibration.probability(margins[-10:, 0]))
    assert probability[0] == pytest.approx(_look(5).calibration.probability(margins[0].mean()), abs=1e-5)
    assert verdicts[-1] == centre.decision.verdict(float(probability[-1]))
