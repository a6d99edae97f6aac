"""Every input is accounted for, in order, whatever the mix."""

from __future__ import annotations

import io
import socket
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from runtime_samples import (
    WHOLE_CARD,
    WHOLE_VIDEO_CARD,
    bright_corner,
    build_model,
    encoded,
    picture,
    read_stamp,
    write_clip,
)

from asr_runtime import Detector, screen
from asr_runtime.errors import ConfigurationError, DeadlineError
from asr_runtime.inference.looking import Look, LookChoice
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, SummaryRecord, VideoRecord
from asr_runtime.screening.feed import FileFeed
from asr_runtime.screening.screen import open_isolated_stream, open_stream, screen_decoded
from asr_runtime.sources.expand import Source
from asr_runtime.sources.live import LiveSource
from asr_runtime.sources.steps import Decoded, decode_source
from asr_runtime.windows import LookKind


def account(records: list[Record]) -> SummaryRecord:
    """Check what holds for every run and return its summary."""
    *rest, summary = records
    assert isinstance(summary, SummaryRecord)
    assert not any(isinstance(record, SummaryRecord) for record in rest)
    assert summary.scored == sum(isinstance(record, ImageRecord | FrameRecord) for record in rest)
    assert summary.failed == sum(isinstance(record, ErrorRecord) for record in rest)
    assert summary.read == summary.scored + summary.failed + summary.dropped + summary.skipped
    return summary


KINDS = ("image", "cut", "missing", "clip", "damaged", "empty folder", "foreign")


def make(kind: str, folder: Path, index: int) -> Path:
    path = folder / f"{index}-{kind}"
    if kind == "image":
        path = path.with_suffix(".png")
        path.write_bytes(encoded(picture(index), ".png"))
    elif kind == "cut":
        path = path.with_suffix(".jpg")
        path.write_bytes(encoded(picture(index), ".jpg")[:-40])
    elif kind == "clip":
        path = write_clip(path.with_suffix(".avi"), 12)
    elif kind == "damaged":
        path = write_clip(path.with_suffix(".avi"), 40)
        path.write_bytes(path.read_bytes()[:12_000])
    elif kind == "empty folder":
        path.mkdir()
    elif kind == "foreign":
        path = path.with_suffix(".mp4")
        path.write_bytes(b"not a video" * 99)
    return path


@settings(max_examples=15)
@given(kinds=st.lists(st.sampled_from(KINDS), min_size=1, max_size=7), fps=st.sampled_from([None, 5.0]))
def test_every_input_is_accounted_for_in_order(detector: Detector, kinds: list[str], fps: float | None) -> None:
    with tempfile.TemporaryDirectory() as folder:
        paths = [make(kind, Path(folder), i) for i, kind in enumerate(kinds)]
        records = list(screen(paths, detector, fps=fps))
    summary = account(records)
    order = [record.source for record in records[:-1]]  # type: ignore[union-attr]
    assert list(dict.fromkeys(order)) == [str(path) for path in paths]
    assert summary.failed == sum(kind not in ("image", "clip") for kind in kinds)
    frames = 12 if fps is None else 3
    whole = kinds.count("image") + frames * kinds.count("clip")
    assert summary.scored >= whole
    if "damaged" not in kinds:
        assert summary.scored == whole
        assert summary.skipped == (12 - frames) * kinds.count("clip")


def test_a_damaged_video_gives_its_frames_then_one_error(detector: Detector, tmp_path: Path) -> None:
    path = make("damaged", tmp_path, 0)
    *records, video, error, _ = list(screen([path], detector))
    frames = [record for record in records if isinstance(record, FrameRecord)]
    assert len(frames) > 3
    assert isinstance(video, VideoRecord)
    assert video.frames == len(frames)
    assert isinstance(error, ErrorRecord)
    assert "partial" in error.error


def test_fps_skips_and_says_how_many(detector: Detector, clip: Path) -> None:
    records = list(screen([clip], detector, fps=5))
    assert [record.frame for record in records if isinstance(record, FrameRecord)] == list(range(0, 100, 5))
    summary = account(records)
    assert (summary.read, summary.scored, summary.skipped) == (100, 20, 80)


def test_a_frame_without_a_usable_score_is_an_error_and_the_rest_goes_on(tmp_path: Path) -> None:
    detector = Detector(build_model(logarithm=True), device="cpu")
    for name, level in (("a.png", 200), ("b.png", 0), ("c.png", 9)):
        (tmp_path / name).write_bytes(encoded(np.full((8, 8, 3), level, np.uint8), ".png"))
    records = list(screen([tmp_path / "a.png", tmp_path / "b.png", tmp_path / "c.png"], detector))
    assert [type(record) for record in records[:3]] == [ImageRecord, ErrorRecord, ImageRecord]
    assert records[1].to_dict()["kind"] == "InferenceError"
    account(records)


