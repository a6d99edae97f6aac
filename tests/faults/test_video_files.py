"""Video files: clean ones give every frame at its time, damaged ones what can be decoded, others an error at once."""

from __future__ import annotations

import random
import shutil
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from fault_clips import (
    AV1,
    MJPEG,
    PRORES,
    VP8,
    VP9,
    X264,
    X265,
    encode,
    frames_that_ffmpeg_recovers,
    plain_frames,
    run_ffmpeg,
    textured_frames,
)
from fault_process import screen
from runtime_samples import EXAMPLES, read_stamp

from asr_runtime.errors import SourceError
from asr_runtime.media.integrity import broken_at
from asr_runtime.media.video import VideoFile

Measured = Callable[[str], None]
COUNT = 60
B = ("-bf", "3")
EVEN = [index / 25 for index in range(COUNT)]
UNEVEN = [0.04 * index + 0.001 * index**2 for index in range(COUNT)]
LATER = ("-vf", "setpts=(N/25+5)/TB")
SLOWER = ("-vf", "settb=1/90000,setpts=(0.04*N+0.001*N*N)/TB", "-vsync", "passthrough", "-enc_time_base", "1/90000")
X265_B = (*X265, "-x265-params", "log-level=none:bframes=3")

CLEAN: dict[str, tuple[Sequence[object], list[float]]] = {
    "h264.mp4": ((*X264, "-bf", "0"), EVEN),
    "h264-b.mp4": ((*X264, *B), EVEN),
    "h264-b.mkv": ((*X264, *B), EVEN),
    "h264-b.avi": ((*X264, *B), EVEN),
    "h264-b.ts": ((*X264, *B), EVEN),
    "h264-b.m2ts": ((*X264, *B), EVEN),
    "h264-b.flv": ((*X264, *B), EVEN),
    "h264-fragments.mp4": ((*X264, *B, "-movflags", "frag_keyframe+empty_moov"), EVEN),
    "h264-raw.h264": ((*X264, *B), EVEN),
    "h264-10bit.mp4": ((*X264, "-pix_fmt", "yuv420p10le"), EVEN),
    "h264-5s-late.ts": ((*X264, *B, *LATER), EVEN),
    "h264-5s-late.mkv": ((*X264, *B, *LATER), EVEN),
    "variable-rate.mp4": ((*X264, *B, *SLOWER), UNEVEN),
    "variable-rate.mkv": ((*X264, *B, *SLOWER), UNEVEN),
    "variable-rate.ts": ((*X264, *B, *SLOWER), UNEVEN),
    "hevc.mp4": ((*X265_B, "-tag:v", "hvc1"), EVEN),
    "hevc.ts": (X265_B, EVEN),
    "hevc-10bit.mkv": ((*X265_B, "-pix_fmt", "yuv420p10le"), EVEN),
    "vp8.webm": ((*VP8, "-b:v", "1M"), EVEN),
    "vp9.webm": (VP9, EVEN),
    "vp9-hidden-frames.webm": ((*VP9, "-deadline", "good", "-auto-alt-ref", "1", "-lag-in-frames", "16"), EVEN),
    "av1.mp4": (AV1, EVEN),
    "av1.mkv": (AV1, EVEN),
    "mpeg4.mp4": (("-c:v", "mpeg4", "-q:v", "3", "-bf", "2"), EVEN),
    "mpeg4-b.avi": (("-c:v", "mpeg4", "-q:v", "3", "-bf", "2"), EVEN),
    "mpeg2-b.mpg": (("-c:v", "mpeg2video", "-q:v", "3", "-bf", "2"), EVEN),
    "mjpeg.avi": (MJPEG, EVEN),
    "mjpeg-raw.mjpeg": (MJPEG, EVEN),
    "prores.mov": (PRORES, EVEN),
    "wmv2.wmv": (("-c:v", "wmv2", "-q:v", "3"), EVEN),
    "theora.ogv": (("-c:v", "libtheora", "-q:v", "8"), EVEN),
}


@pytest.mark.fault(1)
def test_clean_files_give_every_frame_in_order_at_its_time(tmp_path: Path, measured: Measured) -> None:
    worst = 0.0
    for name, (options, times) in CLEAN.items():
        video = VideoFile(encode(tmp_path / name, plain_frames(COUNT), "160x64", *options))
        frames = list(video)
        assert [read_stamp(frame.image) for frame in frames] == list(range(COUNT)), name
        assert [frame.number for frame in frames] == list(range(COUNT)), name
        assert video.damage() is None, name
        error = max(abs(frame.time - right) for frame, right in zip(frames, times, strict=True))
        assert error < 0.001, name
        worst = max(worst, error)
    measured(f"{len(CLEAN)} files, {COUNT} frames each, all in order; times off by {1000 * worst:.2f} ms at most")


