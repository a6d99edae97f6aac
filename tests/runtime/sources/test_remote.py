"""Which URLs are files, and that fetching one ends in time."""

from __future__ import annotations

import socket
import time

import pytest

from asr_runtime.errors import SourceError
from asr_runtime.sources import remote
from asr_runtime.sources.remote import fetched_file, remote_file


@pytest.mark.parametrize(
    ("url", "kind", "watched"),
    [
        ("https://host/photo.jpg", "image", None),
        ("HTTP://me:p@ss@host/a/Photo.JPEG?size=9&x=/y#z", "image", None),
        ("http://host/clip.mp4", "video", "video"),
        ("http://host/video.mjpg", None, None),
        ("http://host/live.m3u8", None, None),
        ("http://host/live.ts", None, None),
        ("http://host/snapshot", None, None),
        ("http://host/show?name=photo.jpg", None, None),
        ("http://photo.jpg", None, None),
        ("http://[abc/photo.jpg", None, None),
        ("rtsp://host/photo.jpg", None, None),
        ("photo.jpg", None, None),
    ],
)
def test_the_path_says_whether_a_url_is_a_file(url: str, kind: str | None, watched: str | None) -> None:
    for is_watched, expected in ((False, kind), (True, watched)):
        file = remote_file(url, is_watched=is_watched)
        assert (file and file.kind) == expected


def test_a_file_never_shows_its_password() -> None:
    file = remote_file("http://me:secret@host/photo.jpg")
    assert file is not None
    assert file.url == "http://me:secret@host/photo.jpg"
    assert "secret" not in file.name + repr(file)


def test_a_server_that_never_answers_costs_a_bounded_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(remote._MOST_SECONDS, "image", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        file = remote_file(f"http://127.0.0.1:{silent.getsockname()[1]}/photo.jpg")
        assert file is not None
        started = time.monotonic()
        with pytest.raises(SourceError, match=r"photo\.jpg: no answer within 0\.3 s"), fetched_file(file):
            pass
    assert time.monotonic() - started < 5
