"""Videos that change: frames of other sizes later on, several tracks, a clock that jumps."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest
from fault_clips import AV1, MJPEG, PRORES, VP8, VP9, X264, X265, encode, run_ffmpeg, textured_frames
from fault_process import screen
from numpy.typing import NDArray
from runtime_samples import read_stamp, stamped

from asr_runtime.errors import SourceError
from asr_runtime.media.video import VideoFile

Measured = Callable[[str], None]
COUNT = 20
HEVC = (*X265, "-x265-params", "log-level=none:bframes=2")
H264 = (*X264, "-bf", "2", "-g", "8")
MPEG2 = ("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2", "-g", "8")

JOINED: dict[str, tuple[Sequence[object], str]] = {
    "h264.mp4": (H264, "ts"),
    "h264.mkv": (H264, "ts"),
    "h264.ts": (H264, "ts"),
    "h264.flv": (H264, "ts"),
    "h264.avi": (H264, "ts"),
    "h264.asf": (H264, "ts"),
    "hevc.mkv": (HEVC, "ts"),
    "hevc.mp4": (HEVC, "ts"),
    "hevc.ts": (HEVC, "ts"),
    "mpeg2.ts": (MPEG2, "ts"),
    "mpeg2.mpg": (MPEG2, "mpg"),
    "vp8.webm": ((*VP8, "-b:v", "1M"), "webm"),
    "vp9.webm": ((*VP9, "-b:v", "1M"), "webm"),
    "av1.mkv": (AV1, "mkv"),
    "mjpeg.avi": (MJPEG, "avi"),
    "mjpeg.mkv": (MJPEG, "mkv"),
}
"""File of several parts -> how each part is coded, and the container that it is cut from."""
PUT_TOGETHER = {"h264.ts": H264, "hevc.265": HEVC, "h264.264": H264, "mpeg2.m2v": MPEG2}
"""Files made of two files in a row: the clock starts again with the second, or there is no clock."""


@functools.cache
def frames(height: int, width: int) -> bytes:
    """Raw frames with their index; those of another size show other indices."""
    first = 0 if width == 160 else COUNT
    shown = [
        cv2.resize(stamped(first + n, noise=0), (width, height), interpolation=cv2.INTER_NEAREST) for n in range(COUNT)
    ]
    return b"".join(frame.tobytes() for frame in shown)


def parts(folder: Path, options: Sequence[object], container: str) -> list[Path]:
    sizes = [(64, 160), (192, 320)]
    return [encode(folder / f"part-{h}.{container}", frames(h, w), f"{w}x{h}", *options) for h, w in sizes]


def joined(folder: Path, name: str, pieces: Sequence[Path]) -> Path:
    (folder / "list.txt").write_text("".join(f"file {piece.name}\n" for piece in pieces))
    run_ffmpeg("-f", "concat", "-i", folder / "list.txt", "-c", "copy", folder / name)
    return folder / name


def images(path: Path) -> list[NDArray[np.uint8]]:
    return [frame.image for frame in VideoFile(path)]


def check_own_sizes(path: Path, pieces: Sequence[Path]) -> int:
    """Each frame is that of its part, pixel by pixel, in order."""
    video = VideoFile(path)
    shown = list(video)
    alone = [image for piece in pieces for image in images(piece)]
    if path.name.startswith("mpeg2"):
        del alone[COUNT - 1]  # FFmpeg's decoder drops the frame that it holds back when the size changes
    assert [frame.image.shape for frame in shown] == [image.shape for image in alone], path.name
    assert [frame.number for frame in shown] == list(range(len(alone))), path.name
    for frame, image in zip(shown, alone, strict=True):
        assert np.array_equal(frame.image, image), (path.name, frame.number)
    assert video.damage() is None, path.name
    assert "the frames change their size: 160 x 64, 320 x 192" in (video.notes() or ""), path.name
    return len(shown)


@pytest.mark.fault(27)
def test_every_frame_has_its_own_size(tmp_path: Path, measured: Measured) -> None:
    count = 0
    for name, (options, container) in JOINED.items():
        pieces = parts(tmp_path, options, container)
        count += check_own_sizes(joined(tmp_path, name, pieces), pieces)
    for name, options in PUT_TOGETHER.items():
        pieces = parts(tmp_path, options, name.partition(".")[2])
        (tmp_path / name).write_bytes(b"".join(piece.read_bytes() for piece in pieces))
        count += check_own_sizes(tmp_path / name, pieces)
    measured(
        f"{len(JOINED) + len(PUT_TOGETHER)} files whose frames change size: {count} frames, each as in its own part"
    )


@pytest.mark.fault(27)
def test_frames_have_their_own_size_after_several_changes_and_when_turned(tmp_path: Path, measured: Measured) -> None:
    small, large = parts(tmp_path, H264, "ts")
    order = [large, small, large, small]
    alone = [image for piece in order for image in images(piece)]
    video = VideoFile(joined(tmp_path, "often.mp4", order))
    shown = [frame.image for frame in video]
    assert all(np.array_equal(one, other) for one, other in zip(shown, alone, strict=True))
    run_ffmpeg("-i", tmp_path / "often.mp4", "-c", "copy", "-metadata:s:v", "rotate=90", tmp_path / "turned.mp4")
    video = VideoFile(tmp_path / "turned.mp4", fps=5)
    turned = [(frame.number, frame.image) for frame in video]
    # ffmpeg turns clockwise by what it calls 90 degrees; which way is left to the test of rotated videos.
    assert all(any(np.array_equal(image, np.rot90(alone[number], turn)) for turn in (1, 3)) for number, image in turned)
    assert {image.shape[:2] for _, image in turned} == {(160, 64), (320, 192)}
    assert "192 x 320, 64 x 160, 192 x 320" in (video.notes() or "")
    measured(f"four changes in one file, turned by 90 degrees and sampled too: {len(shown)} and {len(turned)} frames")


@pytest.mark.fault(27)
def test_the_command_scores_a_recorded_video_call(tmp_path: Path, measured: Measured) -> None:
    call = Path(__file__).parents[1] / "runtime/media/video-call.webm"
    for more in ((), ("--isolate",)):
        done = screen(tmp_path, call, *more)
        assert done.exit_code == 0, done.errors
        (video,) = [record for record in done.records if record["type"] == "video"]
        assert video["frames"] == 51
        assert video["note"] == "the frames change their size: 160 x 160, 368 x 368"
    measured("6 frames of 160 x 160, then 45 of 368 x 368: all scored at their own size, and the record says so")


@pytest.mark.fault(27)
def test_damage_is_not_taken_for_another_size(tmp_path: Path, measured: Measured) -> None:
    """Bits flipped where key frames say their size: no frame is lost by it, and the next key frame is right again."""
    changed = 0
    for name, options in {
        "vp8.webm": (*VP8, "-b:v", "1M", "-g", "5"),
        "h264.ts": (*X264, "-g", "5"),
        "hevc.mkv": HEVC,
    }.items():
        whole = encode(tmp_path / name, frames(64, 160), "160x64", *options)
        data = whole.read_bytes()
        for seed in range(20):
            rng = random.Random(seed)
            damaged = bytearray(data)
            for _ in range(5):
                damaged[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
            (tmp_path / f"damaged-{name}").write_bytes(damaged)
            try:
                video = VideoFile(tmp_path / f"damaged-{name}")
                shown = list(video)
            except SourceError:
                continue
            assert len(shown) >= COUNT - 1 or video.damage(), (name, seed)
            changed += sum(frame.image.shape != (64, 160, 3) for frame in shown)
    assert changed <= 20
    measured(f"5 bits flipped in 60 files: {changed} frames came out at another size than 160 x 64")


@pytest.mark.fault(28)
def test_the_record_says_which_track_was_scored(tmp_path: Path, measured: Measured) -> None:
    small, large = parts(tmp_path, H264, "ts")
    for suffix in ("mp4", "mkv", "ts", "avi", "mov"):
        two = tmp_path / f"two.{suffix}"
        run_ffmpeg("-i", small, "-i", large, "-map", "0:v", "-map", "1:v", "-c", "copy", two)
        video = VideoFile(two)
        assert [read_stamp(frame.image) for frame in video] == list(range(COUNT)), suffix
        assert video.notes() == "the first of 2 video tracks was scored", suffix
    measured("two video tracks in mp4, mkv, ts, avi, mov: the first is scored, and the record says so")


@pytest.mark.fault(28)
def test_a_clock_that_jumps_does_not_stretch_the_video(tmp_path: Path, measured: Measured) -> None:
    early = encode(tmp_path / "early.ts", frames(64, 160), "160x64", *H264)
    worst = 0.0
    for offset in (45_441, 3600, 95_000):
        run_ffmpeg("-i", early, "-c", "copy", "-output_ts_offset", offset, tmp_path / "late.ts")
        path = tmp_path / f"jump-{offset}.ts"
        path.write_bytes(early.read_bytes() + (tmp_path / "late.ts").read_bytes() + early.read_bytes())
        video = VideoFile(path)
        times = [frame.time for frame in video]
        assert len(times) == 3 * COUNT
        worst = max(worst, float(np.abs(np.diff(times) - 0.04).max()))
        assert "its clock jumps by" in (video.notes() or "")
    assert worst < 0.05
    slides = tmp_path / "slides.mp4"  # one frame a minute: the container gives these times
    encode(slides, frames(64, 160), "160x64", "-vf", "setpts=60*N/TB", "-vsync", "passthrough", *X264)
    video = VideoFile(slides)
    assert [frame.time for frame in video] == pytest.approx([60 * n for n in range(COUNT)], abs=0.1)
    assert video.notes() is None
    measured(
        f"clocks set by 1, 12.6 and 26.4 hours and back: steps off by {worst:.3f} s at most; slides keep their times"
    )


@pytest.mark.fault(28)
def test_a_recording_that_was_never_finished_is_called_so(tmp_path: Path, measured: Measured) -> None:
    whole = encode(tmp_path / "whole.mp4", frames(64, 160), "160x64", *X264).read_bytes()
    at, end = whole.index(b"mdat"), whole.index(b"moov") - 4
    (tmp_path / "killed.mp4").write_bytes(whole[: at - 4] + bytes(4) + whole[at:end])  # as ffmpeg leaves it at SIGKILL
    (tmp_path / "copied.mp4").write_bytes(whole[: end - 100])
    (tmp_path / "empty.mp4").touch()
    for name, words in {
        "killed.mp4": "the recording was never finished: it has no index",
        "copied.mp4": "has lost its index",
        "empty.mp4": "the file is empty",
    }.items():
        with pytest.raises(SourceError, match=words):
            VideoFile(tmp_path / name)
    streamed = run_ffmpeg("-i", tmp_path / "whole.mp4", "-c", "copy", "-f", "matroska", "-")
    (tmp_path / "killed.mkv").write_bytes(streamed[: len(streamed) * 3 // 4])
    video = VideoFile(tmp_path / "killed.mkv")
    assert list(video)
    assert "the recording was never finished" in (video.damage() or "") + (video.notes() or "")
    measured("no index: never finished (mp4), cut before it (mp4), empty, killed (mkv): each in its own words")


INTERLACED = {
    "broadcast.ts": (*X264, "-vf", "setfield=tff", "-flags", "+ildct+ilme"),
    "disc.mpg": ("-c:v", "mpeg2video", "-q:v", "3", "-vf", "setfield=tff", "-flags", "+ildct+ilme"),
    "tape.dv": ("-c:v", "dvvideo", "-s", "720x576", "-pix_fmt", "yuv420p"),
    "fields.mp4": (*X265, "-crf", "8", "-x265-params", "log-level=none:interlace=tff"),
}
STILL = {
    "h264.mp4": X264,
    "intra.mp4": (*X264, "-g", "1"),
    "vp9.webm": VP9,
    "hevc.mp4": HEVC,
    "mpeg2.mpg": MPEG2,
    "mjpeg.avi": MJPEG,
    "prores.mov": PRORES,
    "ffv1.mkv": ("-c:v", "ffv1", "-pix_fmt", "yuv420p"),
}


@pytest.mark.fault(28)
def test_interlaced_frames_are_refused_and_nothing_from_memory_is_judged(tmp_path: Path, measured: Measured) -> None:
    before = encode(tmp_path / "before.mp4", textured_frames(COUNT), "320x240", *X264)
    paths = [encode(tmp_path / name, textured_frames(COUNT), "320x240", *how) for name, how in INTERLACED.items()]
    for path in paths:
        list(VideoFile(before))  # leaves its frames in memory
        given = []
        with pytest.raises(SourceError, match=r"interlaced, and OpenCV .* make a progressive copy: ffmpeg"):
            given.extend(VideoFile(path))
        assert given == []
    done = screen(tmp_path, *paths)
    assert [record["type"] for record in done.records] == ["error"] * len(paths) + ["summary"]
    run_ffmpeg("-i", paths[0], "-vf", "bwdif=send_frame", "-crf", "16", tmp_path / "copy.mp4")
    assert len(list(VideoFile(tmp_path / "copy.mp4"))) == COUNT
    measured(f"interlaced: {len(paths)} of {len(paths)} formats refused with the way to convert them, no frame judged")


@pytest.mark.fault(28)
@pytest.mark.parametrize("name", STILL)
def test_a_video_of_one_picture_is_not_taken_for_interlaced(tmp_path: Path, name: str) -> None:
    one = textured_frames(1)
    path = encode(tmp_path / name, one * 30, "320x240", *STILL[name])
    assert [frame.number for frame in VideoFile(path)] == list(range(30))


@pytest.mark.fault(28)
def test_a_black_beginning_is_given_whole(tmp_path: Path) -> None:
    path = encode(tmp_path / "title.mp4", bytes(320 * 240 * 3) * 30 + textured_frames(30), "320x240", *H264)
    assert [frame.number for frame in VideoFile(path)] == list(range(60))
    assert [frame.number for frame in VideoFile(path, 5.0)] == list(range(0, 60, 5))
