"""Makes pictures of the documentation again, with the built-in model as it is now.

python docs/make_pictures.py annotated                    a frame that asr-screen --annotate wrote
python docs/make_pictures.py report FOLDER/report.html    the head of a report that asr-evaluate wrote
python docs/make_pictures.py speed FILE.json              the parts of a result of asr-bench --suite
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

import cv2
from make_screenshots import QUIET, ROOT
from PIL import Image
from playwright.sync_api import sync_playwright

PICTURES = ROOT / "docs" / "pictures"
SECONDS = 2.5  # of the example video: an eye of the cat
SIZE, SCALE = (1100, 1228), 1.5  # of the browser's window in pixels, and device pixels per pixel


def annotated() -> None:
    """Screen the example video with its verdict drawn in, and save one frame."""
    code = "from asr_runtime.cli import screen_command; screen_command(prog_name='asr-screen')"
    with tempfile.TemporaryDirectory() as folder:
        video = Path(folder, "verdicts.mkv")
        options = ("--fps", "4", "--annotate", video, "runtime/examples/video/pan.mp4")
        subprocess.run([sys.executable, "-c", code, *map(str, options)], cwd=ROOT, check=True)
        capture = cv2.VideoCapture(str(video))
        while capture.grab() and capture.get(cv2.CAP_PROP_POS_MSEC) < SECONDS * 1000:
            pass
        _, frame = capture.retrieve()
        capture.release()
    assert cv2.imwrite(str(PICTURES / "annotated.png"), frame)


def report(page: str) -> None:
    """Save what a browser shows first of a report."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=list(QUIET))
        width, height = SIZE
        window = browser.new_page(viewport={"width": width, "height": height}, device_scale_factor=SCALE)
        window.goto(Path(page).absolute().as_uri())
        window.screenshot(path=PICTURES / "report.png")
        browser.close()
    with Image.open(PICTURES / "report.png") as picture:  # 256 colours: a third of the bytes
        small = picture.convert("RGB").quantize(256, dither=Image.Dither.NONE)
    small.save(PICTURES / "report.png", optimize=True)


def speed(result: str) -> None:
    """Draw the parts of a result of the suite."""
    from asr_bench.suite_report import write_pictures
    from asr_bench.suite_results import read_suite

    write_pictures(read_suite(Path(result)), PICTURES / "speed")


if __name__ == "__main__":
    {"annotated": annotated, "report": report, "speed": speed}[sys.argv[1]](*sys.argv[2:])  # type: ignore[operator]
