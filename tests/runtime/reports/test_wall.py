"""The live wall: what it shows of every source, that a frozen one is never live, and who may open it."""

from __future__ import annotations

import asyncio
import http.client
import json
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import cv2
import numpy as np
import pytest
from live_samples import frame, state, until
from runtime_samples import picture

from asr_runtime.errors import ConfigurationError
from asr_runtime.records import ErrorRecord, FrameRecord, SegmentRecord
from asr_runtime.reports import wall as wall_module
from asr_runtime.reports.access import is_loopback, read_token
from asr_runtime.reports.wall import Wall
from asr_runtime.reports.wall_server import WallServer


def _source(wall: Wall, name: str) -> dict[str, object]:
    return next(source for source in wall.state()["sources"] if source["name"] == name)


def test_a_source_is_shown_from_the_start_and_with_every_change() -> None:
    wall = Wall(("door",))
    assert (_source(wall, "door")["state"], _source(wall, "door")["version"]) == ("connecting", 0)
    assert wall.picture(0) is None
    wall.observe(state("door", "live"), None)
    wall.observe(frame("door", "real", 0, time.time(), age=0.1), picture())
    shown = _source(wall, "door")
    assert (shown["state"], shown["verdict"], shown["version"]) == ("live", "real", 1)
    assert 0.1 <= float(str(shown["age"])) < 1
    wall.observe(state("door", "stalled", "no frame for 2.1 s"), None)
    assert (_source(wall, "door")["state"], _source(wall, "door")["detail"]) == ("stalled", "no frame for 2.1 s")
    wall.observe(SegmentRecord("door", 1.0, 2.0, "real", 0.1, 0.2, 3), None)
    assert _source(wall, "door")["segments"] == [{"start": 1.0, "end": 2.0, "verdict": "real"}]
    wall.observe(ErrorRecord("door", "DecodeError", "door: cut short"), None)
    assert (_source(wall, "door")["errors"], _source(wall, "door")["detail"]) == (1, "door: cut short")


def test_verdict_and_probability_are_those_of_the_latest_frames_together() -> None:
    wall = Wall(("door",))
    wall.observe(FrameRecord("door", 0, time.time(), 0.95, "ai", 0.30, "real", age=0.0), picture())
    assert (_source(wall, "door")["verdict"], _source(wall, "door")["probability"]) == ("real", 0.30)


def test_the_newest_picture_is_sent_small_and_encoded_once() -> None:
    wall = Wall(("door",))
    large = picture(0, 1080, 1920)
    wall.observe(frame("door", "real", age=0.0), large)
    first = wall.picture(0)
    assert first is not None
    assert wall.picture(0) is first
    decoded = cv2.imdecode(np.frombuffer(first, np.uint8), cv2.IMREAD_COLOR)
    assert decoded is not None
    assert decoded.shape == (360, 640, 3)
    wall.observe(frame("door", "real", 1, age=0.0), large[::-1].copy())
    assert wall.picture(0) is not first


