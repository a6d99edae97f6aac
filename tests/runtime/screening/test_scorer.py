"""Frames of cameras that come too late, or that nobody took, are counted and not scored."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray
from runtime_samples import WHOLE_VIDEO_CARD, bright_corner, build_model, picture, shade

from asr_runtime import Detector
from asr_runtime.cameras.camera import Camera, LiveFailure, LiveFrame
from asr_runtime.errors import DecodeError, InferenceError
from asr_runtime.inference.looking import Look
from asr_runtime.records import ErrorRecord, FrameRecord, SegmentRecord, StateRecord, SummaryRecord, VideoRecord
from asr_runtime.screening.feed import Feed
from asr_runtime.screening.scorer import Scorer
from asr_runtime.screening.screen import open_stream
from asr_runtime.sources.live import LiveSource
from asr_runtime.sources.steps import Decoded
from asr_runtime.windows import LookKind

LOOKS: dict[str, LookKind] = {"images": "centre", "videos": "centre", "cameras": "centre"}


def live_run(detector: Detector) -> tuple[Feed, Scorer, Camera]:
    feed = Feed(None, [LiveSource("door", "rtsp://127.0.0.1:9/x")], connect=open_stream, reconnect=False)
    return feed, Scorer(detector, LOOKS), feed._cameras[0]


def frame_of(camera: Camera, number: int, age: float) -> LiveFrame:
    camera.received += 1
    return LiveFrame(camera, picture(number), number, float(number), time.monotonic() - age)


def summary_of(feed: Feed, scorer: Scorer) -> SummaryRecord:
    *_, (summary, _) = scorer.finish(feed.camera_counts())
    assert isinstance(summary, SummaryRecord)
    return summary


def test_a_live_frame_older_than_half_a_second_is_dropped_not_scored(detector: Detector) -> None:
    feed, scorer, camera = live_run(detector)
    (young, _), *_ = scorer.take(frame_of(camera, 0, 0.0))
    assert isinstance(young, FrameRecord)
    assert list(scorer.take(frame_of(camera, 1, 0.6))) == []
    summary = summary_of(feed, scorer)
    assert (summary.read, summary.scored, summary.dropped) == (2, 1, 1)


def test_a_dropped_frame_is_in_one_record_and_counted_once(detector: Detector) -> None:
    feed, scorer, camera = live_run(detector)
    reported = []
    for number, dropped in enumerate((0, 3, 0, 2)):
        for _ in range(dropped):
            camera.received += 1
            camera.drop()
        steps = scorer.take(frame_of(camera, number, 0.0))
        reported += [record.dropped for record, _ in steps if isinstance(record, FrameRecord)]
    assert reported == [0, 3, 0, 2]
    summary = summary_of(feed, scorer)
    assert (summary.read, summary.scored, summary.dropped) == (9, 4, 5)


class Refusing(Detector):
    """Gives no score for pictures that are brighter than 200."""

    def look(self, frame: NDArray[np.uint8], kind: LookKind | None = None) -> Look:
        if frame.mean() > 200:
            raise InferenceError("the model gives NaN")
        return super().look(frame, kind)


def test_a_frame_after_one_without_a_score_is_scored_anew() -> None:
    scorer = Scorer(Refusing(build_model(), device="cpu"), LOOKS)
    bright, dark = shade(255), shade(20)
    records = []
    for number, image in enumerate((bright, dark, dark, bright, dark, dark)):
        records += [r for r, _ in scorer.take(Decoded("clip", image, number, number / 25))]
    frames = [r for r in records if isinstance(r, FrameRecord)]
    assert [(frame.frame, frame.repeated) for frame in frames] == [(1, False), (2, True), (4, False), (5, True)]
    errors = [r for r in records if isinstance(r, ErrorRecord)]
    assert [(e.frame, e.kind, e.error) for e in errors] == [
        (0, "InferenceError", "clip: the model gives NaN"),
        (3, "InferenceError", "clip: the model gives NaN"),
    ]
    assert {(frame.age, frame.dropped) for frame in frames} == {(None, 0)}


def test_videos_and_cameras_are_looked_at_as_each_was_asked_for() -> None:
    detector = Detector(build_model(WHOLE_VIDEO_CARD), device="cpu", threads=1)
    _, _, camera = live_run(detector)
    for videos, cameras in (("whole", "centre"), ("centre", "whole")):
        scorer = Scorer(detector, {"images": "centre", "videos": videos, "cameras": cameras})  # type: ignore[dict-item]
        of_file, of_camera = (
            next(record for record, _ in scorer.take(item) if isinstance(record, FrameRecord))
            for item in (
                Decoded("clip", bright_corner(), 0, 0.0),
                replace(frame_of(camera, 0, 0.0), image=bright_corner()),
            )
        )
        assert (of_file.look, of_camera.look) == (videos, cameras)


def test_a_camera_that_is_lost_ends_its_scene_and_a_video_that_ends_has_a_verdict(detector: Detector) -> None:
    feed, scorer, camera = live_run(detector)
    list(scorer.take(frame_of(camera, 0, 0.0)))
    lost = [type(r) for r, _ in scorer.take(StateRecord("door", "lost", 0.0, "gone"))]
    assert lost == [SegmentRecord, StateRecord]
    assert [type(r) for r, _ in scorer.take(StateRecord("door", "live", 0.0, ""))] == [StateRecord]
    list(scorer.take(Decoded("clip", shade(20), 0, 0.0, skipped=2)))
    ended = [type(r) for r, _ in scorer.take(Decoded("clip", skipped=3, ends=True))]
    assert ended == [SegmentRecord, VideoRecord]
    list(scorer.take(Decoded("open", shade(20), 0, 0.0)))
    *closed, (summary, _) = scorer.finish(feed.camera_counts(), ignored=4)
    assert [type(r) for r, _ in closed] == [SegmentRecord], "no verdict on a whole that was not seen"
    assert isinstance(summary, SummaryRecord)
    assert (summary.read, summary.scored, summary.skipped, summary.ignored, summary.given_up) == (8, 3, 5, 4, 0)
    assert 0 <= summary.seconds < 60


def test_a_live_frame_says_how_old_it_is(detector: Detector) -> None:
    _, scorer, camera = live_run(detector)
    ((record, image),) = scorer.take(frame_of(camera, 0, 0.3))
    assert isinstance(record, FrameRecord)
    assert record.age == pytest.approx(0.3, abs=0.15)
    assert image is not None


def test_frames_that_nobody_took_at_the_end_are_dropped_and_failures_reported(detector: Detector) -> None:
    feed, scorer, camera = live_run(detector)
    camera.received += 1
    feed._inbox.post(LiveFailure(camera, DecodeError("door: not a complete image"), 0))
    feed._inbox.offer(camera, frame_of(camera, 1, 0.0))
    records = [record for failure in feed.failures_left() for record, _ in scorer.take(failure)]
    assert [type(record) for record in records] == [ErrorRecord]
    summary = summary_of(feed, scorer)
    assert (summary.read, summary.scored, summary.failed, summary.dropped) == (2, 0, 1, 1)
