"""Folds compare what may be compared, and their content probe sees what their detector may see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_runtime.contract import Decision, OperatingPoint
from asr_train.data.layouts import DataFolder, Sample
from asr_train.figures.scoring import Scored
from asr_train.protocols import folds as folds_module
from asr_train.protocols.folds import Fold, FoldContent, folds_of
from asr_train.protocols.leave_out import _Judged, _pooled

_SOURCES = (("photos", 0), ("snaps", 0), ("left out", 1), ("other", 1))


def _data(count: int = 12) -> DataFolder:
    def samples(split: str) -> tuple[Sample, ...]:
        return tuple(Sample(Path(split, f"{s} {i}"), label, s) for s, label in _SOURCES for i in range(count))

    return DataFolder(Path(), "generators", samples("train"), samples("val"), ())


def test_the_probe_of_a_fold_never_saw_what_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    (fold,) = folds_of(data, "left out", with_photos=False)

    def scores(shifted: str | None) -> NDArray[np.float64]:
        """Scores of the fold when the training pictures of one source show something else."""

        def features(samples: Sequence[Sample], progress: bool) -> NDArray[np.float32]:
            rows = np.random.default_rng(len(samples[0].path.parts[0])).normal(size=(len(samples), 5))
            rows[:, 0] += np.array([s.label for s in samples])
            rows[[s.path.parts[0] == "train" and s.source == shifted for s in samples], 1] += 20.0
            return rows.astype(np.float32)

        monkeypatch.setattr(folds_module, "content_features", features)
        return FoldContent(data, progress=False)(fold)

    assert np.array_equal(scores("left out"), scores(None))
    assert not np.allclose(scores("other"), scores(None))


def test_images_of_different_folds_are_not_compared() -> None:
    """Two heads, each in perfect order, whose margins lie apart: only within a fold does their order say anything."""
    data, judged = _data(), []
    for number, fold in enumerate(folds_of(data, "left out", with_photos=True)):
        labels = np.array([sample.label for sample in fold.samples])
        margins = labels + 10.0 * number
        scored = Scored(fold.samples, labels, 1 / (1 + np.exp(-margins)), margins, {})
        judged.append((fold, _Judged(scored, Decision(), (OperatingPoint(0.05, 0.9, 0.5),)), np.zeros(len(labels))))
    assert len(judged) == 2
    found = _pooled(judged)
    assert (found["auroc"], found["ca_auroc"]) == (1.0, 1.0)


def test_folds_of_many_images_are_found_quickly() -> None:
    data = _data(8_000)
    (fold,) = folds_of(data, "left out", with_photos=False)
    assert isinstance(fold, Fold)
    assert len(fold.samples) == 3 * 8_000
