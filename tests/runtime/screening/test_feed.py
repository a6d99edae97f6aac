"""What a run decodes: named files, files that arrive, and what cameras did, added up."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
from runtime_samples import encoded, picture

from asr_runtime.cameras.camera import LiveFrame
from asr_runtime.errors import SourceError
from asr_runtime.screening.feed import CameraCounts, Feed, FileFeed, FileListing, _is_gone
from asr_runtime.screening.screen import open_stream
from asr_runtime.sources.expand import Expansion, Source
from asr_runtime.sources.live import LiveSource
from asr_runtime.sources.steps import Decoded


class Arrivals:
    """Folders in which these files arrive."""

    def __init__(self, *paths: Path) -> None:
        self._paths = paths

    def files(self, leave: threading.Event) -> Iterator[str]:
        yield from map(str, self._paths)


def _decoded(named: list[Path], watch: Arrivals | None) -> list[tuple[str, bool]]:
    listing = FileListing(Expansion([str(path) for path in named], None), watch)  # type: ignore[arg-type]
    assert listing.is_watching is (watch is not None)
    return [(Path(item.source).name, item.error is None) for item in FileFeed(listing).items(threading.Event())]


def test_files_that_were_moved_before_they_were_read_are_passed_over_in_watched_folders_only(tmp_path: Path) -> None:
    good, cut, gone = (tmp_path / name for name in ("good.png", "cut.jpg", "gone.png"))
    good.write_bytes(encoded(picture(1), ".png"))
    cut.write_bytes(encoded(picture(1), ".jpg")[:-40])
    assert _decoded([], Arrivals(good, cut, gone)) == [("good.png", True), ("cut.jpg", False)]
    assert _decoded([good], Arrivals(cut)) == [("good.png", True), ("cut.jpg", False)]
    assert _decoded([good, cut, gone], None) == [("good.png", True), ("cut.jpg", False), ("gone.png", False)]
    assert not _is_gone(Source("https://example.org/photo.jpg", "image")), "it never was a file here"


def test_what_cameras_did_is_added_up() -> None:
    feed = Feed(
        None,
        [LiveSource(name, f"rtsp://127.0.0.1:9/{name}") for name in "ab"],
        connect=open_stream,
    )
    for number, camera in enumerate(feed._cameras, start=1):
        camera.received, camera.dropped, camera.undecided = 10 * number, number, 1
        camera.skipped, camera.reconnects, camera.given_up = 2 * number, 3 * number, number == 1
    assert feed.camera_counts() == CameraCounts(30, 3 + 2, 6, 9, 1)
    assert CameraCounts() == CameraCounts(0, 0, 0, 0, 0)


def _refused(url: str) -> object:
    raise SourceError("connection refused")


def test_a_camera_comes_back_unless_it_is_asked_not_to() -> None:
    source = [LiveSource("door", "rtsp://127.0.0.1:9/x")]
    ends = Feed(None, source, connect=_refused, reconnect=False)  # type: ignore[arg-type]
    with ends:
        states = [item.state for item in ends.items(threading.Event(), 20.0)]  # type: ignore[union-attr]
    assert states == ["connecting", "lost"]
    assert ends.camera_counts().given_up == 1
    stays = Feed(None, source, connect=_refused)  # type: ignore[arg-type]
    with stays:
        list(stays.items(threading.Event(), 0.4))
    assert stays.camera_counts().given_up == 0


def test_files_and_cameras_end_together_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(1), ".png"))
    files = FileFeed(FileListing(Expansion([str(path)] * 1, None), None))
    feed = Feed(files, [LiveSource("door", "rtsp://127.0.0.1:9/x")], connect=_refused, reconnect=False)  # type: ignore[arg-type]
    with feed:
        items = list(feed.items(threading.Event(), 20.0))
    assert sorted(type(item).__name__ for item in items) == ["Decoded", "StateRecord", "StateRecord"]
    assert all(isinstance(item, Decoded | LiveFrame) or item.state in ("connecting", "lost") for item in items)  # type: ignore[union-attr]


def test_threads_of_cameras_are_waited_for_and_a_run_that_waits_costs_no_time() -> None:
    def slow(url: str) -> object:
        time.sleep(0.1)
        raise SourceError("connection refused")

    feed = Feed(None, [LiveSource("door", "rtsp://127.0.0.1:9/x")], connect=slow)  # type: ignore[arg-type]
    used = time.thread_time()
    with feed:
        list(feed.items(threading.Event(), 0.05))
    assert all(camera.join(0.0) for camera in feed._cameras)
    with Feed(None, [LiveSource("door", "rtsp://127.0.0.1:9/x")], connect=slow) as waiting:  # type: ignore[arg-type]
        list(waiting.items(threading.Event(), 1.0))
    assert time.thread_time() - used < 0.5


@pytest.mark.parametrize("isolate", [False, True])
def test_files_are_decoded_in_a_separate_process_where_that_is_asked_for(tmp_path: Path, isolate: bool) -> None:
    path = tmp_path / "a.png"
    path.write_bytes(encoded(picture(1), ".png"))
    listing = FileListing(Expansion([str(path)], None), None)
    items = FileFeed(listing, isolate=isolate).items(threading.Event())
    assert next(items).image is not None
    children = psutil.Process().children()
    items.close()
    assert bool(children) is isolate


def test_a_program_ends_while_a_thread_waits_for_standard_input(model_path: Path) -> None:
    code = (
        "import sys, threading; from asr_runtime import Detector, screen; stop = threading.Event(); stop.set(); "
        "print(len(list(screen(['-'], Detector(sys.argv[1], device='cpu'), stop=stop))))"
    )
    line = [sys.executable, "-c", code, str(model_path)]
    with subprocess.Popen(line, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        try:
            assert process.wait(20) == 0
        finally:
            process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == b"1\n"
