"""The place where a container breaks is found; a whole file, whatever wrote it, is never called broken."""

from __future__ import annotations

from pathlib import Path

import pytest
from runtime_samples import write_clip

import asr_runtime
from asr_runtime.media.container import missing_bytes
from asr_runtime.media.integrity import broken_at
from asr_runtime.media.video import VideoFile

CLIPS = sorted((Path(asr_runtime.__file__).parent / "clips").iterdir())
CHAINED = {"avi": "MJPG", "mkv": "MJPG", "ts": "mp2v", "mpg": "mp2v", "flv": "FLV1"}


@pytest.fixture(params=CHAINED)
def chained(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_clip(tmp_path / f"clip.{request.param}", 60, codec=CHAINED[request.param])


@pytest.mark.parametrize("path", CLIPS, ids=lambda path: path.name)
def test_a_shipped_clip_is_whole(path: Path) -> None:
    assert broken_at(str(path)) is None


def test_an_overwritten_header_is_found_and_reported(chained: Path) -> None:
    assert broken_at(str(chained)) is None
    data = bytearray(chained.read_bytes())
    middle = len(data) // 2
    data[middle : middle + 6000] = b"\xa5" * 6000
    chained.write_bytes(data)
    at = broken_at(str(chained))
    assert at is not None
    assert middle - 6000 < at <= middle + 6000
    video = VideoFile(chained)
    list(video)
    assert f"the container is broken at byte {at}" in (video.damage() or "")


@pytest.mark.parametrize("value", [b"\0", b"\xff"])
def test_padding_at_the_end_is_no_damage(chained: Path, value: bytes) -> None:
    chained.write_bytes(chained.read_bytes() + value * 100_000)
    assert broken_at(str(chained)) is None


def test_an_end_within_a_packet_is_found(chained: Path) -> None:
    data = chained.read_bytes()
    chained.write_bytes(data[:-7])
    assert missing_bytes(str(chained)) or broken_at(str(chained)) is not None


@pytest.mark.parametrize("length", [b"\0\0\0\0", b"\xff\xff\xff\xff"])
def test_an_avi_that_does_not_know_its_length_is_whole(tmp_path: Path, length: bytes) -> None:
    path = write_clip(tmp_path / "piped.avi", 10)
    data = path.read_bytes()
    path.write_bytes(data[:4] + length + data[8:])
    assert missing_bytes(str(path)) == 0
    assert broken_at(str(path)) is None
