"""The decision table: shares of verdicts, families alike, worst first."""

from __future__ import annotations

import numpy as np
import pytest

from asr_train.figures.decisions import decision_lines, decision_table

_LABELS = np.array([1] * 6 + [0] * 5)
_VERDICTS = ["ai", "ai", "real", "unsure", "ai", "ai", "real", "real", "ai", "unsure", "unsure"]
_NAMES = ["old"] * 4 + ["new"] * 2 + ["phone"] * 3 + ["scan"] * 2


def test_families_weigh_the_same_and_the_worst_stands_first() -> None:
    table = decision_table(_LABELS, _VERDICTS, _NAMES)
    assert list(table["ai"]["families"]) == ["old", "new"]
    assert table["ai"]["called_ai"] == pytest.approx((0.5 + 1.0) / 2)
    assert table["ai"]["called_real"] == pytest.approx(0.125)
    assert list(table["real"]["families"]) == ["phone", "scan"]
    assert table["real"]["called_ai"] == pytest.approx(1 / 6)
    assert table["decided"] == pytest.approx(1 - (0.125 + 0.5) / 2)
    assert table["error"] == pytest.approx((0.125 + 1 / 6) / 2 / table["decided"])


def test_images_weigh_the_same_where_that_is_asked_for() -> None:
    table = decision_table(_LABELS, _VERDICTS, _NAMES, per_family=False)
    assert table["ai"]["called_ai"] == pytest.approx(4 / 6)
    assert table["real"]["called_ai"] == pytest.approx(1 / 5)


def test_nothing_decided_has_no_error() -> None:
    table = decision_table(np.array([0, 1]), ["unsure", "unsure"], ["a", "b"])
    assert (table["decided"], table["error"]) == (0.0, None)
    assert "decided 0.0%, wrong - of the decided" in decision_lines(table)[0]


def test_the_lines_name_every_family() -> None:
    text = "\n".join(decision_lines(decision_table(_LABELS, _VERDICTS, _NAMES)))
    for name in ("old", "new", "phone", "scan"):
        assert name in text
