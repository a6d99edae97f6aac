"""Verdicts over time: smoothing, hysteresis, cuts, segments, one verdict per video."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray
from runtime_samples import picture

from asr_runtime.contract import Calibration, Decision, VideoRule
from asr_runtime.records import SegmentRecord
from asr_runtime.screening.smoothing import SceneCuts, Track

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
    cut = [cuts.between(noise.integers(0, 256, (48, 64, 3), dtype=np.uint8)) for _ in range(50)]
    assert sum(cut) <= 1
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
    pooled, ruled = images.video(), videos.video()
    assert pooled is not None
    assert ruled is not None
    log_odds = np.mean([np.log(p / (1 - p)) for p in (0.5, 0.6, 0.7)])
    assert pooled.probability == pytest.approx(1 / (1 + np.exp(-log_odds)))
    assert ruled.probability == pytest.approx(1 / (1 + np.exp(-(log_odds / 0.5 + 1.0))))
    assert (pooled.verdict, ruled.verdict) == ("unsure", "ai")


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
    assert (video.verdict, video.reason, video.peak) == ("unsure", "one colour", 0.99)
    assert video.probability == pytest.approx(0.99)


def _logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


def _sigmoid(margin: float) -> float:
    return 1 / (1 + math.exp(-margin))


def test_a_frame_has_1_over_e_of_its_weight_after_a_second() -> None:
    track = Track("video", DECISION)
    track.add(5.0, 0.1, SCENE)
    smoothed = track.add(6.0, 0.9, SCENE).smoothed
    assert _logit(smoothed) == pytest.approx((_logit(0.9) + _logit(0.1) / math.e) / (1 + 1 / math.e))


def test_a_clock_that_goes_back_makes_no_frame_count_more_than_once() -> None:
    track = Track("video", DECISION)
    track.add(5.0, 0.1, SCENE)
    assert _logit(track.add(3.0, 0.6, SCENE).smoothed) == pytest.approx((_logit(0.1) + _logit(0.6)) / 2)


@pytest.mark.parametrize(
    ("before", "threshold", "upwards", "after"),
    [(0.5, 0.7, True, "ai"), (0.95, 0.7, False, "unsure"), (0.5, 0.3, False, "real"), (0.05, 0.3, True, "unsure")],
)
def test_a_verdict_changes_half_a_log_odds_beyond_its_threshold(
    before: float, threshold: float, upwards: bool, after: str
) -> None:
    """Frames an hour apart: only the newest has weight."""
    for beyond, changes in ((0.49, False), (0.51, True)):
        track = Track("video", DECISION)
        old = track.add(0.0, before, SCENE).verdict
        margin = _logit(threshold) + (beyond if upwards else -beyond)
        assert track.add(3600.0, _sigmoid(margin), SCENE).verdict == (after if changes else old)


@pytest.mark.parametrize(("before", "then", "expected"), [(0.05, 0.99, "ai"), (0.99, 0.01, "real")])
def test_a_verdict_may_change_to_its_opposite_at_once(before: float, then: float, expected: str) -> None:
    track = Track("video", DECISION)
    track.add(0.0, before, SCENE)
    assert track.add(3600.0, then, SCENE).verdict == expected


def test_a_certain_frame_counts_as_log_odds_of_12() -> None:
    for probability, margin in ((1.0, 12.0), (0.0, -12.0), (1 - 1e-9, 12.0), (1e-9, -12.0)):
        track = Track("video", DECISION)
        track.add(0.0, probability, SCENE)
        track.add(0.1, 0.6, SCENE)
        video = track.video()
        assert video is not None
        assert _logit(video.probability) == pytest.approx((margin + _logit(0.6)) / 2, abs=1e-5)


def _is_cut(*levels: int) -> bool:
    """Whether the last of these grey frames begins a scene."""
    cuts = SceneCuts()
    return [cuts.between(np.full((48, 64, 3), level, np.uint8)) for level in levels][-1]


def test_a_cut_is_a_difference_of_30_levels() -> None:
    assert (_is_cut(100, 129), _is_cut(100, 130), _is_cut(130, 100)) == (False, True, True)
    assert not _is_cut(200)


def test_a_cut_is_three_times_what_is_usual() -> None:
    assert (_is_cut(0, 20, 79), _is_cut(0, 20, 80)) == (False, True)
    # What is usual moves by 0.3 of the way: from 20 to 31.7 after a difference of 59.
    assert (_is_cut(0, 20, 79, 174), _is_cut(0, 20, 79, 175)) == (False, True)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (4, 700), (700, 4), (127, 128), (300, 300)])
def test_frames_of_any_size_are_compared(height: int, width: int) -> None:
    cuts = SceneCuts()
    cut = [cuts.between(np.full((height, width, 3), level, np.uint8)) for level in (0, 0, 200)]
    assert cut == [False, False, True]


def test_a_change_on_a_small_part_of_a_large_frame_is_no_cut() -> None:
    cuts = SceneCuts()
    image = np.zeros((720, 1280, 3), np.uint8)
    cuts.between(image)
    image[:, :140] = 255  # 11% of the frame: a difference of 28 levels
    assert not cuts.between(image)


def test_a_verdict_is_not_over_at_two_seconds_and_is_after_them() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    for later, verdict in ((2.0, "ai"), (2.01, "unsure")):
        track = Track("clip", DECISION)
        track.add(1.0, 0.9, image)
        assert track.add(1.0 + later, 0.9, image, "one colour").verdict == verdict


def test_the_first_frame_with_weight_takes_the_place_of_those_without() -> None:
    track = Track("clip", DECISION)
    for index, (probability, reason) in enumerate(
        ((0.99, "dark"), (0.9, "dark"), (0.4, None), (0.6, None), (0.95, "x"))
    ):
        track.add(7.0 + index, probability, SCENE, reason)
    video, segment = track.video(), track.end()
    assert video is not None
    assert segment is not None
    assert (video.peak, video.frames, video.duration, video.reason) == (0.6, 5, 4.0, None)
    assert video.probability == pytest.approx(0.5)
    assert (segment.start, segment.end, segment.frames, segment.peak) == (7.0, 11.0, 5, 0.6)
    assert segment.probability == pytest.approx(0.5)


def test_no_frames_are_no_video_and_no_segment() -> None:
    track = Track("clip", DECISION)
    assert (track.video(), track.end()) == (None, None)
    track.add(0.0, 0.9, SCENE)
    assert track.end() is not None
    assert track.end() is None


def test_a_segment_of_nothing_has_the_mean_of_its_frames() -> None:
    track = Track("clip", DECISION)
    for index, probability in enumerate((0.2, 0.6)):
        track.add(index / 10, probability, SCENE, "one colour")
    segment = track.end()
    assert segment is not None
    assert (segment.verdict, segment.peak, segment.frames) == ("unsure", 0.6, 2)
    assert segment.probability == pytest.approx(0.4)
