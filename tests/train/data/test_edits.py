"""Edits change what they name, and training draws all of them for both classes alike."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from asr_models import InputTransform
from asr_runtime.media.image import read_image
from asr_train.data.augment import Augment
from asr_train.data.batches import TrainingImages
from asr_train.data.degradations import FAMILIES
from asr_train.data.edits import EDITS, edited
from asr_train.data.layouts import Sample


@pytest.fixture
def photo(examples: Path) -> NDArray[np.uint8]:
    return read_image(examples / "real" / "blouse.jpg")[:220, :200]


def _colourfulness(image: NDArray[np.uint8]) -> float:
    return float(np.ptp(image.astype(int), axis=2).mean())


def _sharpness(image: NDArray[np.uint8]) -> float:
    return float(cv2.Laplacian(image, cv2.CV_64F).var())


def test_colour_edits_change_colours_and_leave_edges_where_they_are(photo: NDArray[np.uint8]) -> None:
    assert _colourfulness(EDITS["grey"].apply(photo, 1)) == 0
    assert _colourfulness(EDITS["saturation"].apply(photo, 2)) > _colourfulness(photo)
    night = EDITS["night-light"].apply(photo, 0.5)
    assert night[..., 0].mean() < 0.6 * photo[..., 0].mean()
    np.testing.assert_array_equal(night[..., 2], photo[..., 2])
    sepia = EDITS["sepia"].apply(photo, 1).astype(int)
    assert (sepia[..., 2] >= sepia[..., 0]).all()


def test_equalising_spreads_a_dark_picture(photo: NDArray[np.uint8]) -> None:
    dark = (photo // 4).astype(np.uint8)
    assert np.ptp(EDITS["equalised"].apply(dark, 1)) > 2 * np.ptp(dark)


@pytest.mark.parametrize(
    ("name", "sharper"), [("denoise", False), ("beauty", False), ("enlarge", False), ("sharpen", True)]
)
def test_filters_change_sharpness_more_the_stronger_they_are(
    photo: NDArray[np.uint8], name: str, sharper: bool
) -> None:
    values = [_sharpness(photo), *[_sharpness(EDITS[name].apply(photo, s)) for s in EDITS[name].strengths]]
    assert values == sorted(values, reverse=not sharper)


def test_brightening_and_darkening_are_one_family(photo: NDArray[np.uint8]) -> None:
    assert EDITS["gamma"].apply(photo, 1).mean() > photo.mean() > EDITS["gamma"].apply(photo, -1).mean()


def test_a_collage_keeps_the_tiles_and_separates_them(photo: NDArray[np.uint8]) -> None:
    collage = EDITS["collage"].apply(photo, 2)
    assert (collage[:, 96:100] == 255).all()  # the bar left of the middle
    tile = collage[:100, :90]
    assert min(float(cv2.matchTemplate(photo, tile, cv2.TM_SQDIFF).min()), 1.0) < 1.0


def test_every_edit_is_drawn_in_training_and_measured_by_robustness(photo: NDArray[np.uint8]) -> None:
    assert set(EDITS) <= set(FAMILIES)
    rng = np.random.default_rng(0)
    results = {edited(photo, rng).tobytes() for _ in range(40)}
    assert len(results) > 35


def test_the_same_draw_makes_the_same_edit_whatever_the_label(examples: Path) -> None:
    path = examples / "real" / "blouse.jpg"
    augment = Augment(edit=1.0)
    images = TrainingImages([Sample(path, 0, "a"), Sample(path, 1, "b")], InputTransform("crop", 96), augment)
    real, ai = images[0, 7].frame, images[1, 7].frame
    assert real is not None
    assert ai is not None
    assert bool((real == ai).all())
