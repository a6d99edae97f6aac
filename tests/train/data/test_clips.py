"""Clips made of stills: what they show, and verdicts on videos calibrated with them."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from tiny_training import tiny

from asr_models import ASRNetLite, InputTransform, load_checkpoint
from asr_runtime.contract import Calibration, Decision, VideoRule
from asr_runtime.media.image import read_image
from asr_train.data.augment import equalise
from asr_train.data.clips import ClipImages, clip, h264, thinned
from asr_train.data.layouts import Sample, find_data
from asr_train.data.windows import corner, window_places
from asr_train.figures.calibrate import video_figures
from asr_train.figures.scoring import score_clips
from asr_train.fitting.extraction import Extractor
from asr_train.fitting.feature_tables import clip_table
from asr_train.fitting.fit import train


def test_a_clip_is_a_slow_pan_over_the_picture(examples: Path) -> None:
    image = read_image(examples / "real" / "blouse.jpg")[:240, :256]
    first, middle, last = clip(image)
    assert np.abs(middle.astype(float) - image).mean() < 4, "the pan passes through the picture as it is"
    moved = {
        name: {(y, x): _difference(frame, np.roll(image, (y, x), (0, 1))) for y in (-5, 0, 5) for x in (-5, 0, 5)}
        for name, frame in (("first", first), ("last", last))
    }
    start, end = (min(errors, key=lambda shift: errors[shift]) for errors in moved.values())
    assert start == (-end[0], -end[1])


def _difference(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    return float(np.abs(one[16:-16, 16:-16].astype(float) - other[16:-16, 16:-16]).mean())


def test_only_the_middle_of_a_large_picture_is_encoded() -> None:
    large = np.random.default_rng(0).integers(0, 256, (700, 900, 3), np.uint8)
    assert [frame.shape for frame in clip(large)] == [(320, 320, 3)] * 3


@settings(max_examples=15, deadline=None)
@given(st.integers(1, 70), st.integers(1, 70))
def test_any_size_works_and_repeats(height: int, width: int) -> None:
    image = np.random.default_rng(height * width).integers(0, 256, (height, width, 3), np.uint8)
    frames = clip(image)
    assert {frame.shape for frame in frames} == {image.shape}
    assert {frame.dtype for frame in frames} == {np.dtype(np.uint8)}
    assert all(np.array_equal(a, b) for a, b in zip(frames, clip(image), strict=True))


def test_every_frame_comes_back_in_order() -> None:
    frames = [np.full((32, 48, 3), 20 * i, np.uint8) for i in range(12)]
    decoded = h264(frames, 18)
    assert [round(float(frame.mean()) / 20) for frame in decoded] == list(range(12))


def test_a_large_split_is_thinned_evenly() -> None:
    samples = [Sample(Path(str(i)), 0, "s") for i in range(7000)]
    kept = [int(s.path.name) for s in thinned(samples)]
    assert len(kept) <= 600
    assert set(np.diff(kept)) == {12}
    assert thinned(samples[:600]) == samples[:600]


def test_a_run_calibrates_videos_on_clips_of_unseen_sources(generators: Path, tmp_path: Path) -> None:
    config = tiny(generators)
    run = train(config, tmp_path)
    loaded = load_checkpoint(run.checkpoint)
    assert "H.264 clips" in loaded.video["calibration"]["fitted_on"]
    assert "never saw its source" in loaded.video["calibration"]["fitted_on"]
    data = find_data(generators)
    labels, margins = score_clips(loaded, data.val, 90)
    network = loaded.network
    assert isinstance(network, ASRNetLite)
    clips = clip_table(Extractor(network, config), data, tmp_path)  # what the run kept
    assert len(list(tmp_path.glob("clips-*.npz"))) == 1
    head, own = network.head.weight.detach().numpy()[0], clips.features[-len(labels) :]
    assert margins == pytest.approx(own @ head + float(network.head.bias.detach()), abs=1e-3)
    calibration = Calibration(**loaded.calibration)
    rule = VideoRule(Calibration(**loaded.video["calibration"]), Decision(**loaded.video["decision"]))
    figures = video_figures(labels, margins / calibration.temperature + calibration.shift, rule)
    reported = run.summary["val_video"]
    assert reported.keys() == figures.keys()
    for name in ("videos", "auroc", "balanced_ece_as_images"):  # the others jump with margins that lie at a threshold
        assert reported[name] == pytest.approx(figures[name], abs=1e-3)


def test_windows_come_in_turn_and_a_picture_without_room_is_left_out(generators: Path) -> None:
    samples = list(find_data(generators).val)
    cv2.imwrite(str(samples[1].path), np.zeros((50, 90, 3), np.uint8))
    places = window_places(5)
    images = ClipImages(samples[:3], InputTransform("crop", 48), None, places)
    items = [images[position] for position in range(len(images))]
    assert len(items) == 3 * 3 * 5
    assert [item.index for item in items if item.frame is None] == list(range(15, 30))
    assert items[15].problem is not None
    assert "90 x 50 px have no room for windows of 48 px" in items[15].problem
    frames = clip(read_image(samples[2].path), 480)
    for item, (frame, place) in zip(items[30:], itertools.product(frames, places), strict=True):
        top, left = corner(place, *frame.shape[:2], 48)
        assert item.frame is not None
        np.testing.assert_array_equal(item.frame.numpy(), frame[top : top + 48, left : left + 48])


def test_frames_come_in_turn_and_a_broken_picture_is_left_out(generators: Path) -> None:
    samples = list(find_data(generators).val)
    samples[1].path.write_bytes(b"\xff\xd8\xff")
    preprocess = InputTransform("crop", 48)
    images = ClipImages(samples, preprocess, 90)
    items = [images[position] for position in range(len(images))]
    assert [item.index for item in items] == list(range(3 * len(samples)))
    problems = [(item.index, item.problem) for item in items if item.frame is None]
    assert [position for position, _ in problems] == [3, 4, 5]
    expected = clip(equalise(read_image(samples[2].path), 90))
    for item, frame in zip(items[6:9], expected, strict=True):
        assert item.frame is not None
        assert np.array_equal(item.frame.numpy(), preprocess.geometry(torch.from_numpy(frame)[None])[0].numpy())
    values = np.array([[float(item.index)] for item in items if item.frame is not None])
    kept, means = images.per_clip(values, problems)
    assert kept.tolist() == [0, *range(2, len(samples))]
    assert means[:2, 0].tolist() == [1.0, 7.0]