@pytest.mark.fault(1)
@pytest.mark.parametrize("angle", [90, 180, 270])
def test_the_rotation_of_the_container_is_applied(tmp_path: Path, angle: int, measured: Measured) -> None:
    flat = encode(tmp_path / "flat.mp4", plain_frames(COUNT), "160x64", *X264)
    run_ffmpeg("-i", flat, "-c", "copy", "-metadata:s:v", f"rotate={angle}", tmp_path / "turned.mp4")
    shown = [frame.image for frame in VideoFile(tmp_path / "turned.mp4")]
    output = run_ffmpeg("-i", tmp_path / "turned.mp4", "-f", "rawvideo", "-pix_fmt", "bgr24", "-")
    expected = np.frombuffer(output, np.uint8).reshape(-1, *shown[0].shape)
    assert np.abs(expected.astype(int) - shown).mean() < 1  # ffmpeg turns them too
    flat_again = [np.rot90(image, -angle // 90) for image in shown]
    assert [read_stamp(image) for image in flat_again] == list(range(COUNT))
    measured("rotated by 90, 180 and 270 degrees: every frame upright, in order")


@pytest.mark.fault(1)
def test_a_recording_that_begins_between_keyframes_gives_what_follows(tmp_path: Path, measured: Measured) -> None:
    whole = encode(tmp_path / "whole.ts", plain_frames(COUNT), "160x64", *X264, *B, "-g", "20")
    data = whole.read_bytes()
    (tmp_path / "joined.ts").write_bytes(data[len(data) // 3 // 188 * 188 :])
    frames = list(VideoFile(tmp_path / "joined.ts"))
    stamps = [read_stamp(frame.image) for frame in frames]
    assert stamps == list(range(stamps[0], COUNT))
    assert np.allclose(np.diff([frame.time for frame in frames]), 0.04, atol=1e-3)
    measured(f"recording joined late: {len(stamps)} of {COUNT} frames, from the next keyframe on, no gap")


@pytest.mark.fault(1)
def test_at_most_max_seconds_are_read_and_the_rest_is_reported(tmp_path: Path, measured: Measured) -> None:
    path = encode(tmp_path / "long.mp4", plain_frames(COUNT), "160x64", *X264)
    video = VideoFile(path, max_seconds=1.0)
    assert [frame.number for frame in video] == list(range(26))
    assert video.damage() == "only the first 1 s were read"
    measured("duration cap (default 86,400 s): stops there and is reported as partial")


DAMAGED: dict[str, Sequence[object]] = {
    "h264.mp4": (*X264, "-g", "25", "-b:v", "400k"),
    "h264.mkv": (*X264, "-g", "25", "-b:v", "400k"),
    "h264.avi": (*X264, "-g", "25", "-b:v", "400k"),
    "h264.ts": (*X264, "-g", "25", "-b:v", "400k"),
    "h264.flv": (*X264, "-g", "25", "-b:v", "400k"),
    "h264-fragments.mp4": (*X264, "-g", "25", "-b:v", "400k", "-movflags", "frag_keyframe+empty_moov"),
    "hevc.mp4": (*X265, "-x265-params", "log-level=none:keyint=25", "-b:v", "400k"),
    "vp8.webm": (*VP8, "-b:v", "400k", "-g", "25"),
    "vp9.webm": (*VP9, "-b:v", "400k", "-g", "25"),
    "av1.mp4": (*AV1, "-g", "25", "-b:v", "400k"),
    "mpeg4.avi": ("-c:v", "mpeg4", "-b:v", "600k", "-bf", "2", "-g", "25"),
    "mpeg4.mp4": ("-c:v", "mpeg4", "-b:v", "600k", "-g", "25"),
    "mpeg2.mpg": ("-c:v", "mpeg2video", "-b:v", "600k", "-bf", "2"),
    "mjpeg.avi": MJPEG,
    "prores.mov": PRORES,
}
LENGTH = 100
# Newer decoders (FFmpeg 7's for HEVC, dav1d) withhold frames whose references are lost, up to the next keyframe,
# and OpenCV cannot ask them not to (flag output_corrupt). They would not be scored as what they show.
WITHHELD = {"hevc.mp4": 25, "av1.mp4": 25}


@pytest.fixture(scope="module")
def to_damage(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("whole")
    return {
        name: encode(folder / name, textured_frames(LENGTH), "320x240", *options) for name, options in DAMAGED.items()
    }


def recovered(path: Path) -> tuple[int, str | None]:
    video = VideoFile(path)
    frames = list(video)
    times = [frame.time for frame in frames]
    assert times == sorted(set(times))
    return len(frames), video.damage()


@pytest.mark.fault(2)
def test_files_with_6_kb_overwritten_give_the_frames_that_ffmpeg_recovers(
    to_damage: dict[str, Path], tmp_path: Path, measured: Measured
) -> None:
    lost = theirs = unreported = files = 0
    for name, whole in to_damage.items():
        data = whole.read_bytes()
        for place in (0.4, 0.6):
            damaged = tmp_path / f"{place}-{name}"
            at = int(len(data) * place)
            damaged.write_bytes(data[:at] + random.Random(place).randbytes(6000) + data[at + 6000 :])
            count, damage = recovered(damaged)
            reference = frames_that_ffmpeg_recovers(damaged)
            assert count >= reference - 1 - WITHHELD.get(name, 0), (damaged.name, count, reference)
            assert damage or count == LENGTH, damaged.name
            if broken_at(str(damaged)) is not None:
                assert "broken" in (damage or "failed")
            files, lost, theirs = files + 1, lost + LENGTH - count, theirs + LENGTH - reference
            unreported += damage is None
    measured(f"6 kB overwritten in {files} files: {lost} of {files * LENGTH} frames lost (ffmpeg: {theirs})")
    measured(
        f"reported as partial: {files - unreported}, every one that lost a frame; pixels alone changed: {unreported}"
    )


@pytest.mark.fault(2)
def test_files_with_five_flipped_bits_give_the_frames_that_ffmpeg_recovers(
    to_damage: dict[str, Path], tmp_path: Path, measured: Measured
) -> None:
    lost = theirs = partial = refused = hidden = 0
    for seed in range(60):
        name, whole = list(to_damage.items())[seed % len(to_damage)]
        rng = random.Random(seed)
        data = bytearray(whole.read_bytes())
        for _ in range(5):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        damaged = tmp_path / f"{seed}-{name}"
        damaged.write_bytes(data)
        reference = frames_that_ffmpeg_recovers(damaged)
        try:
            count, damage = recovered(damaged)
        except SourceError:
            count, damage, refused = 0, "refused", refused + 1
        assert count >= reference - 1 - WITHHELD.get(name, 0), (damaged.name, count, reference)
        # A packet that no longer looks like a picture is passed over by the decoder, without a word and without a gap
        # in the container.
        assert damage or count >= LENGTH - 1, damaged.name
        hidden += damage is None and count < LENGTH
        lost, theirs, partial = lost + LENGTH - count, theirs + LENGTH - reference, partial + (damage is not None)
    measured(f"5 bits flipped in 60 files: {lost} of {60 * LENGTH} frames lost (ffmpeg: {theirs}), {refused} refused")
    measured(
        f"reported as partial: {partial}, every one that lost more than one frame; one frame lost unreported: {hidden}"
    )


@pytest.mark.fault(2)
def test_frames_that_the_decoder_leaves_out_are_reported(tmp_path: Path, measured: Measured) -> None:
    """FFmpeg's HEVC decoder drops damaged frames, and all that need them, without an error; noise shows it."""
    noise = np.random.default_rng(0).integers(-20, 21, LENGTH * 320 * 240 * 3, np.int16)
    noisy = np.clip(np.frombuffer(textured_frames(LENGTH), np.uint8) + noise, 0, 255).astype(np.uint8)
    partial = lost = 0
    for suffix in ("mp4", "mkv", "ts"):
        whole = encode(tmp_path / f"noise.{suffix}", noisy.tobytes(), "320x240", *X265_B, "-crf", "32")
        data = whole.read_bytes()
        for seed in range(6):
            damaged = bytearray(data)
            for place in random.Random(seed).sample(range(3000, len(data) - 6000), 5):
                damaged[place] ^= 1 << seed
            (tmp_path / whole.name).write_bytes(damaged)
            count, damage = recovered(tmp_path / whole.name)
            assert damage or count >= LENGTH - 1, (suffix, seed, count)
            partial, lost = partial + (damage is not None), lost + LENGTH - count
    measured(
        f"5 bits flipped in 18 noisy HEVC files: {lost} of {18 * LENGTH} frames lost, {partial} reported as partial"
    )


@pytest.mark.fault(1)
def test_frames_that_are_not_to_be_shown_are_not_missed(tmp_path: Path, measured: Measured) -> None:
    """Cut by edit lists, or joined at an open group of pictures: packets that give no frame, and nothing lost."""
    options = (*X265, "-x265-params", "log-level=none:keyint=15:open-gop=1:bframes=4:b-pyramid=1")
    whole = encode(tmp_path / "whole.mp4", plain_frames(COUNT), "160x64", *options)
    for name, cut in {
        "trimmed.mp4": ("-ss", "1.1"),
        "middle.mp4": ("-ss", "0.5", "-t", "1.33"),
        "late.mkv": ("-ss", "1.1"),
    }.items():
        run_ffmpeg(*cut[:2], "-i", whole, *cut[2:], "-c", "copy", tmp_path / name)
        video = VideoFile(tmp_path / name)
        stamps = [read_stamp(frame.image) for frame in video]
        assert stamps == sorted(set(stamps)), name
        assert (video.damage(), video.notes()) == (None, None), name
    measured("HEVC cut by edit lists or at an open group: no frame is missed that was not to be shown")


@pytest.fixture(scope="module")
def broken(to_damage: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Truncated, foreign, empty, frameless: one file each."""
    folder = tmp_path_factory.mktemp("broken")
    contents = {
        "text.mp4": b"This is not a video.\n" * 500,
        "empty.mp4": b"",
        "zeros.mkv": bytes(100_000),
        "program.mp4": Path("/bin/sh").read_bytes(),
        "picture.mp4": (EXAMPLES / "real/dress.jpg").read_bytes(),
        "playlist.mp4": b"#EXTM3U\n#EXTINF:1,\n/etc/passwd\n",
    }
    for name, whole in to_damage.items():
        data = whole.read_bytes()
        contents[f"half-{name}"] = data[: len(data) // 2 + 50]  # not between two packs, which leaves no trace
        contents[f"head-{name}"] = data[:100]
    for name, data in contents.items():
        (folder / name).write_bytes(data)
    sound = ("-f", "lavfi", "-i", "sine=duration=1")
    for name in ("sound-only.mp4", "sound-only.mkv", "sound-only.avi"):
        run_ffmpeg(*sound, folder / name)
    run_ffmpeg("-f", "lavfi", "-i", "testsrc=s=160x64", "-frames:v", "0", "-c:v", "libx264", folder / "no-frame.mp4")
    return sorted(folder.iterdir())


@pytest.mark.fault(3)
def test_what_is_no_whole_video_is_reported_within_a_second(broken: list[Path], measured: Measured) -> None:
    slowest, partial, named = 0.0, 0, 0
    for path in broken:
        started = time.perf_counter()
        try:
            video = VideoFile(path)
            list(video)
            assert video.damage(), path.name
            partial += 1
        except SourceError as error:
            named += str(path) in str(error)
        slowest = max(slowest, time.perf_counter() - started)
    assert slowest < 1.0
    assert named + partial == len(broken)
    measured(f"{len(broken)} files: {named} errors, {partial} partial, each within {slowest:.2f} s")


@pytest.mark.fault(3)
def test_the_next_input_goes_on_and_the_exit_code_is_1(
    broken: list[Path], to_damage: dict[str, Path], tmp_path: Path, measured: Measured
) -> None:
    copies = [Path(shutil.copy(to_damage["h264.mp4"], tmp_path / f"good-{n}.mp4")) for n in range(len(broken))]
    done = screen(tmp_path, *(argument for pair in zip(broken, copies, strict=True) for argument in pair), "--fps", 1)
    assert done.exit_code == 1, done.errors
    failed = {record["source"] for record in done.records if record["type"] == "error"}
    # picture.mp4 holds a JPEG, so it is scored as a picture.
    assert failed == {str(path) for path in broken if path.name != "picture.mp4"}
    scored = sum(record["type"] == "frame" and record["source"] in map(str, copies) for record in done.records)
    assert scored == len(broken) * LENGTH // 25
    measured(f"asr-screen: an error for each of {len(failed)}, the video after each is scored, exit code 1")
