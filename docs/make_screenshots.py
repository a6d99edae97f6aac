"""Takes screenshots of the page into build/screenshots: `make screenshots` (Debian's chromium, built-in model).

    python docs/make_screenshots.py [FOLDER]

Every page at the width of a desktop and of a phone, light and dark, as WebP of less than 150 kB.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import cv2
import numpy as np
from playwright.sync_api import Browser, Page, sync_playwright

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "runtime" / "examples"
FILES = [
    *("ai/sd3-1.jpg", "real/cat.png", "ai/midjourney-1.jpg", "real/coffee.png", "ai/uvit-1.webp", "real/trousers.jpg"),
    *("ai/sd15-1.jpg", "video/pan.mp4"),
]
SIZES = {"desktop": (1280, 900), "phone": (390, 844)}
QUIET = (
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
)


@contextmanager
def server() -> Iterator[str]:
    """Run asr-serve; gives its URL."""
    code = "from asr_runtime.serve.cli import serve_command; serve_command(prog_name='asr-serve')"
    process = subprocess.Popen([sys.executable, "-c", code, "--port", "0"], stderr=subprocess.PIPE, text=True)
    with process:
        try:
            assert process.stderr is not None
            found = re.search(r"http://\S+/", process.stderr.readline())
            assert found
            yield found[0]
        finally:
            process.terminate()


def shoot(browser: Browser, url: str, folder: Path, size: str, scheme: str) -> None:
    """Take the pictures of one width and colour scheme."""
    width, height = SIZES[size]
    page = browser.new_page(viewport={"width": width, "height": height}, color_scheme=scheme, device_scale_factor=1)
    page.goto(url)
    save(page, folder / f"serve-start-{size}-{scheme}.webp")
    page.set_input_files("#files", [EXAMPLES / name for name in FILES])
    page.locator(".progress").wait_for(state="hidden", timeout=120_000)
    page.wait_for_timeout(500)
    save(page, folder / f"serve-{size}-{scheme}.webp")
    page.get_by_role("button", name="Evidence maps").click()
    page.get_by_role("button", name=re.compile("Enlarge sd3-1")).click()
    page.wait_for_timeout(300)
    save(page, folder / f"serve-map-{size}-{scheme}.webp")
    if len(sys.argv) > 2:  # all of it, for a look
        page.keyboard.press("Escape")
        page.get_by_role("button", name="Evidence maps").click()
        page.screenshot(path=folder / f"full-{size}-{scheme}.png", full_page=True)
    page.close()


def save(page: Page, path: Path) -> None:
    """Write what the window shows, as WebP."""
    image = cv2.imdecode(np.frombuffer(page.screenshot(), np.uint8), cv2.IMREAD_COLOR)
    assert image is not None
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_WEBP_QUALITY, 85])
    print(f"{path} {path.stat().st_size // 1000} kB")


def main() -> None:
    """Take all of them."""
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "screenshots"
    folder.mkdir(parents=True, exist_ok=True)
    with server() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(QUIET))
        for size in SIZES:
            for scheme in ("light", "dark"):
                shoot(browser, url, folder, size, scheme)
        browser.close()


if __name__ == "__main__":
    main()
