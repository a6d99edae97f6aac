"""Debian's Chromium, without a screen and without connections of its own."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import Browser, Playwright, sync_playwright

_CHROMIUM = shutil.which("chromium")
_QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)


@contextmanager
def open_browser(*arguments: str) -> Iterator[Browser]:
    """Start the browser, with further arguments; a test that needs it is skipped where it is missing."""
    if _CHROMIUM is None:
        pytest.skip("needs a browser (Debian: chromium)")
    with _playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=_CHROMIUM, args=[*_QUIET, *arguments])
        try:
            yield browser
        finally:
            browser.close()


_running: list[Playwright] = []


@contextmanager
def _playwright() -> Iterator[Playwright]:
    """Start Playwright, which runs once in a process, or give the one of the browser that is open already."""
    if _running:
        yield _running[0]
        return
    with sync_playwright() as playwright:
        _running.append(playwright)
        try:
            yield playwright
        finally:
            _running.clear()
