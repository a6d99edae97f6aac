"""Frames that change size within a video come at their own size; the record of the video says so."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest

from asr_runtime.media.packets import codec_of
from asr_runtime.media.video import VideoFile
from asr_runtime.media.vp9 import FrameSizes, key_frame_size

CALL = Path(__file__).parent / "video-call.webm"


@pytest.mark.parametrize("fps", [None, 5])
def test_frames_of_a_video_call_have_the_sizes_that_were_sent(fps: float | None) -> None:
    video = VideoFile(CALL, fps)
    frames = list(video)
    for frame in frames:
        side = 160 if frame.number < 6 else 368
        assert frame.image.shape == (side, side, 3)
    assert len(frames) + video.skipped == 51
    assert video.notes() == "the frames change their size: 160 x 160, 368 x 368"
    assert video.damage() is None


def test_a_frame_of_another_size_shows_what_the_scaled_one_shows() -> None:
    capture = cv2.VideoCapture(str(CALL), cv2.CAP_FFMPEG)
    scaled = [capture.read()[1] for _ in range(51)]
    for frame in VideoFile(CALL):
        small = cv2.resize(frame.image, (160, 160), interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - scaled[frame.number]).mean() < 6


def test_a_container_that_says_another_size_than_its_frames_is_not_believed(tmp_path: Path) -> None:
    data = CALL.read_bytes()
    at = data.index(b"\xb0\x81\xa0\xba\x81\xa0")  # PixelWidth and PixelHeight, 160 each
    (tmp_path / "other.webm").write_bytes(data[:at] + b"\xb0\x81\x50\xba\x81\x50" + data[at + 6 :])
    frames = list(VideoFile(tmp_path / "other.webm"))
    assert [frame.image.shape[0] for frame in frames] == [160] * 6 + [368] * 45


def test_packets_say_their_codec_and_size() -> None:
    vp8 = bytes.fromhex("1057009d012a70417001")  # 368 x 368; the player is asked to scale
    codec = codec_of(vp8)
    assert codec is not None
    assert codec.name == "VP8"
    setup = codec.setup(vp8)
    assert setup is not None
    assert codec.size is not None
    assert codec.size(setup) == (368, 368)
    assert codec_of(b"\0\0\0\x01\x09\xf0\0\0\0\x01\x67\x64\0\x0b").name == "H.264"  # type: ignore[union-attr]
    assert codec_of(b"\0\0\0\x01\x46\x01\x50\0\0\0\x01\x40\x01").name == "HEVC"  # type: ignore[union-attr]
    assert codec_of(b"\0\0\x01\xb3\x14\0\xf0\x13\0\0\x01\xb8").name == "MPEG-2"  # type: ignore[union-attr]
    assert codec_of(b"\0\0\x01\xb3\0\x10\x07\0\0\x01\xb6\x10").name == "MPEG-4"  # type: ignore[union-attr]
    for other in (b"", b"\0", b"not a packet", bytes(64), b"\xff" * 64):
        assert codec_of(other) is None, other


def _bits(*fields: tuple[int, int]) -> bytes:
    text = "".join(f"{value:0{count}b}" for value, count in fields)
    return int(text.ljust(len(text) + -len(text) % 8, "0"), 2).to_bytes((len(text) + 7) // 8, "big") + b"\x55" * 16


def test_frames_between_key_frames_of_vp9_may_change_size() -> None:
    """As the encoder of a video call does when the network gets slow; the headers are built after the specification."""
    key = _bits((0b10000010, 8), (0x498342, 24), (0b0010, 4), (639, 16), (479, 16))
    smaller = _bits((0b10000110, 8), (0, 2), (1, 8), (0, 12), (0, 3), (319, 16), (239, 16))
    like_slot_0 = _bits((0b10000110, 8), (0, 2), (0, 8), (0, 12), (1, 1))
    like_slot_1 = _bits((0b10000110, 8), (0, 2), (0, 8), (0b0010, 4), (0, 8), (1, 1))
    sizes = FrameSizes()
    assert sizes.shown(like_slot_0) is None  # joined late: nothing is known
    assert key_frame_size(key) == sizes.shown(key) == (640, 480)
    assert key_frame_size(smaller) is None
    assert sizes.shown(smaller) == (320, 240)
    assert sizes.shown(like_slot_0) == (320, 240)
    assert sizes.shown(like_slot_1) == (640, 480)


RESIZED = Path(__file__).parent / "resized-vp9.webm"
"""A test pattern at 20 kbit/s: vpxenc --rt --resize-allowed=1 makes the frames smaller, without a key frame."""


@pytest.mark.parametrize("fps", [None, 5])
def test_frames_that_change_size_between_key_frames_come_at_their_own(fps: float | None) -> None:
    video = VideoFile(RESIZED, fps)
    frames = list(video)
    for frame in frames:
        height = 480 if frame.number < 55 else 360 if frame.number < 85 else 240
        assert frame.image.shape == (height, height * 4 // 3, 3), frame.number
    assert len(frames) + video.skipped == 100
    assert video.notes() == "the frames change their size: 640 x 480, 480 x 360, 320 x 240"
    assert video.damage() is None
    scaled = cv2.VideoCapture(str(RESIZED), cv2.CAP_FFMPEG)
    shown = {number: scaled.read()[1] for number in range(100)}
    for frame in frames:
        small = cv2.resize(shown[frame.number], frame.image.shape[1::-1], interpolation=cv2.INTER_AREA)
        assert np.abs(small.astype(int) - frame.image).mean() < 8, frame.number
