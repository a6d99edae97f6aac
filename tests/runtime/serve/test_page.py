"""The page in a real browser: drop files, read verdicts and maps, save results; by mouse, by keyboard, by a reader."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from axe_playwright_python.sync_playwright import Axe
from browser import open_browser
from playwright.sync_api import Browser, Download, Page, expect
from runtime_samples import bright_corner, encoded, shade
from serve_samples import Client, Serve

TOKEN = "a-token-for-the-tests-0123456789"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, clip: Path) -> list[Path]:
    folder = tmp_path_factory.mktemp("files")
    pictures = {"white.png": shade(255, 200, 260), "black.jpg": shade(0, 200, 260), "corner.png": bright_corner()}
    for name, pixels in pictures.items():
        (folder / name).write_bytes(encoded(pixels, Path(name).suffix))
    (folder / "broken.jpg").write_bytes((folder / "black.jpg").read_bytes()[:300])
    (folder / "clip.avi").write_bytes(clip.read_bytes())
    return [folder / name for name in ("white.png", "black.jpg", "corner.png", "broken.jpg", "clip.avi")]


@pytest.fixture
def page(browser: Browser, server: Client) -> Iterator[Page]:
    """The page; afterwards its console must be empty, and it must have sent requests to its server only."""
    page = browser.new_page()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(f"http://{server.address}/")
    yield page
    page.close()
    own = (f"http://{server.address}/", f"blob:http://{server.address}/", "data:")
    assert [url for url in asked if not url.startswith(own)] == []
    assert complaints == []


def choose(page: Page, files: list[Path]) -> None:
    page.set_input_files("#files", files)
    expect(page.locator(".card")).to_have_count(len(files))
    expect(page.locator(".card.waiting")).to_have_count(0, timeout=30_000)


def card(page: Page, name: str) -> Any:
    return page.locator(".card", has_text=name)


def test_files_get_verdicts_in_words_and_a_broken_one_says_why(page: Page, files: list[Path]) -> None:
    choose(page, files)
    expect(card(page, "white.png").locator(".word")).to_have_text("Looks AI-generated")
    expect(card(page, "black.jpg").locator(".word")).to_have_text("Looks real")
    expect(card(page, "broken.jpg")).to_contain_text("Not scored")
    expect(card(page, "broken.jpg")).to_contain_text("the image is truncated")
    expect(card(page, "white.png").locator(".number")).to_have_text(re.compile(r"^\d+% AI$"))
    scale = card(page, "white.png").locator(".scale")
    expect(scale).to_have_attribute("aria-label", re.compile(r"Probability of AI \d+%; unsure from 40% to 60%"))
    expect(card(page, "clip.avi").locator(".strip i")).to_have_count(8)
    expect(page.locator("#status")).to_contain_text("5 of 5 screened")


def test_results_are_filtered_and_sorted(page: Page, files: list[Path]) -> None:
    choose(page, files)
    page.locator("[data-filter=real]").click()
    expect(page.locator(".card:visible")).to_have_count(int(page.locator("[data-filter=real] b").inner_text()))
    expect(card(page, "white.png")).to_be_hidden()
    page.locator("[data-filter=all]").click()
    page.select_option("#sort", "high")
    assert page.locator(".card .name").all_inner_texts()[0] == "white.png"
    page.select_option("#sort", "name")
    assert page.locator(".card .name").all_inner_texts() == sorted(file.name for file in files)


def test_the_map_tints_what_speaks_for_ai(page: Page, files: list[Path]) -> None:
    choose(page, files)
    page.get_by_role("button", name="Evidence maps").click()
    canvas = card(page, "corner.png").locator("canvas")
    expect(canvas).to_be_visible()
    opacity = """(canvas, [x, y]) => {
        const copy = new OffscreenCanvas(canvas.width, canvas.height).getContext("2d", {willReadFrequently: true});
        copy.drawImage(canvas, 0, 0);
        return copy.getImageData(canvas.width * x, canvas.height * y, 1, 1).data[3];
    }"""
    assert canvas.evaluate(opacity, [0.9, 0.9]) > 100
    assert canvas.evaluate(opacity, [0.1, 0.1]) == 0
    page.get_by_role("button", name="Evidence maps").click()
    expect(page.locator(".card canvas")).to_have_count(0)


def test_files_are_dropped_and_pasted(page: Page, files: list[Path]) -> None:
    send = """([type, name, base64]) => {
        const transfer = new DataTransfer();
        const bytes = Uint8Array.from(atob(base64), (c) => c.charCodeAt(0));
        transfer.items.add(new File([bytes], name, { type: "image/png" }));
        const options = { bubbles: true, cancelable: true };
        document.dispatchEvent(type === "paste"
            ? new ClipboardEvent(type, { ...options, clipboardData: transfer })
            : new DragEvent(type, { ...options, dataTransfer: transfer }));
    }"""
    data = base64.b64encode(files[0].read_bytes()).decode()
    for type_, name in (("drop", "dropped.png"), ("paste", "pasted.png")):
        page.evaluate(send, [type_, name, data])
        expect(card(page, name).locator(".word")).to_have_text("Looks AI-generated", timeout=15_000)
    page.set_input_files("#folder", str(files[0].parent))
    expect(page.locator(".card")).to_have_count(2 + len(files))
    expect(page.locator(".name", has_text=f"{files[0].parent.name}/white.png")).to_be_visible()


def saved(page: Page, button: str) -> str:
    with page.expect_download() as download:
        page.get_by_role("button", name=button, exact=True).click()
    done: Download = download.value
    return Path(done.path()).read_text(encoding="utf-8-sig")


def test_results_are_saved_as_csv_json_lines_and_a_report_that_stands_alone(
    page: Page, browser: Browser, files: list[Path], tmp_path: Path
) -> None:
    formula = tmp_path / "=1+1.png"
    formula.write_bytes(files[0].read_bytes())
    choose(page, [*files, formula])
    rows = list(csv.DictReader(io.StringIO(saved(page, "CSV"))))
    assert [row["source"] for row in rows] == [*(file.name for file in files), "'=1+1.png"]
    assert [row["verdict"] for row in rows][:2] == ["ai", "real"]
    records = [json.loads(line) for line in saved(page, "JSON lines").splitlines()]
    assert {record["type"] for record in records} >= {"image", "map", "error", "frame", "video"}
    text = saved(page, "Report")
    assert "<script" not in text
    assert "SHA-256" in text
    report = browser.new_page()
    report.on("request", lambda request: pytest.fail(request.url) if request.url.startswith("http") else None)
    report.set_content(text)
    expect(report.locator("section")).to_have_count(6)
    expect(report.locator("section", has_text="corner.png").locator("img")).to_have_count(2)
    assert report.evaluate("[...document.images].every((image) => image.naturalWidth > 0)")
    report.close()


def test_names_are_text_and_never_markup(page: Page, files: list[Path], tmp_path: Path) -> None:
    evil = tmp_path / "<img src=x onerror=alert(1)>.png"
    evil.write_bytes(files[0].read_bytes())
    choose(page, [evil])
    expect(page.locator(".card .name")).to_have_text(evil.name)
    assert evil.name not in saved(page, "Report")


def test_everything_is_done_by_keyboard(page: Page, files: list[Path]) -> None:
    choose(page, files[:3])
    page.locator(".card button.shot").first.focus()
    page.keyboard.press("Enter")
    expect(page.locator("#viewer")).to_be_visible()
    expect(page.locator("#viewer-name")).to_have_text("white.png")
    page.keyboard.press("ArrowRight")
    expect(page.locator("#viewer-name")).to_have_text("black.jpg")
    expect(page.locator("#viewer .word")).to_have_text("Looks real")
    page.keyboard.press("Escape")
    expect(page.locator("#viewer")).to_be_hidden()
    expect(page.get_by_role("button", name="Enlarge black.jpg")).to_be_focused()


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing_serious(browser: Browser, server: Client, files: list[Path], scheme: Any) -> None:
    page = browser.new_page(color_scheme=scheme, viewport={"width": 390, "height": 844})
    for path in ("docs", "login", "") if scheme == "light" else ("",):
        page.goto(f"http://{server.address}/{path}")
        assert serious(page) == [], path
    choose(page, files)
    page.get_by_role("button", name="Evidence maps").click()
    assert serious(page) == []
    page.get_by_role("button", name="Enlarge corner.png").click()
    assert serious(page) == []
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    page.close()


def serious(page: Page) -> list[str]:
    violations = Axe().run(page).response["violations"]
    return [f"{v['id']}: {v['nodes'][0]['html']}" for v in violations if v["impact"] in ("serious", "critical")]


def test_a_busy_server_is_asked_again(browser: Browser, serve: Serve, files: list[Path]) -> None:
    with serve(workers=1, waiting=1) as client:
        page = browser.new_page()
        page.goto(f"http://{client.address}/")
        choose(page, files[:3] * 4)
        expect(page.locator(".card.failed")).to_have_count(0)
        page.close()


def test_a_token_opens_the_page(browser: Browser, serve: Serve, files: list[Path]) -> None:
    with serve(token=TOKEN) as client:
        page = browser.new_page()
        page.goto(f"http://{client.address}/")
        page.fill("#token", "wrong")
        page.keyboard.press("Enter")
        expect(page.get_by_text("That was not the token")).to_be_visible()
        page.fill("#token", TOKEN)
        page.get_by_role("button", name="Open").click()
        expect(page.locator("#files")).to_be_attached()
        page.wait_for_load_state("load")  # its script too
        choose(page, files[:1])
        expect(page.locator(".word")).to_have_text("Looks AI-generated")
        page.close()
