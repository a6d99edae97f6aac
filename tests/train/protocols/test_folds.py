"""Folds compare what may be compared, and their content probe sees what their detector may see."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from asr_runtime.contract import Decision, OperatingPoint
from asr_runtime.errors import DatasetError
from asr_train.data.layouts import DataFolder, Sample
from asr_train.figures.scoring import Scored
from asr_train.protocols import folds as folds_module
from asr_train.protocols.folds import Fold, FoldContent, folds_of, judged_generators
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
    figures = _pooled(judged)
    assert (figures["auroc"], figures["ca_auroc"]) == (1.0, 1.0)


def test_folds_of_many_images_are_found_quickly() -> None:
    data = _data(8_000)
    (fold,) = folds_of(data, "left out", with_photos=False)
    assert isinstance(fold, Fold)
    assert len(fold.samples) == 3 * 8_000


def _counted(*counts: tuple[str, int, int]) -> DataFolder:
    """A data folder with so many pictures of (source, label) in both splits."""
    samples = tuple(Sample(Path(f"{name} {label} {i}"), label, name) for name, label, n in counts for i in range(n))
    return DataFolder(Path("data"), "generators", samples, samples, ())


def test_generators_with_enough_pictures_are_judged() -> None:
    data = _counted(("photos", 0, 9), ("small", 1, 2), ("z", 1, 3), ("a", 1, 4))
    assert judged_generators(data, 3) == ["a", "z"]
    assert judged_generators(_counted(("photos", 0, 9), ("a", 1, 4), ("z", 1, 2)), 3) == ["a"]  # two are enough
    with pytest.raises(
        DatasetError, match=r"one of them with 5 validation images; found a \(4\), small \(2\), z \(3\)"
    ):
        judged_generators(data, 5)
    with pytest.raises(DatasetError, match=r"two generators or more.*found a \(4\)"):
        judged_generators(_counted(("photos", 0, 9), ("a", 1, 4)), 3)


def test_a_fold_judges_its_generator_by_all_photos_or_by_those_of_one_source() -> None:
    data = _counted(("photos", 0, 2), ("snaps", 0, 3), ("a", 1, 4), ("a", 0, 1), ("b", 1, 5))
    (plain,) = folds_of(data, "a", with_photos=False)
    assert (plain.generator, plain.photos, plain.without) == ("a", None, ("a",))
    assert sorted({(s.source, s.label) for s in plain.samples}) == [("a", 0), ("a", 1), ("photos", 0), ("snaps", 0)]
    both = folds_of(data, "a", with_photos=True)
    assert [(fold.photos, fold.without) for fold in both] == [("photos", ("a", "photos")), ("snaps", ("a", "snaps"))]
    assert [sorted({(s.source, s.label) for s in fold.samples}) for fold in both] == [
        [("a", 1), ("photos", 0)],
        [("a", 1), ("snaps", 0)],
    ]
    with pytest.raises(DatasetError, match="needs two photo sources or more"):
        folds_of(_counted(("photos", 0, 2), ("a", 1, 2), ("b", 1, 2)), "a", with_photos=True)
    assert len(folds_of(_counted(("photos", 0, 2), ("a", 0, 1), ("a", 1, 2)), "a", with_photos=True)) == 1


def test_the_probe_may_have_seen_less_than_the_fold_says(monkeypatch: pytest.MonkeyPatch) -> None:
    data = _data()
    seen: list[list[str]] = []

    def fitted(features: NDArray[np.float32], samples: Sequence[Sample]) -> object:
        seen.append(sorted({s.source for s in samples}))
        return type("Probe", (), {"score_features": staticmethod(lambda rows: rows[:, 0])})

    monkeypatch.setattr(folds_module, "content_features", lambda s, progress: np.arange(len(s))[:, None])
    monkeypatch.setattr(folds_module, "fit_features", fitted)
    content = FoldContent(data, progress=False)
    (fold,) = folds_of(data, "left out", with_photos=False)
    scores = content(fold)
    assert [data.val[int(row)] for row in scores] == list(fold.samples)
    content(fold, {"snaps", "left out"})
    content(fold, {"left out"})  # known already
    assert seen == [["other", "photos", "snaps"], ["other", "photos"]]
