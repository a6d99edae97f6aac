"""Measures the time of the browser demo from opening the page to the first verdict.

    python -m asr_bench.browser_start build/browser-demo [ANOTHER_BUILD ...] --rounds 5

Serves each folder with Python's web server, opens it in Debian's Chromium, and gives the page a picture as soon as it
says that it is ready: once with nothing in the browser's cache, once again. The time ends when the verdict is painted.
Folders take turns, so that two builds are compared under the same load.
"""

from __future__ import annotations

import contextlib
import functools
import shutil
import statistics
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import click

from asr_bench.figures import Figure, figures_option, write_figures
from asr_runtime.command import command
from asr_runtime.errors import ConfigurationError
from asr_runtime.reports.progress import progress_bar

__all__ = ["PageStarts", "first_verdicts"]

_PICTURE = Path(__file__).parents[2] / "runtime" / "examples" / "real" / "dress.jpg"
_PATIENCE = 120_000.0  # milliseconds
_SETTLE = 2.0  # seconds; a new window first loads parts of the browser, and the page stores its files after a second
_NOTE_PAINT = """
new MutationObserver((_, observer) => {
  if (!document.querySelector(".item[data-probability]")) return;
  observer.disconnect();
  requestAnimationFrame(() => setTimeout(() => { document.documentElement.dataset.painted = Date.now(); }));
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


@dataclass(frozen=True)
class PageStarts:
    """Seconds from opening the page to the first verdict, one value a round.

    Attributes:
        build: name of the folder with the page.
        cold: with an empty cache.
        again: when the browser has the page already.
    """

    build: str
    cold: tuple[float, ...]
    again: tuple[float, ...]

    def figures(self) -> list[Figure]:
        """Return both times."""
        return [
            Figure(f"{self.build}: first verdict, empty cache", "s", False, self.cold),
            Figure(f"{self.build}: first verdict, second visit", "s", False, self.again),
        ]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


@contextlib.contextmanager
def _serving(folder: Path) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
    threading.Thread(target=server.serve_forever, args=[0.05], daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}/"
    finally:
        server.shutdown()
        server.server_close()


def first_verdicts(browser: Any, url: str) -> tuple[float, float]:
    """Open the demo twice in a new browser profile.

    Args:
        browser: a started browser of Playwright.
        url: of the demo.

    Returns:
        Seconds from opening the page to the first verdict on the screen: with an empty cache, and the second time.
    """
    context = browser.new_context()
    context.add_init_script(_NOTE_PAINT)
    page = context.new_page()
    seconds = []
    for _ in range(2):
        time.sleep(_SETTLE)
        began = time.time()
        page.goto(url)
        page.wait_for_selector("#engine[data-state=ready]", timeout=_PATIENCE)
        page.set_input_files("#files", str(_PICTURE))
        painted = page.wait_for_selector("html[data-painted]", timeout=_PATIENCE).get_attribute("data-painted")
        seconds.append(int(painted) / 1000 - began)
    context.close()
    return seconds[0], seconds[1]


@command("python -m asr_bench.browser_start")
@click.argument("folders", type=click.Path(exists=True, file_okay=False, path_type=Path), nargs=-1, required=True)
@click.option("--rounds", type=click.IntRange(min=1), default=5, show_default=True)
@figures_option
def main(folders: tuple[Path, ...], rounds: int, output: Path | None) -> None:
    """Time the first verdict of built browser demos."""
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium")
    if chromium is None:
        raise ConfigurationError("chromium is not installed (Debian: chromium)")
    times: dict[Path, list[tuple[float, float]]] = {folder: [] for folder in folders}
    with contextlib.ExitStack() as stack:
        urls = {folder: stack.enter_context(_serving(folder)) for folder in folders}
        playwright = stack.enter_context(sync_playwright())
        browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        stack.callback(browser.close)
        for _ in progress_bar(range(rounds), "browser starts"):
            for folder, url in urls.items():
                times[folder].append(first_verdicts(browser, url))
    starts = [PageStarts(folder.name, *map(tuple, zip(*pairs, strict=True))) for folder, pairs in times.items()]
    for start in starts:
        cold, again = statistics.median(start.cold), statistics.median(start.again)
        every = ", ".join(f"{first:.1f}" for first in start.cold)
        click.echo(
            f"{start.build}: first verdict after {cold:.2f} s with an empty cache ({every}), {again:.2f} s again"
        )
    if output is not None:
        write_figures(starts, output)


if __name__ == "__main__":
    main()
