"""Histories: messengers shrink large pictures and save them again; training pictures are sent so where asked for."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from asr_models import InputTransform
from asr_runtime.errors import ConfigurationError
from asr_runtime.media.image import read_image
from asr_train.data.augment import Augment, reencode
from asr_train.data.batches import TrainingImages
from asr_train.data.histories import HISTORIES
from asr_train.data.layouts import Sample


def _error(image: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.square(image.astype(float) - other).mean())


def test_a_messenger_shrinks_only_what_is_larger_than_it_sends(examples: Path) -> None:
    photo = read_image(examples / "real" / "blouse.jpg")
    large = np.asarray(cv2.resize(photo, (1500, 2000)), np.uint8)
    assert HISTORIES["messenger"].apply(large, 1280).shape == (1280, 960, 3)
    assert HISTORIES["messenger"].apply(photo, 1280).shape == photo.shape
    np.testing.assert_array_equal(HISTORIES["messenger"].apply(photo, 1280), reencode(photo, ".jpg", 75))


def test_every_further_sending_changes_the_picture_more(examples: Path) -> None:
    photo = read_image(examples / "real" / "blouse.jpg")[:256, :256]
    once, twice, thrice = (HISTORIES["forwarded"].apply(photo, times) for times in (1, 2, 3))
    np.testing.assert_array_equal(once, HISTORIES["messenger"].apply(photo, 1600))
    assert _error(photo, once) < _error(photo, twice) < _error(photo, thrice)
    half = HISTORIES["reduced"].apply(photo, 0.5)
    assert half.shape == (128, 128, 3)
    assert _error(half, HISTORIES["site-sent"].apply(photo, 0.5)) > 0


def test_a_history_changes_training_pictures_and_no_other_draw(examples: Path) -> None:
    path = examples / "real" / "blouse.jpg"
    image = read_image(path)

    def views(**augment: float) -> list[NDArray[np.float32]]:
        chosen = Augment(resize=0.0, blur=0.0, noise=0.0, patch_mask=0.0, **augment)
        pictures = TrainingImages([Sample(path, 0, "shop")], InputTransform("crop", 96), chosen)
        return [pictures.view(image, number).numpy() for number in range(6)]

    plain, again, lived = views(reencode=0.0), views(reencode=0.0), views(reencode=0.0, history=1.0)
    for one, same, other in zip(plain, again, lived, strict=True):
        np.testing.assert_array_equal(one, same)
        assert one.shape == other.shape
        assert not np.array_equal(one, other)
    with pytest.raises(ConfigurationError, match=r"augmentation history 1.5: expected a number from 0 to 1"):
        Augment(history=1.5)
