"""Decoding in a separate process gives the same pictures; a file that breaks the decoder affects no other file."""

from __future__ import annotations

import os
import signal
import struct
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from child_samples import children, is_gone, write_child
from runtime_samples import EXAMPLES, black_png, encoded, environment, picture, read_stamp, write_clip

from asr_runtime.errors import SourceError
from asr_runtime.isolation.files import IsolatedDecoder
from asr_runtime.sources.expand import Expansion, Source, Unreadable
from asr_runtime.sources.steps import Decoded, decode_source

EXAMPLE_FILES = sorted(path for path in EXAMPLES.glob("*/*") if path.is_file())


@pytest.fixture(scope="module")
def shared() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder()
    yield decoder
    decoder.close()


@pytest.fixture
def decoder() -> Iterator[IsolatedDecoder]:
    decoder = IsolatedDecoder()
    yield decoder
    decoder.close()


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Source:
    path = tmp_path_factory.mktemp("image") / "image.png"
    path.write_bytes(encoded(picture(), ".png"))
    return Source(str(path), "image")


def child() -> int:
    """Process id of the decoder that was started last."""
    return children("asr_runtime.isolation.files")[-1]


def facts(steps: Iterator[Decoded]) -> list[object]:
    return [
        (
            step.source,
            None if step.image is None else (step.image.shape, step.image.tobytes()),
            (step.frame, step.time, step.skipped, step.ends),
            (type(step.error), str(step.error)),
        )
        for step in steps
    ]


def last_error(steps: list[Decoded]) -> str:
    assert isinstance(steps[-1].error, SourceError)
    return str(steps[-1].error)


def works(decoder: IsolatedDecoder, source: Source) -> bool:
    return facts(decoder.decode(source, None)) == facts(decode_source(source, None))


@pytest.mark.parametrize("path", EXAMPLE_FILES, ids=lambda path: path.name)
def test_examples_decode_as_in_this_process(shared: IsolatedDecoder, path: Path) -> None:
    for source in Expansion([str(path)]):
        assert facts(shared.decode(source, 5)) == facts(decode_source(source, 5))


