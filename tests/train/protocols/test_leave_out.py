"""Leaving one generator out: what is pooled, and the means over generators."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiny_training import tiny

from asr_runtime.contract import Decision, OperatingPoint
from asr_runtime.errors import DatasetError
from asr_train.data.layouts import Sample
from asr_train.figures.metrics import balanced_calibration_error, reliability
from asr_train.figures.scoring import Scored
from asr_train.fitting.config import recipe
from asr_train.protocols.folds import Fold
from asr_train.protocols.leave_out import _Judged, _pooled, _summary, leave_out_protocol


def _judged(photos: str, real: list[float], ai: list[float], threshold: float) -> tuple[Fold, _Judged, Any]:
    samples = tuple(Sample(Path(f"{photos} {i}"), int(i >= len(real)), photos) for i in range(len(real) + len(ai)))
    probability = np.array([*real, *ai])
    labels = np.array([s.label for s in samples])
    scored = Scored(samples, labels, probability, np.log(probability / (1 - probability)), {})
    points = (OperatingPoint(0.01, 0.99, 0.5), OperatingPoint(0.05, threshold, 0.5))
    fold = Fold("generator", photos, samples, ("generator", photos))
    return fold, _Judged(scored, Decision(), points), np.zeros(len(samples))


def test_false_positives_are_counted_per_photo_source_by_the_threshold_of_five_percent() -> None:
    one = _judged("phone", [0.1, 0.2, 0.7, 0.9], [0.8, 0.6], 0.7)
    other = _judged("scan", [0.3], [0.8, 0.2], 0.9)
    figures = _pooled([one, other])
    assert figures["false_positives"] == {
        "phone": {"photos": 4, "found": 0.5},
        "scan": {"photos": 1, "found": 0.0},
    }
    assert figures["false_positive_rate_at_5%"] == pytest.approx(2 / 5)
    assert figures["images"] == 9
    # Pairs within a fold: of 8 and 2 pairs, 5 and 1 are in the right order.
    assert figures["auroc"] == figures["ca_auroc"] == pytest.approx(6 / 10)
    labels = np.array([0, 0, 0, 0, 1, 1, 0, 1, 1])
    probability = np.array([0.1, 0.2, 0.7, 0.9, 0.8, 0.6, 0.3, 0.8, 0.2])
    assert figures["balanced_ece"] == pytest.approx(balanced_calibration_error(labels, probability))
    assert figures["reliability"] == reliability(labels, probability).tolist()


def test_content_that_parts_the_classes_of_every_fold_leaves_no_adjusted_figure() -> None:
    fold, judged, _ = _judged("phone", [0.1] * 8, [0.9] * 8, 0.7)
    figures = _pooled([(fold, judged, np.array([-5.0] * 8 + [5.0] * 8))])
    assert (figures["ca_auroc"], figures["auroc"]) == (None, 1.0)


def test_means_are_over_the_generators_that_have_the_figure() -> None:
    tables = [reliability(np.array([0, 1]), np.array(p)) for p in ([0.2, 0.9], [0.4, 0.5])]
    results = {
        "a": {"auroc": 0.8, "ca_auroc": None, "reliability": tables[0].tolist(), "degraded": {"blur": {"auroc": 0.7}}},
        "b": {"auroc": 0.6, "ca_auroc": 0.5, "reliability": tables[1].tolist(), "degraded": {"blur": {"auroc": 0.5}}},
    }
    for figures in results.values():
        figures["degraded"]["blur"]["ca_auroc"] = None  # type: ignore[index]
    summary = _summary({"protocol": "x", "degradations": ["blur"]}, results)
    assert (summary["mean_auroc"], summary["mean_ca_auroc"]) == pytest.approx((0.7, 0.5))
    assert "mean_accuracy" not in summary
    together = balanced_calibration_error(np.array([0, 1, 0, 1]), np.array([0.2, 0.9, 0.4, 0.5]))
    assert summary["pooled_balanced_ece"] == pytest.approx(together)
    assert summary["mean_degraded"] == {"blur": {"auroc": pytest.approx(0.6), "ca_auroc": None}}
    plain = _summary({"protocol": "x"}, {"a": {"auroc": 0.8}})
    assert plain == {"protocol": {"protocol": "x"}, "mean_auroc": 0.8, "generators": {"a": {"auroc": 0.8}}}


def test_figures_that_stand_there_are_taken_under_the_same_configuration_and_no_other(
    generators: Path, tmp_path: Path
) -> None:
    config = tiny(generators, views=1)
    runs = tmp_path / "new" / "runs"

    def judged(**changed: Any) -> dict[str, Any]:
        result = leave_out_protocol(
            "leave-one-generator-out", dataclasses.replace(config, **changed), runs, at_least=3, progress=False
        )
        return {name: figures["auroc"] for name, figures in result["generators"].items()}

    first = judged()
    path = runs / "leave-one-generator-out.json"
    stored = json.loads(path.read_text())
    assert stored["generators"]["sd3"]["run"] is None  # its head is solved for, without a training
    stored["generators"]["sd3"]["auroc"] = 0.123
    del stored["generators"]["midjourney"]
    path.write_text(json.dumps(stored))
    assert judged() == {**first, "sd3": 0.123}  # one stands there, the other is computed
    assert judged(ridge=2.0)["sd3"] != 0.123


def test_generators_need_ten_pictures_where_nothing_else_is_asked_for(generators: Path, tmp_path: Path) -> None:
    with pytest.raises(DatasetError, match="one of them with 10 validation images"):
        leave_out_protocol("leave-one-generator-out", recipe("asrnet-lite", data=str(generators)), tmp_path)
