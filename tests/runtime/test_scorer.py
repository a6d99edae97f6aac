"""Frames of cameras that come too late, or that nobody took, are counted and not scored."""

from __future__ import annotations

import time

from runtime_samples import picture

from asr_runtime import Detector
from asr_runtime.cameras.camera import Camera, LiveFailure, LiveFrame
from asr_runtime.errors import DecodeError
from asr_runtime.feed import Feed
from asr_runtime.records import ErrorRecord, FrameRecord, SummaryRecord
from asr_runtime.scorer import Scorer
from asr_runtime.screening import open_stream
from asr_runtime.sources.live import LiveSource
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


def test_frames_that_nobody_took_at_the_end_are_dropped_and_failures_reported(detector: Detector) -> None:
    feed, scorer, camera = live_run(detector)
    camera.received += 1
    feed._inbox.post(LiveFailure(camera, DecodeError("door: not a complete image"), 0))
    feed._inbox.offer(camera, frame_of(camera, 1, 0.0))
    records = [record for failure in feed.failures_left() for record, _ in scorer.take(failure)]
    assert [type(record) for record in records] == [ErrorRecord]
    summary = summary_of(feed, scorer)
    assert (summary.read, summary.scored, summary.failed, summary.dropped) == (2, 0, 1, 1)
