"""Frames come in order with the right times; damage is reported, never silent."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from runtime_samples import read_stamp, write_clip

import asr_runtime
from asr_runtime.errors import SourceError
from asr_runtime.media.container import missing_bytes
from asr_runtime.media.video import VideoFile

CLIPS = sorted((Path(asr_runtime.__file__).parent / "clips").iterdir())


def test_every_frame_comes_once_in_order_with_its_time(clip: Path) -> None:
    video = VideoFile(clip)
    frames = list(video)
    assert [frame.number for frame in frames] == list(range(100))
    assert [read_stamp(frame.image) for frame in frames] == list(range(100))
    assert [frame.time for frame in frames] == pytest.approx([i / 25 for i in range(100)], abs=1e-3)
    assert (video.skipped, video.failed, video.damage()) == (0, 0, None)


@pytest.mark.parametrize(("fps", "step"), [(5, 5), (1, 25), (12.5, 2), (25, 1), (1000, 1), (0.1, 100)])
def test_fps_picks_the_first_frame_of_each_interval(clip: Path, fps: float, step: int) -> None:
    video = VideoFile(clip, fps)
    frames = list(video)
    expected = list(range(0, 100, step))
    assert [frame.number for frame in frames] == expected
    assert [read_stamp(frame.image) for frame in frames] == expected
    assert video.skipped == 100 - len(expected)


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_every_shipped_clip_decodes(path: Path) -> None:
    frames = list(VideoFile(path))
    assert [frame.number for frame in frames] == [0, 1, 2, 3, 4]
    assert [frame.time for frame in frames] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8], abs=2e-3)


def test_reading_goes_on_after_damage(tmp_path: Path) -> None:
    path = write_clip(tmp_path / "damaged.avi", 100)
    data = bytearray(path.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = b"\xa5" * 6000
    path.write_bytes(data)
    video = VideoFile(path)
    frames = list(video)
    stamps = [read_stamp(frame.image) for frame in frames]
    assert stamps[:40] == list(range(40))
    assert stamps[-1] == 99
    assert len(frames) < 100
    assert "broken at byte" in (video.damage() or "")


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_a_file_that_is_cut_short_is_never_taken_for_whole(path: Path, tmp_path: Path) -> None:
    assert missing_bytes(str(path)) == 0
    data = path.read_bytes()
    for kept in (len(data) * 4 // 5, len(data) - 1):
        cut = tmp_path / f"{kept}{path.suffix}"
        cut.write_bytes(data[:kept])
        try:
            video = VideoFile(cut)
            list(video)
        except SourceError:
            continue
        assert f"cut short by {len(data) - kept} bytes" in (video.damage() or "")


def test_bytes_after_the_end_are_no_damage(clip: Path, tmp_path: Path) -> None:
    for path in (clip, *CLIPS):
        padded = tmp_path / path.name
        padded.write_bytes(path.read_bytes() + b"\x55" * 5000)
        assert missing_bytes(str(padded)) == 0


def test_what_is_no_video_is_an_error(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "text.mp4").write_text("not a video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "head.avi").write_bytes(clip.read_bytes()[:5000])
    os.mkfifo(tmp_path / "fifo.mp4")
    for name in ("text.mp4", "empty.mp4", "head.avi", "fifo.mp4", "missing.mp4"):
        with pytest.raises(SourceError, match=name):
            list(VideoFile(tmp_path / name))


def test_a_playlist_does_not_reach_other_files(tmp_path: Path, clip: Path) -> None:
    (tmp_path / "secret.avi").write_bytes(clip.read_bytes())
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.avi\n")
    with pytest.raises(SourceError):
        list(VideoFile(tmp_path / "list.mp4"))


def test_names_are_names_not_patterns_or_protocols(tmp_path: Path, clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("a%03d.avi", "concat:b.avi", "http:c.avi", "#?é.avi"):
        Path(name).write_bytes(clip.read_bytes())
        assert len(list(VideoFile(name))) == 100


def test_the_environment_of_the_host_is_left_alone(clip: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENCV_FFMPEG_CAPTURE_OPTIONS", "rtsp_transport;udp")
    VideoFile(clip)
    assert os.environ["OPENCV_FFMPEG_CAPTURE_OPTIONS"] == "rtsp_transport;udp"
