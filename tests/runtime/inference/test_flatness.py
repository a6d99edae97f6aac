"""Blank pages, plain colours and screens of text are unsure, with a reason; pictures are judged."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from runtime_samples import EXAMPLES, encoded, picture, shade

from asr_runtime import Detector, screen
from asr_runtime.contract import Preprocess
from asr_runtime.inference.flatness import FLAT, GRAPHICS, ONE_COLOUR, TOO_SMALL, judged_window, nothing_to_judge
from asr_runtime.media.image import decode_image, read_image
from asr_runtime.records import ImageRecord


def page(scale: float, ink: int, paper: int) -> NDArray[np.uint8]:
    """Lines of text, 512 x 512."""
    image = np.full((512, 512, 3), paper, np.uint8)
    step = int(36 * scale)
    for y in range(step, 512, step):
        text = "The quick brown fox jumps over the lazy dog 0123456789 " * 2
        cv2.putText(image, text, (4, y), cv2.FONT_HERSHEY_SIMPLEX, scale, (ink, ink, ink), 1, cv2.LINE_AA)
    return image


@pytest.mark.parametrize("colour", [(0, 0, 0), (255, 255, 255), (30, 200, 90)])
@pytest.mark.parametrize("suffix", [".png", ".jpg"])
def test_a_page_of_one_colour_holds_nothing(colour: tuple[int, int, int], suffix: str) -> None:
    image = np.full((300, 400, 3), colour, np.uint8)
    assert nothing_to_judge(decode_image(encoded(image, suffix), "page")) == ONE_COLOUR


@pytest.mark.parametrize(("shape", "reason"), [((1, 1), ONE_COLOUR), ((1, 5), TOO_SMALL), ((300, 7), TOO_SMALL)])
def test_a_few_pixels_hold_nothing(shape: tuple[int, int], reason: str) -> None:
    assert nothing_to_judge(picture(0, *shape)) == reason


@pytest.mark.parametrize(("ink", "paper"), [(255, 0), (0, 255), (200, 40)])
@pytest.mark.parametrize("scale", [0.5, 0.8, 2.0])
def test_a_screen_of_text_holds_nothing(scale: float, ink: int, paper: int) -> None:
    assert nothing_to_judge(page(scale, ink, paper)) in (FLAT, GRAPHICS)


def test_a_word_on_a_blank_page_holds_nothing_as_jpeg_too() -> None:
    image = np.zeros((256, 256, 3), np.uint8)
    cv2.putText(image, "HELLO", (40, 130), cv2.FONT_HERSHEY_SIMPLEX, 2, (255, 255, 255), 3)
    for quality in (95, 75):
        data = encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, quality)
        assert nothing_to_judge(decode_image(data, "word")) == FLAT


@pytest.mark.parametrize("path", sorted(EXAMPLES.glob("*/*.*g*")), ids=lambda path: path.name)
def test_every_example_is_judged_after_strong_compression_too(path: Path) -> None:
    image = read_image(path)
    assert nothing_to_judge(image) is None
    data = encoded(image, ".jpg", cv2.IMWRITE_JPEG_QUALITY, 50)
    assert nothing_to_judge(decode_image(data, path.name)) is None


@given(seed=st.integers(0, 10_000), height=st.integers(8, 40), width=st.integers(8, 40), levels=st.integers(1, 3))
def test_a_pixel_is_flat_if_all_its_channels_equal_those_of_both_neighbours(
    seed: int, height: int, width: int, levels: int
) -> None:
    window = (np.random.default_rng(seed).random((height, width + 5, 3)) ** 4 * levels).astype(np.uint8)[:, 5:]
    same = (window[:-1, :-1] == window[1:, :-1]) & (window[:-1, :-1] == window[:-1, 1:])
    share = same.all(axis=2).mean()
    reason = nothing_to_judge(window)
    assert (reason in (FLAT, ONE_COLOUR)) == (share >= 0.75)
    assert reason != ONE_COLOUR or (window == window[0, 0]).all(axis=2)[:-1, :-1].all()


def test_the_window_that_the_network_sees_is_examined() -> None:
    frame = np.zeros((300, 400, 3), np.uint8)
    frame[118:182, 168:232] = shade(120, 64, 64)
    assert nothing_to_judge(judged_window(frame, Preprocess("crop", 64))) is None
    assert nothing_to_judge(judged_window(frame, Preprocess("squash", 64))) == FLAT
    assert judged_window(frame[:40], Preprocess("crop", 64)).shape == (40, 64, 3)


def test_the_record_of_a_blank_picture_is_unsure_and_says_why(detector: Detector, tmp_path: Path) -> None:
    for name, image in (("white.png", np.full((80, 80, 3), 255, np.uint8)), ("bright.png", shade(240, 80, 80))):
        (tmp_path / name).write_bytes(encoded(image, ".png"))
    records = screen([tmp_path / "white.png", tmp_path / "bright.png"], detector)
    white, bright = (record for record in records if isinstance(record, ImageRecord))
    assert (white.verdict, white.to_dict()["reason"]) == ("unsure", ONE_COLOUR)
    assert white.probability > 0.9, "the model's number stays in the record"
    assert (bright.verdict, bright.reason) == ("ai", None)
    assert "reason" not in bright.to_dict()
