"""The annotated files: one per source, of the right length, playable after a kill, never silently cut."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import time
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_samples import frame, small_disk, until
from numpy.typing import NDArray

from asr_runtime.errors import ConfigurationError, OutputError
from asr_runtime.records import ErrorRecord, StateRecord, VideoRecord
from asr_runtime.reports.annotate import AnnotatedVideo


def play(path: Path) -> tuple[list[NDArray[np.uint8]], float]:
    """Frames and rate of a file."""
    video = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    rate = video.get(cv2.CAP_PROP_FPS)
    frames = []
    while (read := video.read())[0]:
        frames.append(read[1])
    video.release()
    return frames, rate


def seconds(path: Path) -> float:
    frames, rate = play(path)
    return len(frames) / rate


def still(level: int, width: int = 320, height: int = 240) -> NDArray[np.uint8]:
    return np.full((height, width, 3), level, np.uint8)


def levels(path: Path) -> list[int]:
    """Grey level in the middle of each frame, to the nearest ten."""
    return [round(float(each[100:140, 140:180].mean()), -1) for each in play(path)[0]]


@pytest.fixture
def lines() -> list[str]:
    return []


def write(path: Path, times: list[float], age: float | None = None) -> None:
    video = AnnotatedVideo(path, warn=pytest.fail)
    for number, at in enumerate(times):
        video.observe(frame("clip.mp4", "ai", number, at, age), still(10 * (number % 20)))
    video.close()


# Length


@pytest.mark.parametrize("rate", [1, 5, 12.5, 24000 / 1001, 25, 30000 / 1001, 50, 60])
def test_a_file_lasts_as_long_as_its_source(tmp_path: Path, rate: float) -> None:
    times = [round(number / rate, 3) for number in range(round(3 * rate))]
    write(tmp_path / "out.mkv", times)
    assert seconds(tmp_path / "out.mkv") == pytest.approx(3, abs=1.5 / rate)
    assert len(play(tmp_path / "out.mkv")[0]) == pytest.approx(len(times), abs=1)


def test_frames_are_repeated_where_the_source_pauses_and_dropped_where_it_is_faster(tmp_path: Path) -> None:
    write(tmp_path / "out.mkv", [0, 0.1, 0.2, 0.7, 0.72, 0.74, 0.8])
    assert levels(tmp_path / "out.mkv") == [0, 10, 20, 20, 20, 20, 20, 30, 60]


def test_a_video_sampled_more_slowly_than_once_a_second_keeps_its_length(tmp_path: Path) -> None:
    write(tmp_path / "out.mkv", [0, 4, 8])
    assert seconds(tmp_path / "out.mkv") == pytest.approx(9)


def test_a_wild_time_does_not_fill_the_disk(tmp_path: Path) -> None:
    write(tmp_path / "out.mkv", [0, 0.1, 0.2, 95000, 95000.1, 3, 3.1])
    assert levels(tmp_path / "out.mkv") == [0, 10, 20, 30, 40, 50, 60]


def test_a_live_source_has_ten_frames_a_second(tmp_path: Path) -> None:
    write(tmp_path / "out.mkv", [1795409522 + number / 30 for number in range(90)], age=0.03)
    frames, rate = play(tmp_path / "out.mkv")
    assert rate == 10
    assert len(frames) == pytest.approx(30, abs=1)


def test_an_outage_of_a_live_source_is_cut(tmp_path: Path) -> None:
    write(tmp_path / "out.mkv", [100, 100.1, 101.1, 5000, 5000.1], age=0.03)
    assert levels(tmp_path / "out.mkv") == [0, *[10] * 10, 20, 30, 40]


def test_one_frame_is_a_file_too(tmp_path: Path) -> None:
    write(tmp_path / "out.mkv", [0])
    assert len(play(tmp_path / "out.mkv")[0]) == 1


# Sources


def test_every_source_has_a_file_of_its_own_and_is_named(tmp_path: Path, lines: list[str]) -> None:
    video = AnnotatedVideo(tmp_path / "out.mkv", warn=lines.append)
    for number in range(20):
        for source, level in (("door", 50), ("yard", 150)):
            video.observe(frame(source, "real", number, number / 10, age=0.1), still(level))
    video.observe(StateRecord("door", "lost", 2.0), None)
    video.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out-2.mkv", "out.mkv"]
    assert set(levels(tmp_path / "out.mkv")) == {50}
    assert set(levels(tmp_path / "out-2.mkv")) == {150}
    assert lines == [f"yard: annotated frames go to {tmp_path / 'out-2.mkv'}"]


def test_the_file_of_a_video_is_complete_as_soon_as_the_video_is(tmp_path: Path, lines: list[str]) -> None:
    video = AnnotatedVideo(tmp_path / "out.mkv", warn=lines.append)
    ends = [VideoRecord("a.mp4", 0.5, "unsure", 0.5, 3, 0.08), ErrorRecord("b.mp4", "SourceError", "b.mp4: partial")]
    for end in ends:
        for number in range(3):
            video.observe(frame(end.source, "real", number, number / 25), still(50))
        video.observe(ErrorRecord(end.source, "InferenceError", "one frame", 1), None)
        video.observe(end, None)
    assert len(play(tmp_path / "out.mkv")[0]) == len(play(tmp_path / "out-2.mkv")[0]) == 3
    video.close()


def test_the_same_video_given_twice_is_two_files(tmp_path: Path, lines: list[str]) -> None:
    video = AnnotatedVideo(tmp_path / "out.mkv", warn=lines.append)
    for number in (0, 1, 2, 0, 1, 2):
        video.observe(frame("a.mp4", "real", number, number / 25), still(50))
    video.close()
    assert len(play(tmp_path / "out-2.mkv")[0]) == 3


# Pictures


@pytest.mark.parametrize("size", [(1, 1), (64, 48), (161, 121), (333, 777), (4001, 20), (7680, 64)])
def test_frames_of_every_size_can_be_written(tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "out.mkv"
    video = AnnotatedVideo(path, warn=pytest.fail)
    for number in range(3):
        video.observe(frame("clip.mp4", "ai", number, number / 25), still(200, *size))
    video.close()
    frames, _ = play(path)
    assert len(frames) == 3
    height, width = frames[0].shape[:2]
    assert 160 <= width <= 3840
    assert 90 <= height <= 3840
    assert frames[0][height // 2, width // 2].mean() > 150


def test_a_source_that_changes_its_size_keeps_that_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    video = AnnotatedVideo(path, warn=pytest.fail)
    for number, size in enumerate([(320, 240), (1280, 720), (120, 240)]):
        video.observe(frame("door", "ai", number, number / 10, age=0.1), still(200, *size))
    video.close()
    frames, _ = play(path)
    assert {each.shape for each in frames} == {(240, 320, 3)}
    assert frames[1][120, 160].mean() > 180
    assert frames[1][22, 160].mean() < 30, "black above a wide frame"
    assert frames[2][120, 50].mean() < 30, "black beside a tall one"
    assert frames[2][120, 160].mean() > 180


def test_the_frame_itself_is_not_changed(tmp_path: Path) -> None:
    image = still(90)
    video = AnnotatedVideo(tmp_path / "out.mkv", warn=pytest.fail)
    video.observe(frame("door", "ai", age=0.1), image)
    video.close()
    assert (image == 90).all()
    assert (play(tmp_path / "out.mkv")[0][0] != 90).any()


# Places


@pytest.mark.parametrize("name", ["out.mp4", "out", "out.avi", "mkv"])
def test_only_matroska_survives_a_kill_so_nothing_else_is_taken(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigurationError, match=rf"{name}: expected a name that ends in .mkv"):
        AnnotatedVideo(tmp_path / name, warn=pytest.fail)
    assert list(tmp_path.iterdir()) == []


def test_a_place_that_cannot_be_written_is_refused_at_once(tmp_path: Path) -> None:
    (tmp_path / "folder.mkv").mkdir()
    for place in ("missing/out.mkv", "folder.mkv"):
        with pytest.raises(OutputError, match=f"{place}: annotated video cannot be written"):
            AnnotatedVideo(tmp_path / place, warn=pytest.fail)


def test_a_video_that_no_run_wrote_is_not_replaced(tmp_path: Path) -> None:
    path = tmp_path / "holiday.mkv"
    writer = cv2.VideoWriter(str(path), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"MPEG"), 10, (320, 240))
    writer.write(still(90))
    writer.release()
    before = path.read_bytes()
    assert len(before) > 1000
    with pytest.raises(OutputError, match="it is another video or file, and would be replaced"):
        AnnotatedVideo(path, warn=pytest.fail)
    assert path.read_bytes() == before


def test_the_video_that_is_screened_is_not_replaced_and_an_earlier_result_is(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    write(path, [0.0, 0.1])
    write(path, [0.0, 0.1, 0.2])
    before = path.read_bytes()
    video = AnnotatedVideo(path, warn=pytest.fail)
    with pytest.raises(OutputError, match="is the video that is screened"):
        video.observe(frame(str(path), "ai", 0, 0.0, None), still(10))
    assert path.read_bytes() == before


def test_a_run_without_a_frame_leaves_no_file_and_takes_none(tmp_path: Path) -> None:
    write(tmp_path / "there.mkv", [0.0])
    earlier = (tmp_path / "there.mkv").read_bytes()
    for name in ("new.mkv", "there.mkv"):
        AnnotatedVideo(tmp_path / name, warn=pytest.fail).close()
    assert [path.name for path in tmp_path.iterdir()] == ["there.mkv"]
    assert (tmp_path / "there.mkv").read_bytes() == earlier


@pytest.mark.parametrize("name", ["a:b %d 日本.mkv", "rtsp:x.mkv", "-.mkv"])
def test_names_that_mean_something_to_ffmpeg_are_only_names(
    tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    write(Path(name), [0, 0.1, 0.2])
    assert [path.name for path in tmp_path.iterdir()] == [name]
    assert len(play(tmp_path / name)[0]) == 3


# Faults

ENDLESS = """
import sys, itertools, numpy as np
from asr_runtime.reports.annotate import AnnotatedVideo
from asr_runtime.records import FrameRecord
noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
video = AnnotatedVideo(sys.argv[1], warn=print)
for i in itertools.count():
    video.observe(FrameRecord("door", i, i / 10, 0.9, "ai", 0.9, "ai", age=0.1), noise)
    print(i, flush=True)