def test_a_folder_with_a_bad_image_goes_on(detector: Detector, mixed_folder: Path) -> None:
    records = list(screen([mixed_folder], detector))
    verdicts = {Path(r.source).name: r.verdict for r in records if isinstance(r, ImageRecord)}
    assert verdicts == {"white.png": "ai", "black.jpg": "real", "grey.bmp": "unsure"}
    summary = account(records)
    assert (summary.failed, summary.ignored) == (1, 1)


def test_an_image_on_standard_input(detector: Detector) -> None:
    record, _ = screen(["-"], detector, stdin=io.BytesIO(encoded(picture(), ".png")))
    assert isinstance(record, ImageRecord)
    assert record.source == "-"
    assert record.probability == float(detector(picture()).probability[0])


def test_stop_ends_early_with_the_summary(detector: Detector, clip: Path) -> None:
    stop = threading.Event()
    records = []
    for record in screen([clip], detector, stop=stop):
        records.append(record)
        if isinstance(record, FrameRecord) and record.frame == 6:
            stop.set()
    assert account(records).read == 7
    assert not any(isinstance(record, VideoRecord) for record in records), "no verdict on a whole that was not seen"


def test_stop_ends_while_nothing_arrives(detector: Detector) -> None:
    class Silent(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            time.sleep(3)
            return b""

    stop = threading.Event()
    threading.Timer(0.2, stop.set).start()
    started = time.perf_counter()
    (summary,) = screen(["-"], detector, stop=stop, stdin=Silent())  # type: ignore[arg-type]
    assert time.perf_counter() - started < 1.0
    assert isinstance(summary, SummaryRecord)


def test_dropping_the_iterator_ends_its_thread(detector: Detector, clip: Path) -> None:
    before = set(threading.enumerate())
    records = screen([clip] * 50, detector)
    next(records)
    assert set(threading.enumerate()) > before
    records.close()
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("fps", [0, -1, float("nan"), float("inf")])
def test_fps_out_of_range_is_refused_at_once(detector: Detector, fps: float) -> None:
    with pytest.raises(ConfigurationError, match="fps"):
        screen(["a.jpg"], detector, fps=fps)


def test_impossible_sources_are_refused_at_once(detector: Detector) -> None:
    for sources, message in (
        ([], "no source"),
        (["a.jpg", "ftp://camera/1"], "expected one of rtsp://"),
        (["rtsp://a:secret@camera/1", "rtsp://b:word@camera/1"], "two live sources"),
        (["rtsp://"], "no host"),
    ):
        with pytest.raises(ConfigurationError, match=message) as caught:
            screen(sources, detector)
        assert "secret" not in str(caught.value)


def test_equal_frames_are_scored_once_and_say_so(tmp_path: Path) -> None:
    detector = Counting(build_model(), device="cpu")
    path = tmp_path / "still.avi"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"FFV1"), 25.0, (64, 48))
    for seed in (1, 1, 1, 2, 2, 1):
        writer.write(picture(seed))
    writer.release()
    frames = [record for record in screen([path], detector) if isinstance(record, FrameRecord)]
    assert [frame.repeated for frame in frames] == [False, True, True, False, True, False]
    assert detector.calls == 3
    assert frames[0].probability == frames[1].probability != frames[3].probability
    assert "repeated" in frames[1].to_dict()
    assert "repeated" not in frames[0].to_dict()


def test_every_scored_picture_comes_with_its_record(detector: Detector, clip: Path, mixed_folder: Path) -> None:
    steps = list(screen([mixed_folder, clip], detector).with_pictures())
    assert all((image is not None) == isinstance(record, ImageRecord | FrameRecord) for record, image in steps)
    frames = [image for record, image in steps if isinstance(record, FrameRecord) and image is not None]
    assert [read_stamp(image) for image in frames] == list(range(100))
    assert [record.to_dict() for record, _ in steps][:-1] == [
        record.to_dict() for record in screen([mixed_folder, clip], detector)
    ][:-1]


def test_isolated_decoding_gives_the_same_records(detector: Detector, clip: Path, mixed_folder: Path) -> None:
    damaged = make("damaged", mixed_folder, 0)
    sources = [mixed_folder, clip, damaged]
    plain, isolated = (list(screen(sources, detector, fps=5, isolate=isolate)) for isolate in (False, True))
    assert [record.to_dict() for record in plain[:-1]] == [record.to_dict() for record in isolated[:-1]]
    account(isolated)


