"""Verdicts over time: smoothing, hysteresis, cuts, segments, one verdict per video."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from runtime_samples import picture

from asr_runtime.contract import Calibration, Decision, VideoRule
from asr_runtime.records import SegmentRecord
from asr_runtime.smoothing import SceneCuts, Track

DECISION = Decision(real_below=0.3, ai_from=0.7)
SCENE, OTHER = picture(1), picture(2)


def run(
    probabilities: list[float], images: list[NDArray[np.uint8]] | None = None, rate: float = 10.0
) -> tuple[Track, list[SegmentRecord], list[str]]:
    track = Track("video", DECISION)
    segments, verdicts = [], []
    for i, probability in enumerate(probabilities):
        smoothed, verdict, ended = track.add(i / rate, probability, images[i] if images else SCENE)
        assert 0 <= smoothed <= 1
        verdicts.append(verdict)
        segments += [ended] if ended else []
    last = track.end()
    return track, segments + ([last] if last else []), verdicts


def test_one_odd_frame_does_not_change_the_verdict() -> None:
    _, segments, verdicts = run([0.1] * 20 + [0.95] + [0.1] * 20)
    assert set(verdicts) == {"real"}
    (segment,) = segments
    assert (segment.start, segment.end, segment.frames, segment.peak) == (0.0, 4.0, 41, 0.95)


def test_a_lasting_change_does() -> None:
    _, segments, verdicts = run([0.1] * 20 + [0.95] * 30)
    assert [segment.verdict for segment in segments] == ["real", "unsure", "ai"]
    assert verdicts.index("ai") - 20 <= 20, "within two time constants"


def test_a_score_that_wavers_about_a_threshold_does_not_flicker() -> None:
    _, segments, _ = run([0.75] * 10 + [0.68, 0.72] * 50)
    assert [segment.verdict for segment in segments] == ["ai"]


def test_a_cut_begins_anew() -> None:
    images = [SCENE] * 10 + [OTHER] * 10
    track = Track("video", DECISION)
    values = [track.add(i / 10, 0.05 if i < 10 else 0.95, image) for i, image in enumerate(images)]
    assert values[10].verdict == "ai"
    assert values[10].smoothed == pytest.approx(0.95)
    assert values[10].ended is not None
    assert (values[10].ended.frames, values[10].ended.verdict) == (10, "real")


def test_noise_and_slow_changes_are_no_cuts() -> None:
    noise = np.random.default_rng(0)
    cuts = SceneCuts()
    found = [cuts.between(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for _ in range(50)]
    assert sum(found) <= 1
    cuts = SceneCuts()
    assert not any(cuts.between(np.full((48, 64, 3), level, np.uint8)) for level in range(0, 250, 10))


@given(st.lists(st.floats(0, 1), min_size=1, max_size=60), st.lists(st.booleans(), min_size=60, max_size=60))
def test_segments_cover_all_frames_once_in_order(probabilities: list[float], scenes: list[bool]) -> None:
    images = [SCENE if scenes[i] else OTHER for i in range(len(probabilities))]
    track, segments, verdicts = run(probabilities, images)
    assert sum(segment.frames for segment in segments) == len(probabilities)
    assert all(a.end < b.start for a, b in itertools.pairwise(segments))
    assert [segment.verdict for segment in segments for _ in range(segment.frames)] == verdicts
    assert all(0 <= s.probability <= s.peak + 1e-9 for s in segments)
    video = track.video()
    assert video is not None
    assert video.frames == len(probabilities)
    assert min(probabilities) - 1e-5 <= video.probability <= max(probabilities) + 1e-5


@given(st.floats(0.01, 0.99), st.integers(1, 200))
def test_equal_frames_are_no_more_certain_than_one(probability: float, frames: int) -> None:
    track, _, _ = run([probability] * frames)
    video = track.video()
    assert video is not None
    assert video.probability == pytest.approx(probability, abs=1e-6)


def test_a_whole_video_is_judged_by_the_rule_of_the_card() -> None:
    rule = VideoRule(Calibration(temperature=0.5, shift=1.0), Decision(real_below=0.4, ai_from=0.8))
    images, videos = Track("video", DECISION), Track("video", DECISION, rule)
    for track in (images, videos):
        for i, probability in enumerate((0.5, 0.6, 0.7)):
            assert track.add(i / 10, probability, SCENE).verdict == "unsure", "frames are judged as images"
    pooled, found = images.video(), videos.video()
    assert pooled is not None
    assert found is not None
    log_odds = np.mean([np.log(p / (1 - p)) for p in (0.5, 0.6, 0.7)])
    assert pooled.probability == pytest.approx(1 / (1 + np.exp(-log_odds)))
    assert found.probability == pytest.approx(1 / (1 + np.exp(-(log_odds / 0.5 + 1.0))))
    assert (pooled.verdict, found.verdict) == ("unsure", "ai")


def test_smoothing_follows_time_not_frames() -> None:
    def after_one_second(rate: int) -> float:
        track = Track("video", DECISION)
        for i in range(5 * rate):
            track.add(i / rate, 0.1, SCENE)
        for i in range(rate):
            smoothed = track.add(5 + i / rate, 0.9, SCENE).smoothed
        return smoothed

    assert after_one_second(10) == pytest.approx(after_one_second(40), abs=0.05)


def test_a_small_temperature_gives_a_verdict_and_no_overflow() -> None:
    rule = VideoRule(Calibration(temperature=1e-9), DECISION)
    for probability, expected in ((0.01, "real"), (0.99, "ai")):
        track = Track("video", DECISION, rule)
        track.add(0.0, probability, SCENE)
        video = track.video()
        assert video is not None
        assert (video.verdict, round(video.probability)) == (expected, int(expected == "ai"))


def test_frames_that_hold_nothing_have_no_weight() -> None:
    track = Track("clip", DECISION)
    image = np.zeros((48, 64, 3), np.uint8)
    for index in range(10):
        track.add(index / 10, 0.1, image)
    for index in range(10, 20):
        steady = track.add(index / 10, 0.99, image, "one colour")
        assert (steady.verdict, steady.smoothed) == ("real", pytest.approx(0.1))
    video = track.video()
    assert video is not None
    assert (video.verdict, video.frames, video.peak, video.reason) == ("real", 20, 0.1, None)
    assert video.probability == pytest.approx(0.1)


def test_a_verdict_is_over_when_nothing_to_judge_came_for_two_seconds() -> None:
    track = Track("clip", DECISION)
    image = np.zeros((48, 64, 3), np.uint8)
    track.add(0.0, 0.9, image)
    added = [track.add(index / 10, 0.9, image, "one colour") for index in range(1, 60)]
    assert [steady.verdict for steady in added] == ["ai"] * 20 + ["unsure"] * 39
    assert sum(steady.ended is not None for steady in added) == 1


def test_a_video_of_nothing_is_unsure_with_the_reason() -> None:
    track = Track("clip", DECISION)
    for index in range(5):
        assert track.add(index / 10, 0.99, np.zeros((48, 64, 3), np.uint8), "one colour").verdict == "unsure"
    video = track.video()
    assert video is not None
    assert (video.verdict, video.reason) == ("unsure", "one colour")
    assert video.probability == pytest.approx(0.99)
