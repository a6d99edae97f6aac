"""Each degradation does something, the same thing every time, to an image of any size."""

from __future__ import annotations

import pickle
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError
from asr_runtime.media.image import read_image
from asr_train.data.augment import reencode
from asr_train.data.degradations import FAMILIES, Degradation, degradations
from asr_train.data.edits import EDITS

_EVERY = degradations()
_STRONGEST = [Degradation(name, family.strengths[-1]) for name, family in FAMILIES.items()]


def _texture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def _expected(image: NDArray[np.uint8], degradation: Degradation) -> tuple[int, int]:
    """Height and width by the rule of the family, for images of 8 px and more."""
    height, width = image.shape[:2]
    if degradation.family in ("resize", "crop"):
        return round(height * degradation.strength), round(width * degradation.strength)
    if degradation.family == "twice":
        return height - 3, width - 3
    if degradation.family in ("screenshot", "screenshot-sent"):
        wide = round(width * min(degradation.strength / width, degradation.strength * 16 / 9 / height))
        tall = round(height * min(degradation.strength / width, degradation.strength * 16 / 9 / height))
        framed = (tall + 2 * max(1, round(wide * 0.04)), wide)
        shrink = min(1, 1600 / max(framed)) if degradation.family == "screenshot-sent" else 1
        return round(framed[0] * shrink), round(framed[1] * shrink)
    if degradation.family in ("reduced", "site-sent"):
        return round(height * degradation.strength), round(width * degradation.strength)
    return height, width


@pytest.mark.parametrize("degradation", _EVERY, ids=lambda d: d.name)
def test_a_photo_is_changed_but_stays_a_picture(degradation: Degradation, examples: Path) -> None:
    image = read_image(examples / "real" / "blouse.jpg")[:201, :150]
    before = image.copy()
    degraded = degradation(image)
    assert degraded.dtype == np.uint8
    assert degraded.flags["C_CONTIGUOUS"]
    assert degraded.shape == (*_expected(image, degradation), 3)
    assert degraded.shape != image.shape or not np.array_equal(degraded, image)
    np.testing.assert_array_equal(image, before)
    np.testing.assert_array_equal(degraded, degradation(image))
    if degradation.family not in EDITS:  # which change brightness on purpose
        assert abs(degraded.mean() - image.mean()) < (
            12 if degradation.family in ("crop", "screenshot", "screenshot-sent") else 3
        )


@settings(max_examples=40)
@given(height=st.integers(1, 70), width=st.integers(1, 70), degradation=st.sampled_from(_STRONGEST))
def test_any_size_works_and_repeats(height: int, width: int, degradation: Degradation) -> None:
    image = _texture(height, width)
    degraded = degradation(image)
    assert degraded.dtype == np.uint8
    assert degraded.ndim == 3
    assert min(degraded.shape) >= 1
    assert degraded.shape[2] == 3
    np.testing.assert_array_equal(degraded, degradation(image))


@pytest.mark.parametrize("family", ["jpeg", "webp", "blur", "noise", "h264"])
def test_a_greater_strength_does_more(family: str, examples: Path) -> None:
    image = read_image(examples / "real" / "blouse.jpg")[:160, :160]
    changes = [Degradation(family, s)(image).astype(float) - image for s in FAMILIES[family].strengths]
    errors = [float(np.square(difference).mean()) for difference in changes]
    assert errors == sorted(errors)


def test_a_crop_does_not_start_on_the_grid_of_the_first_encoding() -> None:
    marked = np.zeros((384, 384, 3), np.uint8)
    marked[::8, :] = 255
    kept = Degradation("crop", 0.75)(marked)
    assert np.flatnonzero(kept[:, 0, 0])[0] % 8 != 0


@pytest.mark.parametrize(
    "degradation", [Degradation("resize", 0.5), Degradation("screenshot", 360)], ids=lambda d: d.name
)
def test_shrinking_averages_pixels(degradation: Degradation) -> None:
    stripes = np.zeros((720, 720, 3), np.uint8)
    stripes[:, ::2] = 255  # finer than half the size can show: must turn grey, neither black nor white
    middle = degradation(stripes)[100:-100, 100:-100]
    assert middle.std() < 2
    assert 126 <= middle.mean() <= 129


def test_the_frame_of_a_video_shows_the_picture_in_place(examples: Path) -> None:
    image = read_image(examples / "real" / "blouse.jpg")[:101, :99]
    degraded = Degradation("h264", 18)(image)
    errors = {
        shift: np.abs(np.roll(degraded, shift, (0, 1))[8:-8, 8:-8].astype(float) - image[8:-8, 8:-8]).mean()
        for shift in (-1, 0, 1)
    }
    assert min(errors, key=lambda shift: errors[shift]) == 0


def test_noise_depends_on_the_picture_alone() -> None:
    grey = np.full((64, 64, 3), 128, np.uint8)
    first = Degradation("noise", 8)(grey).astype(int) - 128
    assert first.std() == pytest.approx(8, rel=0.05)
    second = Degradation("noise", 8)(grey + 1).astype(int) - 129
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.05


def test_degradations_have_different_names_and_can_be_pickled() -> None:
    assert Degradation("resize", 0.75).name == "resize 0.75"
    assert len({d.name for d in _EVERY}) == len(_EVERY)
    assert pickle.loads(pickle.dumps(_EVERY)) == _EVERY  # reading processes may be spawned
    with pytest.raises(ConfigurationError, match="degradation 'fog': expected one of jpeg, webp"):
        degradations(["jpeg", "fog"])


@pytest.mark.parametrize(
    ("suffix", "shape"), [(".webp", (40, 16_400)), (".webp", (33_000, 24)), (".jpg", (16, 65_600))]
)
def test_images_larger_than_a_file_can_be_are_encoded_in_parts(suffix: str, shape: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), np.uint8)
    again = reencode(image, suffix, 80)
    assert again.shape == image.shape
    assert 1 < np.abs(again.astype(int) - image).mean() < 60
    first = tuple(slice(0, min(side, 1600)) for side in shape)
    if suffix == ".jpg":  # blocks of a JPEG do not depend on those beside them
        assert np.array_equal(
            again[first][:, :1584], reencode(np.ascontiguousarray(image[first]), suffix, 80)[:, :1584]
        )