"""


def test_a_file_plays_after_a_kill(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    process = subprocess.Popen([sys.executable, "-c", ENDLESS, path], stdout=subprocess.PIPE)
    assert process.stdout is not None
    until(lambda: path.exists() and path.stat().st_size > 2_000_000, 30)
    process.send_signal(signal.SIGKILL)
    written = int(process.communicate(timeout=20)[0].split()[-1])
    frames, rate = play(path)
    assert rate == 10
    assert len(frames) >= written - 8, "256 KiB of these frames, and the one whose length is not known"
    assert frames[-1].shape == (480, 640, 3)
    assert frames[-1][:, 0].mean() > 50, "the border of the last frame is there"


def test_a_full_disk_is_an_error_before_it_is_full(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (480, 640, 3), np.uint8)
    with small_disk(tmp_path / "disk", "14m") as folder:
        video = AnnotatedVideo(folder / "out.mkv", warn=pytest.fail)

        def fill() -> None:
            for number in range(2000):
                video.observe(frame("door", "ai", number, number / 10, age=0.1), noise)

        with pytest.raises(OutputError, match=r"out.mkv: annotated video cannot be written \(the disk has less than"):
            fill()
        video.close()
        assert len(play(folder / "out.mkv")[0]) > 20, "what was written before is complete"
        (folder / "results.jsonl").write_bytes(bytes(1 << 20))


def test_a_disk_that_someone_else_fills_is_an_error_within_two_seconds(tmp_path: Path) -> None:
    with small_disk(tmp_path / "disk", "14m") as folder:
        video = AnnotatedVideo(folder / "out.mkv", warn=pytest.fail)
        video.observe(frame("door", "ai", 0, 0.0, age=0.1), still(90))
        (folder / "big").write_bytes(bytes(13 << 20))
        started = time.monotonic()

        def go_on() -> None:
            for number in range(1, 100):
                video.observe(frame("door", "ai", number, number / 10, age=0.1), still(90))
                time.sleep(0.05)

        with pytest.raises(OutputError, match="the disk has less than 8 MiB left"):
            go_on()
        assert time.monotonic() - started < 2
        video.close()


def test_a_file_that_does_not_grow_is_an_error(tmp_path: Path) -> None:
    """A quota: the disk has room, and FFmpeg says nothing."""
    path = tmp_path / "out.mkv"

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, 1 << 20))

    process = subprocess.run(
        [sys.executable, "-c", ENDLESS, path], check=False, capture_output=True, timeout=60, preexec_fn=limit
    )
    assert process.returncode == 1
    assert b"OutputError" in process.stderr
    assert b"the file does not grow any more" in process.stderr


def test_a_file_that_is_taken_away_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "out.mkv"
    video = AnnotatedVideo(path, warn=pytest.fail)
    for number in range(5):
        video.observe(frame("door", "ai", number, number / 10, age=0.1), still(90))
    path.unlink()
    with pytest.raises(OutputError, match="No such file"):
        video.close()