def test_pictures_are_looked_at_as_a_whole_where_the_card_says_so(tmp_path: Path) -> None:
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    (tmp_path / "a.png").write_bytes(encoded(bright_corner(), ".png"))
    (tmp_path / "small.png").write_bytes(encoded(picture(), ".png"))
    large, small, summary = list(screen([tmp_path], detector))
    assert isinstance(large, ImageRecord)
    assert (large.look, large.probability) == ("whole", detector.look(bright_corner()).probability)
    assert large.to_dict()["look"] == "whole"
    assert "windows" not in large.to_dict()
    assert small.to_dict().keys() == {"type", "source", "probability", "verdict"}, "as without windows"
    assert summary.to_dict()["looks"] == {"images": "whole", "videos": "centre", "cameras": "centre"}
    centre, _, summary = list(screen([tmp_path], detector, look="centre"))
    assert isinstance(centre, ImageRecord)
    assert (centre.look, centre.probability) == ("centre", float(detector(bright_corner()).probability[0]))
    assert set(summary.to_dict()["looks"].values()) == {"centre"}


def test_records_carry_the_windows_that_were_looked_at(tmp_path: Path, clip: Path) -> None:
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    (tmp_path / "a.png").write_bytes(encoded(bright_corner(), ".png"))
    image, frame, *_ = list(screen([tmp_path / "a.png", clip], detector, fps=1, windows=True))
    assert image.to_dict()["windows"] == [window.to_dict() for window in detector.look(bright_corner()).windows]
    assert [window.keys() for window in image.to_dict()["windows"]] == [{"x", "y", "size", "probability"}] * 5
    assert [(w["x"], w["y"]) for w in frame.to_dict()["windows"]] == [(48, 0)], "of a video the centre"


def test_videos_are_judged_by_the_rules_of_the_look(clip: Path) -> None:
    detector = Detector(build_model(WHOLE_VIDEO_CARD), device="cpu", threads=1)
    records = list(screen([clip], detector, fps=5))
    frames = [record for record in records if isinstance(record, FrameRecord)]
    (video,) = (record for record in records if isinstance(record, VideoRecord))
    assert {frame.look for frame in frames} == {"whole"}
    margin = np.mean([np.log(f.probability / (1 - f.probability)) for f in frames])
    assert video.probability == pytest.approx(1 / (1 + np.exp(-margin / 0.5)))
    asked = list(screen([clip], Detector(build_model(WHOLE_CARD), device="cpu", threads=1), fps=5, look="whole"))
    assert [r.probability for r in asked if isinstance(r, FrameRecord)] == [f.probability for f in frames]


def test_a_whole_look_that_the_card_has_no_figures_for_is_refused_at_once(detector: Detector) -> None:
    with pytest.raises(ConfigurationError, match="no calibration for the whole picture"):
        screen(["a.jpg"], detector, look="whole")


def test_pictures_decoded_elsewhere_give_the_same_records(detector: Detector, clip: Path, tmp_path: Path) -> None:
    paths = [make("image", tmp_path, 0), make("cut", tmp_path, 1), clip]
    steps = [step for path in paths for step in decode_source(Source(str(path), _kind(path)), 5)]
    records, expected = list(screen_decoded(steps, detector)), list(screen(paths, detector, fps=5))
    assert isinstance(records[-1], SummaryRecord)
    assert records[-1].ignored == 0
    assert [record.to_dict() for record in records[:-1]] == [record.to_dict() for record in expected[:-1]]
    summary = account(records)
    assert set(summary.to_dict()["looks"].values()) == {"centre"}
    assert (summary.read, summary.scored, summary.failed) == (102, 21, 1)


def test_decoded_pictures_are_looked_at_as_asked_for() -> None:
    detector = Detector(build_model(WHOLE_CARD), device="cpu", threads=1)
    item = Decoded("upload", bright_corner())
    for options, look, windows in (
        ({}, "whole", 0),
        ({"windows": True}, "whole", 5),
        ({"look": "centre"}, "centre", 0),
    ):
        record, summary = screen_decoded([item], detector, **options)  # type: ignore[arg-type]
        assert isinstance(record, ImageRecord)
        assert (record.look, len(record.windows)) == (look, windows)
        assert summary.to_dict()["looks"]["images"] == look


def _kind(path: Path) -> Literal["image", "video"]:
    return "video" if path.suffix == ".avi" else "image"