def test_a_camera_that_repeats_its_picture_is_frozen(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 1000.0
    monkeypatch.setattr(wall_module.time, "time", lambda: now)
    wall = Wall(("door",))
    wall.observe(state("door", "live"), None)
    for second in range(6):
        now = 1000.0 + second
        record = FrameRecord("door", second, now, 0.2, "real", 0.2, "real", repeated=second > 0, age=0.0)
        wall.observe(record, picture())
        assert _source(wall, "door")["state"] == ("live" if second <= wall_module.FROZEN_AFTER else "frozen")
    assert _source(wall, "door")["since"] == 1000.0
    wall.observe(FrameRecord("door", 6, now, 0.2, "real", 0.2, "real", age=0.0), picture())
    assert _source(wall, "door")["state"] == "live"


def test_a_picture_is_flagged_when_its_source_turns_to_ai() -> None:
    wall = Wall(("door",))
    for number, steady in enumerate(("real", "ai", "ai", "real", "ai")):
        wall.observe(frame("door", steady, number, age=0.0), picture())  # type: ignore[arg-type]
    shown = wall.state()
    assert (shown["flagged_count"], [entry["number"] for entry in shown["flagged"]]) == (2, [2, 1])
    jpeg = wall.flagged(1)
    assert jpeg is not None
    assert jpeg.startswith(b"\xff\xd8")
    assert wall.flagged(3) is None


def test_a_folder_of_files_does_not_grow_the_wall_without_end() -> None:
    wall = Wall(("door",))
    for number in range(300):
        wall.observe(frame(f"{number}.mp4", "real"), None)
    names = [source["name"] for source in wall.state()["sources"]]
    assert len(names) <= 102
    assert (names[0], names[-1]) == ("door", "299.mp4")


@pytest.fixture
def wall() -> Wall:
    wall = Wall(("door",))
    wall.observe(state("door", "live"), None)
    wall.observe(frame("door", "real", age=0.0), picture())
    return wall


@pytest.fixture
def server(wall: Wall) -> Iterator[WallServer]:
    server = WallServer(wall, "0")
    yield server
    server.close()


def _get(
    url: str, path: str, headers: dict[str, str] | None = None, body: bytes | None = None
) -> tuple[int, dict[str, str], bytes]:
    place = urlsplit(url)
    connection = http.client.HTTPConnection(str(place.hostname), place.port, timeout=5)
    try:
        connection.request("GET" if body is None else "POST", path, body, headers or {})
        answer = connection.getresponse()
        return answer.status, dict(answer.getheaders()), answer.read()
    finally:
        connection.close()


def test_the_page_asks_for_nothing_elsewhere(server: WallServer) -> None:
    for path in ("/", "/wall.js", "/wall.css"):
        status, headers, body = _get(server.url, path)
        assert status == 200
        assert "default-src 'none'" in headers["content-security-policy"]
        assert b"://" not in body
    status, headers, body = _get(server.url, "/picture/0")
    assert (status, headers["content-type"], body[:2]) == (200, "image/jpeg", b"\xff\xd8")
    assert _get(server.url, "/picture/7")[0] == 404
    assert _get(server.url, "/flagged/1")[0] == 404


def test_a_page_of_another_site_cannot_read_the_wall_by_its_own_name(server: WallServer) -> None:
    port = urlsplit(server.url).port
    assert _get(server.url, "/events", {"Host": f"rebound.example:{port}"})[0] == 421
    assert _get(server.url, "/", {"Host": f"localhost:{port}"})[0] == 200


async def _first_updates(url: str, viewers: int) -> list[dict[str, object]]:
    place = urlsplit(url)

    async def view() -> dict[str, object]:
        reader, writer = await asyncio.open_connection(place.hostname, place.port)
        writer.write(f"GET /events HTTP/1.1\r\nHost: {place.netloc}\r\n\r\n".encode())
        while not (line := await reader.readline()).startswith(b"data: "):
            assert line, "the stream ended"
        writer.close()
        update: dict[str, object] = json.loads(line[6:])
        return update

    return await asyncio.gather(*(view() for _ in range(viewers)))


def test_every_viewer_gets_updates_within_a_second(server: WallServer) -> None:
    began = time.monotonic()
    updates = asyncio.run(_first_updates(server.url, 100))
    assert time.monotonic() - began < 5
    assert len(updates) == 100
    assert all(update["sources"][0]["name"] == "door" for update in updates)  # type: ignore[index]
    until(lambda: server._viewers == 0)


def test_other_machines_need_the_token(wall: Wall, tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match="other machines can reach this address; give --token-file"):
        WallServer(wall, "0.0.0.0:0")
    token = tmp_path / "token"
    token.write_text("0123456789abcdef\n")
    server = WallServer(wall, "0.0.0.0:0", read_token(str(token)))
    url = server.url.replace("0.0.0.0", "127.0.0.1")
    try:
        for path in ("/", "/events", "/picture/0", "/wall.js", "/?token=0123456789abcdef"):
            assert _get(url, path)[0] == 401, path
        assert _get(url, "/picture/0", {"Authorization": "Bearer 0123456789abcdef"})[0] == 200
        assert _get(url, "/picture/0", {"Cookie": "asr_wall=guess"})[0] == 401
        for given, expected in (("0123456789abcdef", 200), ("wrong", 401)):
            status, headers, _ = _get(url, "/login", body=f"token={given}".encode())
            assert (status, headers["location"]) == (303, "/" if expected == 200 else "/login#wrong")
            cookie = headers.get("set-cookie", "asr_wall=none").partition(";")[0]
            assert given not in cookie
            assert _get(url, "/picture/0", {"Cookie": cookie})[0] == expected
    finally:
        server.close()


@pytest.mark.parametrize("content", ["", "short", "längst genug, aber nicht ASCII", "two lines of it\nand more"])
def test_a_token_that_is_none_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigurationError, match="token file"):
        read_token(str(tmp_path / "token"))
    with pytest.raises(ConfigurationError, match="cannot be read"):
        read_token(str(tmp_path / "none"))


def test_only_this_machine_is_loopback() -> None:
    assert all(map(is_loopback, ("localhost", "127.0.0.1", "127.9.9.9", "::1")))
    assert not any(map(is_loopback, ("", "0.0.0.0", "10.0.0.1", "::", "localhost.example", "127.0.0.1.example")))
