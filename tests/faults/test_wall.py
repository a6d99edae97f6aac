"""The live wall in a real browser, with a real RTSP camera that is killed and comes back."""

from __future__ import annotations

import json
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from browser import open_browser
from cameras import MjpegCamera, RtspCamera, with_login
from live_run import LiveRun
from live_samples import until
from playwright.sync_api import Page, expect


def _url(run: LiveRun) -> str:
    until(lambda: "view: http" in run.errors())
    return run.errors().partition("view: ")[2].split()[0]


@pytest.fixture
def page() -> Iterator[Page]:
    with open_browser() as browser:
        yield browser.new_page()


def test_a_camera_that_is_killed_is_shown_lost_and_live_again(tmp_path: Path, page: Page) -> None:
    login = ("viewer", "s3cret word")
    with (
        RtspCamera(10, login) as camera,
        MjpegCamera(rate=5) as other,
        LiveRun(tmp_path, with_login(camera.url, *login), other.url, "--view", "0") as run,
    ):
        page.goto(_url(run))
        tile = page.locator(".tile").first
        expect(page.locator("#status")).to_contain_text("2 sources, ")
        expect(tile).to_have_attribute("data-state", "live", timeout=15_000)
        expect(tile.locator("img")).to_be_visible()
        expect(tile.locator(".state")).to_have_text("live")
        camera.kill()
        expect(tile).to_have_attribute("data-state", "lost", timeout=15_000)
        expect(tile).to_have_class("tile  old")
        expect(tile.locator(".cover")).to_contain_text("lost since")
        expect(page.locator(".tile").nth(1)).to_have_attribute("data-state", "live")
        camera.restart()
        expect(tile).to_have_attribute("data-state", "live", timeout=20_000)
        expect(tile.locator(".cover")).to_be_hidden()
        assert "s3cret" not in page.content()
        run.process.kill()
        expect(page.locator("#status")).to_contain_text("what is shown is old", timeout=8_000)
        expect(page.locator(".tile").nth(1)).to_have_attribute("data-state", "old")


@pytest.mark.heavy
def test_a_hundred_viewers_do_not_slow_the_screening(tmp_path: Path) -> None:
    with MjpegCamera(rate=10) as camera, LiveRun(tmp_path, camera.url, "--view", "0") as run:
        url = _url(run)
        run.first(10, type="frame")
        alone = _scored(run, 4.0)
        leave = threading.Event()
        updates: list[float] = []
        viewers = [threading.Thread(target=_view, args=(url, leave, updates), daemon=True) for _ in range(100)]
        for viewer in viewers:
            viewer.start()
        until(lambda: len(updates) >= 100)
        watched = _scored(run, 4.0)
        leave.set()
    assert alone >= 30
    assert watched >= 0.9 * alone, f"{watched} frames scored beside 100 viewers, {alone} without"
    assert max(updates) < 1.5, "an update was older than a second"


def _scored(run: LiveRun, seconds: float) -> int:
    began = time.time()
    time.sleep(seconds)
    return len(run.seen(began, began + seconds, type="frame"))


def _view(url: str, leave: threading.Event, updates: list[float]) -> None:
    """Read updates as a page does; keep how old each was when it came."""
    assert urlsplit(url).hostname == "127.0.0.1"
    with urllib.request.urlopen(f"{url}events", timeout=10) as stream:
        for line in stream:
            if leave.is_set():
                return
            if line.startswith(b"data: "):
                updates.append(time.time() - json.loads(line[6:])["now"])
