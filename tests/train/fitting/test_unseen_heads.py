"""Heads that have not seen a picture, where a source is the only one of its class."""

from __future__ import annotations

import dataclasses
import shutil
from collections.abc import Iterable
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import binomtest
from tiny_training import network_with_two_blocks, tiny

from asr_models import load_checkpoint
from asr_runtime.contract import OperatingPoint
from asr_runtime.errors import DatasetError
from asr_runtime.media.image import read_image
from asr_train.data.layouts import find_data
from asr_train.figures.calibrate import calibrate
from asr_train.figures.scoring import score_checkpoint
from asr_train.fitting.closed_form import ClosedForm
from asr_train.fitting.fit import train


def _noise(folder: Path, count: int, seed: int) -> None:
    """Write pictures that nothing tells apart: a head can only learn them by heart."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(seed)
    for number in range(count):
        coarse = rng.integers(0, 256, (6, 6, 3)).astype(np.float32)
        image = cv2.resize(coarse, (48, 48), interpolation=cv2.INTER_CUBIC) + rng.normal(0, 12, (48, 48, 3))
        cv2.imwrite(str(folder / f"{number}.png"), np.clip(image, 0, 255).astype(np.uint8))


def test_a_lone_source_is_calibrated_on_pictures_that_the_head_never_saw(tmp_path: Path) -> None:
    """In the layout `folders` each class is one source; photos of the other half of the data are still no fakes."""
    data = tmp_path / "dataset"
    for number, name in enumerate(("0_real", "1_fake")):
        _noise(data / "train" / name, 40, 2 * number)
        _noise(data / "val" / name, 40, 2 * number + 1)
    config = dataclasses.replace(tiny(data), ridge=1e-6, views=1, plain_weight=0.95)
    run = train(config, tmp_path / "runs")
    loaded = load_checkpoint(run.checkpoint)
    for fitted_on in (loaded.calibration["fitted_on"], loaded.video["calibration"]["fitted_on"]):
        assert "never saw the image or a near duplicate of it, but other images of its source" in fitted_on
        assert "never saw its source" not in fitted_on
    assert run.summary["lone_sources"] == ["0_real", "1_fake"]
    solved = ClosedForm(network_with_two_blocks(), config, find_data(data), tmp_path / "runs")
    photos = score_checkpoint(loaded, find_data(data).val, 90)

    def broken(points: Iterable[OperatingPoint], probability: NDArray[np.float64]) -> list[float]:
        """Promised false-positive rates below the interval of what is measured on the other half."""
        real = probability[photos.labels == 0]
        called = [(point, int((real >= point.threshold).sum())) for point in points]
        return [
            p.false_positive_rate for p, n in called if binomtest(n, 40).proportion_ci().low > p.false_positive_rate
        ]

    assert broken([OperatingPoint(**point) for point in loaded.operating_points], photos.probability) == []
    seen = calibrate(
        np.repeat([0, 1], 40),
        solved.store.margins(solved.head(), np.arange(80))[:, 0],
        "pictures that the head has seen",
    )
    assert broken(seen.operating_points, seen.calibration.probability(photos.margins)) == [0.01, 0.05]


def test_one_lone_source_among_several_is_named(generators: Path, tmp_path: Path) -> None:
    shutil.rmtree(generators / "snaps")
    solved = ClosedForm(network_with_two_blocks(), tiny(generators), find_data(generators), tmp_path)
    assert solved.heads.lone_sources == ("photos",)
    assert "never saw its source (photos: never saw the image or a near duplicate of it" in solved.calibrated_on()


def test_near_duplicates_of_a_lone_source_are_left_out_together(folders: Path, tmp_path: Path) -> None:
    """A copy at another quality would tell the head all about the picture that it is judged by."""
    for name in ("0_real", "1_fake"):
        for path in sorted((folders / "train" / name).iterdir()):
            cv2.imwrite(str(path.with_name(f"{path.stem}-copy.jpg")), read_image(path), [cv2.IMWRITE_JPEG_QUALITY, 80])
    solved = ClosedForm(network_with_two_blocks(), tiny(folders), find_data(folders), tmp_path)
    for label, source in enumerate(("0_real", "1_fake")):
        folds = solved.heads._folds(label, source)
        fold_of = {s.path.stem: number for number, rows in enumerate(folds) for s in solved.store.samples(rows)}
        assert len(folds) == len(set(fold_of.values())) > 1
        for stem, number in fold_of.items():
            assert fold_of.get(f"{stem}-copy", number) == number


def test_a_lone_source_of_one_picture_is_refused(generators: Path, tmp_path: Path) -> None:
    shutil.rmtree(generators / "photos")
    first, *others = sorted((generators / "snaps" / "train" / "nature").iterdir())
    for path in others:
        shutil.copy(first, path)
    with pytest.raises(DatasetError, match="snaps is the only source of real images and has 1 distinct image"):
        train(tiny(generators), tmp_path)