@pytest.mark.parametrize("fps", [None, 5.0, 0.3])
def test_whole_cut_and_damaged_videos_decode_as_in_this_process(
    shared: IsolatedDecoder, clip: Path, tmp_path: Path, fps: float | None
) -> None:
    data = bytearray(clip.read_bytes())
    (tmp_path / "cut.avi").write_bytes(data[: len(data) // 2])
    (tmp_path / "empty.mp4").write_bytes(b"")
    data[len(data) // 2 : len(data) // 2 + 6000] = b"\xa5" * 6000
    (tmp_path / "damaged.avi").write_bytes(data)
    for source in Expansion([str(clip), str(tmp_path)]):
        assert facts(shared.decode(source, fps)) == facts(decode_source(source, fps))


def test_folders_bytes_and_what_cannot_be_read_decode_as_in_this_process(
    shared: IsolatedDecoder, mixed_folder: Path, tmp_path: Path
) -> None:
    odd = os.fsencode(tmp_path) + b"/odd \xff\n.png"
    Path(os.fsdecode(odd)).write_bytes(b"not an image")
    data = encoded(picture(), ".webp")
    sources = [
        *Expansion([str(mixed_folder), str(tmp_path / "missing.png"), os.fsdecode(odd)]),
        Source("-", "image", data),
        Source("-", "image", data[:100]),
        Source("-", "image", b""),
        Source("gone.png", "image"),
        Source("a\0b.mp4", "video"),
    ]
    assert any(isinstance(source, Unreadable) for source in sources)
    for source in sources:
        assert facts(shared.decode(source, None)) == facts(decode_source(source, None))


def test_a_picture_belongs_to_the_caller(shared: IsolatedDecoder, clip: Path) -> None:
    images = [step.image for step in shared.decode(Source(str(clip), "video"), None) if step.image is not None]
    assert [read_stamp(image) for image in images] == list(range(100))
    assert all(image.flags.writeable and image.flags.owndata for image in images)


@pytest.fixture(scope="module")
def large_clip(tmp_path_factory: pytest.TempPathFactory) -> Source:
    """More pixels than a pipe and a read-ahead hold, so that the decoder is at work while frames are read."""
    return Source(str(write_clip(tmp_path_factory.mktemp("long") / "long.avi", 1000)), "video")


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_decoder_that_dies_ends_its_video_and_not_the_run(
    decoder: IsolatedDecoder, large_clip: Source, image: Source, number: signal.Signals
) -> None:
    steps = decoder.decode(large_clip, None)
    seen = [next(steps) for _ in range(3)]
    os.kill(child(), number)
    seen += steps
    assert [step.frame for step in seen[:3]] == [0, 1, 2]
    assert len(seen) < 1000
    assert (seen[-2].ends, seen[-2].image, seen[-2].error) == (True, None, None)
    frames = len(seen) - 2
    assert f"{large_clip.name}: decoding crashed (signal {int(number)}) after {frames} frames; " in last_error(seen)
    assert works(decoder, image)


def test_a_decoder_that_dies_between_two_sources_costs_neither(decoder: IsolatedDecoder, image: Source) -> None:
    assert works(decoder, image)
    pid = child()
    os.kill(pid, signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert works(decoder, image)


def test_a_decoder_that_hangs_is_ended(large_clip: Source, image: Source) -> None:
    decoder = IsolatedDecoder(step_deadline=0.5)
    steps = decoder.decode(large_clip, None)
    seen = [next(steps)]
    pid = child()
    os.kill(pid, signal.SIGSTOP)
    began = time.monotonic()
    seen += steps
    assert 0.5 <= time.monotonic() - began < 2
    assert seen[-2].ends
    assert f"{large_clip.name}: no frame within 0.5 s of decoding" in last_error(seen)
    assert is_gone(pid)
    decoder.step_deadline = 10.0
    assert works(decoder, image)
    decoder.close()


def test_a_slow_reader_is_no_hang(image: Source, large_clip: Source) -> None:
    decoder = IsolatedDecoder(step_deadline=0.4)
    for step in decoder.decode(large_clip, 0.1):
        assert step.error is None
        time.sleep(0.6)
    decoder.close()


def black_file(path: Path, side: int) -> Source:
    path.write_bytes(black_png(side))
    return Source(str(path), "image")


def test_a_picture_that_needs_more_memory_than_allowed_is_an_error(tmp_path: Path, image: Source) -> None:
    decoder = IsolatedDecoder(memory=256 << 20)
    large = black_file(tmp_path / "large.png", 16_000)
    (step,) = decoder.decode(large, None)
    assert str(step.error) == f"{large.name}: decoding takes more than 256 MiB of memory; scale it down"
    assert works(decoder, image)
    assert works(decoder, black_file(tmp_path / "small.png", 4_000))
    decoder.close()


def test_the_decoder_gets_no_secret_and_little_else(
    decoder: IsolatedDecoder, image: Source, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CAMERA_PASSWORD", "hunter2")
    assert works(decoder, image)
    names = {entry.partition(b"=")[0] for entry in Path(f"/proc/{child()}/environ").read_bytes().split(b"\0")}
    assert b"OPENCV_IO_MAX_IMAGE_PIXELS" in names
    assert not names & {b"CAMERA_PASSWORD", b"HOME", b"PATH", b"USER"}


def test_the_decoder_is_limited_and_hears_no_ctrl_c(decoder: IsolatedDecoder, clip: Path) -> None:
    steps = decoder.decode(Source(str(clip), "video"), None)
    next(steps)
    limit = psutil.Process(child()).rlimit
    assert limit(psutil.RLIMIT_CORE) == limit(psutil.RLIMIT_FSIZE) == (0, 0)
    assert limit(psutil.RLIMIT_NOFILE) == (32, 32)
    assert 2 << 30 < limit(psutil.RLIMIT_AS)[1] < 3 << 30
    modules = Path(f"/proc/{child()}/maps").read_text()
    assert "onnxruntime" not in modules
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        os.kill(child(), number)
    assert [step.frame for step in steps] == [*range(1, 100), None]


def test_the_decoder_does_not_outlive_its_parent(large_clip: Source) -> None:
    code = f"""
import os, signal
from pathlib import Path
from asr_runtime.isolation.files import IsolatedDecoder
from asr_runtime.sources.expand import Source
steps = IsolatedDecoder().decode(Source({large_clip.name!r}, "video"), None)
next(steps)
print(Path(f"/proc/self/task/{{os.getpid()}}/children").read_text(), flush=True)
signal.pause()
"""
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment(), stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout is not None
        pid = int(parent.stdout.readline())
        parent.kill()
    assert is_gone(pid)


def test_close_ends_the_decoder_and_leaving_early_too(decoder: IsolatedDecoder, large_clip: Source) -> None:
    for leave in (lambda steps: decoder.close(), lambda steps: steps.close()):
        steps = decoder.decode(large_clip, None)
        next(steps)
        pid = child()
        leave(steps)
        assert is_gone(pid)
    assert [step.frame for step in decoder.decode(large_clip, None)] == [*range(1000), None]


def test_another_source_in_the_middle_of_one_never_gets_its_frames(
    decoder: IsolatedDecoder, large_clip: Source, clip: Path
) -> None:
    first = decoder.decode(large_clip, None)
    next(first)
    second = decoder.decode(Source(str(clip), "video"), None)
    seen = [next(second)]
    left = list(first)
    assert left[0].ends
    assert "decoding was closed after 1 frames" in last_error(left)
    assert [step.frame for step in [*seen, *second]] == [*range(100), None]


def test_many_sources_leave_no_descriptor_open(decoder: IsolatedDecoder, image: Source, large_clip: Source) -> None:
    assert works(decoder, image)
    before = psutil.Process().num_fds()
    pid = child()
    for _ in range(200):
        assert len(list(decoder.decode(image, None))) == 1
    assert child() == pid
    assert psutil.Process(pid).num_fds() < 10
    for _ in range(3):
        steps = decoder.decode(large_clip, None)
        next(steps)
        os.kill(child(), signal.SIGKILL)
        assert "signal 9" in last_error(list(steps))
        assert works(decoder, image)
    assert psutil.Process().num_fds() == before


def step(kind: bytes, height: int = 0, width: int = 0, number: int = 0, at: float = 0.0, text: int = 0) -> bytes:
    return struct.pack("<cIIQdQI", kind, height, width, number, at, 0, text)


PIXELS = bytes(3)
FIRST = step(b"f", 1, 1) + PIXELS
NONSENSE = {
    "other bytes": b"\x80\x04\x95" * 100,
    "a picture for a video": step(b"i", 1, 1) + PIXELS,
    "more pixels than memory": step(b"f", 1 << 31, 1 << 31),
    "a frame of no pixels": step(b"f", 1, 0),
    "no time": step(b"f", 1, 1, at=float("nan")),
    "time before the beginning": step(b"f", 1, 1, at=-1.0),
    "a frame twice": FIRST + FIRST,
    "a text without end": step(b"S", text=1 << 31),
    "nothing after the end": FIRST + step(b"e") + step(b"e"),
    "done too soon": FIRST + step(b"d"),
}


@pytest.mark.parametrize("answer", NONSENSE.values(), ids=NONSENSE.keys())
def test_a_decoder_that_was_taken_over_is_not_believed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, clip: Path, answer: bytes
) -> None:
    monkeypatch.setattr(sys, "executable", str(write_child(tmp_path, step(b"r") + answer)))
    decoder = IsolatedDecoder()
    began = time.monotonic()
    steps = list(decoder.decode(Source(str(clip), "video"), None))
    assert time.monotonic() - began < 5
    assert "its answer is malformed" in last_error(steps)
    assert [step.ends for step in steps[:-1]] == ([False, True] if answer.startswith(FIRST) else [])


def test_a_decoder_that_does_not_start_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, image: Source
) -> None:
    monkeypatch.setattr(sys, "executable", "/bin/false")
    decoder = IsolatedDecoder()
    (only,) = decoder.decode(image, None)
    assert "decoding crashed (exit status 1)" in str(only.error)
    monkeypatch.setattr(sys, "executable", str(tmp_path / "missing"))
    (only,) = decoder.decode(image, None)
    assert "does not start" in str(only.error)


def test_pixels_stay_what_they_are(shared: IsolatedDecoder, tmp_path: Path) -> None:
    noise = np.random.default_rng(1).integers(0, 256, (1080, 1920, 3), dtype=np.uint8)
    path = tmp_path / "noise.bmp"
    path.write_bytes(encoded(noise, ".bmp"))
    (only,) = shared.decode(Source(str(path), "image"), None)
    assert only.image is not None
    assert np.array_equal(only.image, noise)
