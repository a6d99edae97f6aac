"""Measures the time of the browser demo from opening the page to the first verdict.

    python -m asr_bench.browser_start build/browser-demo [ANOTHER_BUILD ...] --rounds 5

Serves each folder with Python's web server, opens it in Debian's Chromium, and gives the page a picture as soon as it
says that it is ready: once with nothing in the browser's cache, once again. The time of the first verdict, that of the
centre, and of the verdict of the whole picture end when they are painted. Folders take turns, so that two builds are
compared under the same load.
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
const items = { first: ".item:is([data-centre], [data-probability])", whole: ".item[data-probability]" };
for (const [name, item] of Object.entries(items)) {
  new MutationObserver((_, observer) => {
    if (!document.querySelector(item)) return;
    observer.disconnect();
    requestAnimationFrame(() => setTimeout(() => { document.documentElement.dataset[name] = Date.now(); }));
  }).observe(document, { subtree: true, childList: true, attributes: true });
}
"""


@dataclass(frozen=True)
class PageStarts:
    """Seconds from opening the page to the verdicts on a picture, one value a round.

    Attributes:
        build: name of the folder with the page.
        cold: to the first verdict, with an empty cache.
        cold_whole: to the verdict of the whole picture, with an empty cache.
        again: to the first verdict, when the browser has the page already.
        again_whole: to the verdict of the whole picture, when the browser has the page already.
    """

    build: str
    cold: tuple[float, ...]
    cold_whole: tuple[float, ...]
    again: tuple[float, ...]
    again_whole: tuple[float, ...]

    def figures(self) -> list[Figure]:
        """Return all four times."""
        return [
            Figure(f"{self.build}: first verdict, empty cache", "s", False, self.cold),
            Figure(f"{self.build}: whole picture, empty cache", "s", False, self.cold_whole),
            Figure(f"{self.build}: first verdict, second visit", "s", False, self.again),
            Figure(f"{self.build}: whole picture, second visit", "s", False, self.again_whole),
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


def first_verdicts(browser: Any, url: str) -> tuple[float, float, float, float]:
    """Open the demo twice in a new browser profile.

    Args:
        browser: a started browser of Playwright.
        url: of the demo.

    Returns:
        Seconds from opening the page until the first verdict and that of the whole picture are on the screen: two with
        an empty cache, and two the second time.
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
        painted = page.wait_for_selector("html[data-whole]", timeout=_PATIENCE)
        seconds += [int(painted.get_attribute(name)) / 1000 - began for name in ("data-first", "data-whole")]
    context.close()
    return seconds[0], seconds[1], seconds[2], seconds[3]


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
    times: dict[Path, list[tuple[float, float, float, float]]] = {folder: [] for folder in folders}
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
        every = ", ".join(f"{first:.1f}" for first in start.cold)
        cold, cold_whole, again, again_whole = map(
            statistics.median, (start.cold, start.cold_whole, start.again, start.again_whole)
        )
        click.echo(
            f"{start.build}: first verdict after {cold:.2f} s with an empty cache ({every}), "
            f"whole picture {cold_whole:.2f} s; again {again:.2f} s, {again_whole:.2f} s"
        )
    if output is not None:
        write_figures(starts, output)


if __name__ == "__main__":
    main()
