"""Whether thresholds keep their promise is measured on pictures that training and thresholds never saw."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import cv2
import numpy as np
import pytest

from asr_bench.promise import Promise, lay_out, promises, promises_table
from asr_runtime.errors import DatasetError
from asr_runtime.media.image import read_image
from asr_train.data.layouts import find_data
from asr_train.fitting.config import ClosedFormConfig, recipe


def test_the_halves_are_laid_out_as_published_and_share_no_picture(generators: Path, tmp_path: Path) -> None:
    folder = generators / "photos" / "train" / "nature"
    for file in sorted(folder.iterdir()):
        cv2.imwrite(str(folder / f"copy-{file.stem}.jpg"), read_image(file), [cv2.IMWRITE_JPEG_QUALITY, 80])
    data = find_data(generators)
    first, second = (find_data(root) for root in lay_out(data, tmp_path / "halves", 1000))
    sides = []
    for one in (first, second):
        assert (one.layout, {s.source for s in one.train}) == ("folders", {"real", "fake"})
        trained = {s.path.resolve().name.removeprefix("copy-") for s in (*one.train, *one.val)}
        judged = {s.path.resolve().name.removeprefix("copy-") for s in one.test}
        assert trained.isdisjoint(judged)  # a copy of a picture is on the same side, too
        assert len(one.train) + len(one.val) + len(one.test) == len(data.train) + len(data.val)
        sides.append((trained, judged))
    assert sides[0] == sides[1][::-1]


def test_as_many_pictures_are_taken_as_asked_for(generators: Path, tmp_path: Path) -> None:
    data = find_data(generators)
    roots = lay_out(data, tmp_path / "few", 10)
    assert len([file for file in roots[0].rglob("*") if file.is_symlink()]) == 20
    with pytest.raises(DatasetError, match="four distinct pictures or more of the class real"):
        lay_out(data, tmp_path / "fewer", 3)


def test_a_promise_is_broken_by_more_photos_than_its_thresholds_explain() -> None:
    """Thresholds are an order statistic of some photos, and judged by others of the same kind: by simulation."""
    rng = np.random.default_rng(0)
    trained, judged = rng.normal(size=(4000, 200)), rng.normal(size=(4000, 150))
    thresholds = np.sort(trained, axis=1)[:, 189]  # ten of the 200 lie above it
    called = (judged > thresholds[:, None]).sum(1)
    promise = Promise("verdict ai", 0.05, 0, 150, 200, 0.5)
    low, high = promise.expected
    assert 0.94 < np.mean((called >= low) & (called <= high)) < 0.99
    assert dataclasses.replace(promise, called=high).is_kept
    assert not dataclasses.replace(promise, called=high + 1).is_kept
    assert dataclasses.replace(promise, called=3).interval == pytest.approx((0.0041, 0.0573), abs=1e-4)


def test_both_halves_are_trained_on_and_judged(generators: Path, tmp_path: Path) -> None:
    halves = []
    for root in lay_out(find_data(generators), tmp_path / "halves", 1000):
        config = recipe("asrnet-lite", options={"blocks": 1}, data=str(root), views=1, batch_size=4, workers=0)
        assert isinstance(config, ClosedFormConfig)
        config = dataclasses.replace(config, preprocess={**config.preprocess, "size": 32})
        halves.append(promises(config, tmp_path / "runs"))
    for one in halves:
        assert [(p.name, p.rate) for p in one] == [
            ("operating point", 0.01),
            ("operating point", 0.05),
            ("verdict ai", 0.05),
        ]
        assert {p.photos for p in one} == {12}
        assert all(0 <= p.called <= p.photos and p.fitted_on == 11 for p in one)
        assert one[0].called <= one[1].called
    assert "| second half | verdict ai | 5% |" in promises_table(halves)
