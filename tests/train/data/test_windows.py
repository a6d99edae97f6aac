"""Windows lie where a whole look takes them, and cost no more than the blocks around them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from asr_models import InputTransform
from asr_runtime.errors import ConfigurationError
from asr_runtime.media.image import read_image
from asr_train.data.augment import Augment, equalise, mirrored_window
from asr_train.data.batches import EvaluationImages, PictureViews, TrainingImages
from asr_train.data.layouts import Sample
from asr_train.data.windows import CENTRE, corner, equalised_window, window_places


@settings(max_examples=40, deadline=None)
@given(
    height=st.integers(1, 200),
    width=st.integers(1, 200),
    place=st.sampled_from(window_places(9)),
    quality=st.integers(30, 98),
)
def test_a_window_has_the_pixels_of_the_whole_picture_encoded(
    height: int, width: int, place: tuple[float, float], quality: int
) -> None:
    rng = np.random.default_rng(height * 1000 + width)
    image = np.cumsum(rng.integers(-9, 10, (height, width, 3)), axis=1).astype(np.uint8)
    top, left = corner(place, height, width, 64)
    whole = mirrored_window(equalise(image, quality), top, left, 64, 64)
    np.testing.assert_array_equal(equalised_window(image, place, 64, quality), whole)


@pytest.mark.parametrize("size", [(31, 300), (64, 64), (65, 66), (301, 200)])
def test_the_first_window_is_the_centre_of_the_deployed_graph(size: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    expected = InputTransform("crop", 64).geometry(torch.from_numpy(image)[None])[0].numpy()
    np.testing.assert_array_equal(equalised_window(image, CENTRE, 64, None), expected)


def test_five_windows_are_the_first_of_nine() -> None:
    assert window_places(9)[:5] == window_places(5)
    assert window_places(1) == (CENTRE,)
    assert len(set(window_places(9))) == 9
    with pytest.raises(ConfigurationError, match="windows 4: expected one of 1, 5, 9"):
        window_places(4)


def test_views_of_a_picture_decoded_once_are_those_of_one_at_a_time(examples: Path) -> None:
    samples = [Sample(path, 0, "real") for path in sorted((examples / "real").iterdir())[:2]]
    preprocess = InputTransform("crop", 64)
    plain, trained = EvaluationImages(samples, preprocess, 90), TrainingImages(samples, preprocess, Augment())
    views = PictureViews(plain, window_places(5), trained, [[11, 12]])
    frames = [item.frame for item in views[0]]
    assert len(frames) == 7
    assert len(views[1]) == 5  # no draws: none is trained on
    for frame, expected in zip(
        (frames[0], frames[5], frames[6]), (plain[0].frame, trained[0, 11].frame, trained[0, 12].frame), strict=True
    ):
        assert frame is not None
        assert expected is not None
        assert torch.equal(frame, expected)
    place = window_places(5)[4]
    window = equalised_window(read_image(samples[0].path), place, 64, 90)
    assert frames[4] is not None
    np.testing.assert_array_equal(frames[4].numpy(), window)