@pytest.mark.parametrize(
    ("slow", "scored", "failed", "given_up"),
    [((2, 3, 4), 2, 3, 1), ((0, 1, 2), 0, 3, 1), ((1, 2, 4, 5), 4, 4, 0), ((), 8, 0, 0)],
)
def test_three_inferences_in_a_row_without_an_answer_end_the_run(
    tmp_path: Path, slow: tuple[int, ...], scored: int, failed: int, given_up: int
) -> None:
    class Slow(Detector):
        calls = 0

        def look(self, frame: NDArray[np.uint8], kind: LookKind | None = None) -> Look:
            self.calls += 1
            if self.calls - 1 in slow:
                raise DeadlineError("no answer within 1 s")
            return super().look(frame, kind)

    paths = [make("image", tmp_path, index) for index in range(8)]
    steps = [step for path in paths for step in decode_source(Source(str(path), "image"), None)]
    for run in (
        screen(paths, Slow(build_model(), device="cpu")),
        screen_decoded(steps, Slow(build_model(), device="cpu")),
    ):
        records = list(run)
        summary = account(records)
        assert (summary.scored, summary.failed, summary.given_up) == (scored, failed, given_up)
        assert {r.kind for r in records if isinstance(r, ErrorRecord)} <= {"DeadlineError"}


def test_a_run_ends_after_its_duration(detector: Detector) -> None:
    class Silent(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            time.sleep(3)
            return b""

    began = time.perf_counter()
    (summary,) = screen(["-"], detector, duration=0.3, stdin=Silent())  # type: ignore[arg-type]
    assert 0.3 <= time.perf_counter() - began < 1.5
    assert isinstance(summary, SummaryRecord)
    for duration in (0.0, -1.0, float("nan"), float("inf")):
        with pytest.raises(ConfigurationError, match="duration"):
            screen(["-"], detector, duration=duration)


def test_what_a_camera_gave_before_the_end_is_in_the_records(detector: Detector) -> None:
    """The caller takes nothing while a camera sends pictures of which none can be decoded, then stops the run."""
    body = b"\xff\xd8 no picture \xff\xd9"
    part = b"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: %d\r\n\r\n%b\r\n" % (len(body), body)
    head = b"HTTP/1.1 200 OK\r\nContent-Type: multipart/x-mixed-replace; boundary=frame\r\n\r\n"

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            connection.recv(1 << 16)
            connection.sendall(head)
            for _ in range(3):
                connection.sendall(part)
                time.sleep(0.2)  # of parts that come at once the newest alone is read
            sent.set()
            over.wait(10)

    stop, sent, over = threading.Event(), threading.Event(), threading.Event()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=serve, daemon=True).start()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}/camera"
        run = screen([LiveSource("door", url)], detector, stop=stop)
        first = next(run)
        assert sent.wait(10)
        stop.set()
        records = [first, *run]
        over.set()
    summary = account(records)
    assert summary.read == summary.failed >= 1
    assert {(r.source, r.kind) for r in records if isinstance(r, ErrorRecord)} == {("door", "DecodeError")}


@pytest.mark.parametrize("is_asked", [False, True])
def test_cameras_are_opened_as_asked_for(model_bytes: bytes, is_asked: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}

    def feed(files: FileFeed | None, live: list[LiveSource], **options: Any) -> None:
        given.update(options, files=files, live=live)

    monkeypatch.setattr("asr_runtime.screening.screen.Feed", feed)
    options: dict[str, Any] = {"fps": 2.0, "reconnect": False, "isolate": True, "key_frames": True} if is_asked else {}
    sources = ["rtsp://127.0.0.1:9/1", "http://127.0.0.1:9/photo.jpg"]  # the second is a camera where pictures are due
    screen(sources, Detector(model_bytes, device="cpu", threads=1, jobs=1 + is_asked), **options)
    assert given["connect"].func is (open_isolated_stream if is_asked else open_stream)
    assert given["connect"].keywords == {"fps": options.get("fps"), "key_frames": is_asked}
    assert given["stalled_after"] == (12.0 if is_asked else 2.0)
    assert given["reconnect"] is not is_asked
    assert (given["score"] is not None) is is_asked
    assert len(given["live"]) == 1 + is_asked
    assert (given["files"] is None) is is_asked


def test_a_bug_of_the_decoding_thread_is_raised_in_the_run(detector: Detector, tmp_path: Path) -> None:
    class Broken:
        def with_claims(self, source: Source, steps: Iterable[Decoded]) -> Iterator[Decoded]:
            yield next(iter(steps))
            raise ZeroDivisionError("a bug")

    paths = [make("image", tmp_path, 0), make("image", tmp_path, 1)]
    run = screen(paths, detector, claims=Broken())  # type: ignore[arg-type]
    assert isinstance(next(run), ImageRecord)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        list(run)


class Counting(Detector):
    calls = 0

    def look(self, image: NDArray[np.uint8], choice: LookChoice = "auto") -> Look:
        self.calls += 1
        return super().look(image, choice)
