"""Preprocessing against Pillow, torchvision and plain slicing."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from asr_models import InputTransform
from asr_models.input_transform import IMAGENET_MEAN, IMAGENET_STD


def _frames(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image)[None]


def test_crop_is_the_centre_in_rgb_between_0_and_1(examples: Path) -> None:
    image = cv2.imread(str(examples / "real" / "coffee.png"))
    out = InputTransform("crop", 192)(_frames(image))[0]
    top, left = (image.shape[0] - 192) // 2, (image.shape[1] - 192) // 2
    expected = image[top : top + 192, left : left + 192, ::-1].astype(np.float32) / 255
    np.testing.assert_allclose(out.permute(1, 2, 0).numpy(), expected, atol=1e-6)


@settings(max_examples=40)
@given(height=st.integers(1, 70), width=st.integers(1, 70), size=st.sampled_from([8, 31, 32]))
def test_a_small_image_is_continued_by_mirroring(height: int, width: int, size: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    out = InputTransform("crop", size).geometry(_frames(image))[0].numpy()
    top, left = (height - size) // 2, (width - size) // 2
    pad = [(max(0, -top), size), (max(0, -left), size), (0, 0)]  # more than enough after the end
    padded = np.pad(image, pad, mode="symmetric")
    expected = padded[max(0, top) :][:size, max(0, left) :][:, :size]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("name", ["real/coffee.png", "real/dress.jpg", "ai/sd3-1.jpg"])
def test_resize_equals_pillows_antialiased_bilinear_within_one_level(examples: Path, name: str) -> None:
    image = cv2.imread(str(examples / name))
    pixels = InputTransform("resize-crop", 224, 256).geometry(_frames(image))[0].numpy()
    picture = Image.fromarray(image)
    short = min(picture.size)
    resized = picture.resize((picture.width * 256 // short, picture.height * 256 // short), Image.Resampling.BILINEAR)
    left, top = (resized.width - 224) // 2, (resized.height - 224) // 2
    expected = np.asarray(resized.crop((left, top, left + 224, top + 224)))
    assert np.abs(pixels - expected).max() < 1.01


def test_squash_resizes_both_sides(examples: Path) -> None:
    image = cv2.imread(str(examples / "real" / "cat.png"))
    pixels = InputTransform("squash", 100).geometry(_frames(image))[0].numpy()
    expected = np.asarray(Image.fromarray(image).resize((100, 100), Image.Resampling.BILINEAR))
    assert np.abs(pixels - expected).max() < 1.01


def test_enlarging_works_down_to_one_pixel() -> None:
    image = np.full((1, 1, 3), 77, np.uint8)
    np.testing.assert_allclose(InputTransform("resize-crop", 224, 256).geometry(_frames(image)).numpy(), 77, rtol=1e-6)


def test_normalisation_is_mean_and_std_of_rgb() -> None:
    image = np.zeros((4, 4, 3), np.uint8)
    image[..., 2] = 255  # pure red, in BGR
    out = InputTransform("crop", 4, mean=IMAGENET_MEAN, std=IMAGENET_STD)(_frames(image))[0, :, 0, 0]
    expected = (np.array([1.0, 0.0, 0.0]) - IMAGENET_MEAN) / IMAGENET_STD
    np.testing.assert_allclose(out.numpy(), expected, rtol=1e-5)


@pytest.mark.parametrize(
    "frames",
    [torch.zeros(1, 4, 4, 3), torch.zeros(4, 4, 3, dtype=torch.uint8), torch.zeros(1, 3, 4, 4, dtype=torch.uint8)],
)
def test_other_shapes_and_types_are_refused(frames: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"expected uint8 \(N, H, W, 3\)"):
        InputTransform("crop", 4)(frames)


def test_modes_that_do_not_fit_their_options_are_refused() -> None:
    with pytest.raises(ValueError, match="resize-crop"):
        InputTransform("crop", 4, resize=8)
    with pytest.raises(ValueError, match="expected crop"):
        InputTransform("zoom", 4)  # type: ignore[arg-type]
