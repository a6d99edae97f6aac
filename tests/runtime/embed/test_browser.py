"""The browser demo in a real browser, without a network, on pictures that decoders often read differently."""

from __future__ import annotations

import base64
import functools
import io
import runpy
import shutil
import threading
from collections.abc import Iterator
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from browser import open_browser
from PIL import Image, ImageCms, ImageDraw
from playwright.sync_api import Browser, Page, expect
from serve_samples import command

from asr_bench.browser_start import first_verdicts
from asr_runtime import Detector, read_image

_BUILD = Path(__file__).parents[3] / "runtime" / "embed" / "browser" / "build.py"
_MODEL = "asrnet-lite-tiny"
_READY = 120_000  # milliseconds; a shared machine may be busy

pytestmark = [pytest.mark.heavy, pytest.mark.timeout(600)]


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *arguments: Any) -> None:
        pass


class _Host:
    """A plain web server, as any host of static files is."""

    def __init__(self, folder: Path) -> None:
        handler = functools.partial(_Quiet, directory=str(folder))
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self.url = f"http://127.0.0.1:{self._server.server_address[1]}/"
        threading.Thread(target=self._server.serve_forever, args=[0.05], daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("npm") is None:
        pytest.skip("npm is not installed")
    out = tmp_path_factory.mktemp("demo") / "site"
    runpy.run_path(str(_BUILD))["build"](out, _MODEL)
    return out


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with open_browser() as browser:
        yield browser


def _swapped_profile() -> bytes:
    """An ICC profile whose red and green stand for each other: whoever applies it changes every pixel."""
    profile = bytearray(ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes())
    red, green = profile.index(b"rXYZ"), profile.index(b"gXYZ")
    profile[red : red + 4], profile[green : green + 4] = b"gXYZ", b"rXYZ"
    return bytes(profile)


def _pictures(folder: Path, examples: Path) -> list[Path]:
    """Twenty files: the examples, and what browsers, screens and phones do to pictures."""
    photo = Image.open(examples / "real" / "dress.jpg").convert("RGB").resize((420, 300))
    alpha = photo.convert("RGBA")
    alpha.putalpha(Image.fromarray(np.tile(np.linspace(0, 255, 420, dtype=np.uint8), (300, 1))))
    exif = Image.Exif()
    exif[0x0112] = 6
    on_white = Image.new("RGB", (900, 700), "white")
    on_white.paste(photo, (0, 0))
    text = Image.new("RGB", (600, 500), "white")
    for line in range(0, 500, 14):
        ImageDraw.Draw(text).text((5, line), "what the page reads and what it shows " * 3, "black")
    made: dict[str, tuple[Image.Image, dict[str, Any]]] = {
        "turned.jpg": (photo, {"exif": exif.tobytes(), "quality": 95}),
        "profile.jpg": (photo, {"icc_profile": _swapped_profile(), "quality": 95, "subsampling": 0}),
        "profile.png": (photo, {"icc_profile": _swapped_profile()}),
        "alpha.png": (alpha, {}),
        "alpha.webp": (alpha, {"lossless": True, "exact": True}),
        "grey.png": (photo.convert("L"), {}),
        "palette.png": (photo.convert("P"), {}),
        "small.png": (photo.resize((90, 60)), {}),
        "wide.png": (photo.resize((900, 120)), {}),
        "lossless.webp": (photo, {"lossless": True}),
        "white.png": (Image.new("RGB", (500, 400), "white"), {}),
        "pixel.png": (Image.new("RGB", (1, 1), "red"), {}),
        "on-white.png": (on_white, {}),
        "text.png": (text, {}),
    }
    paths = []
    for name, (image, options) in made.items():
        buffer = io.BytesIO()
        image.save(buffer, format={".jpg": "JPEG", ".png": "PNG", ".webp": "WebP"}[Path(name).suffix], **options)
        paths.append(folder / name)
        paths[-1].write_bytes(buffer.getvalue())
    others = [p for kind in ("real", "ai") for p in sorted((examples / kind).iterdir())]
    for path in others[:6]:
        paths.append(folder / f"example-{path.name}")
        shutil.copy(path, paths[-1])
    return paths


def _open(page: Page, url: str) -> None:
    page.goto(url)
    engine = page.locator("#engine")
    expect(engine).to_have_attribute("data-state", "ready", timeout=_READY)
    assert "computes what Python computed" in engine.inner_text()


def _scored(page: Page, paths: list[Path]) -> dict[str, dict[str, str]]:
    page.set_input_files("#files", [str(path) for path in paths])
    expect(page.locator(".item[data-verdict]")).to_have_count(len(paths), timeout=_READY)
    items = page.locator(".item").all()
    attributes = ("data-verdict", "data-probability")
    return {
        str(item.get_attribute("data-name")): {name: str(item.get_attribute(name)) for name in attributes}
        for item in items
    }


_PIXELS = """async text => {
  const { decode } = await import("./pixels.js");
  const bytes = Uint8Array.from(atob(text), letter => letter.charCodeAt(0));
  const { rgba, width, height } = await decode(new Blob([bytes]));
  let packed = "";
  for (let at = 0; at < rgba.length; at += 32768) packed += String.fromCharCode(...rgba.subarray(at, at + 32768));
  return { width, height, data: btoa(packed) };
}"""


def _pixels(page: Page, path: Path) -> np.ndarray:
    """Return what the page decodes, uint8 BGR (H, W, 3)."""
    decoded = page.evaluate(_PIXELS, base64.b64encode(path.read_bytes()).decode())
    rgba = np.frombuffer(base64.b64decode(decoded["data"]), np.uint8).reshape(decoded["height"], decoded["width"], 4)
    return np.ascontiguousarray(rgba[:, :, 2::-1])


def test_twenty_pictures_without_a_network_score_as_in_python(
    demo: Path, browser: Browser, examples: Path, tmp_path: Path
) -> None:
    paths = _pictures(tmp_path, examples)
    assert len(paths) == 20
    host = _Host(demo)
    context = browser.new_context(bypass_csp=True)  # for `evaluate`; the next test keeps the policy
    page = context.new_page()
    _open(page, host.url)
    expect(page.locator("#engine")).to_have_attribute("data-offline", "yes", timeout=_READY)
    assert page.inner_text("#engine").endswith("It works without a network from now on.")
    host.close()
    _open(page, host.url)
    scored = _scored(page, paths)
    detector = Detector(_MODEL, device="cpu")
    for path in paths:
        pixels, ours = _pixels(page, path), read_image(path)
        score = detector.look(pixels)
        assert float(scored[path.name]["data-probability"]) == pytest.approx(score.probability, abs=1e-4), path.name
        assert scored[path.name]["data-verdict"] == score.verdict, path.name
        assert pixels.shape == ours.shape, path.name
        # Decoders of JPEG may round differently; every other file has one right answer.
        largest = int(cv2.absdiff(pixels, ours).max())
        assert largest <= (4 if path.suffix == ".jpg" else 0), f"{path.name}: pixels differ by {largest}"
    context.close()


_WINDOWS = """async mode => {
  const { windowsOf } = await import("./verdict.js");
  return windowsOf({ preprocess: { mode, size: 64 }, whole: null }, 100, 81);
}"""


def test_a_network_that_resizes_is_given_the_whole_picture(demo: Path, browser: Browser) -> None:
    host = _Host(demo)
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    _open(page, host.url)
    windows = {mode: page.evaluate(_WINDOWS, mode) for mode in ("crop", "squash")}
    host.close()
    context.close()
    assert windows["squash"] == [{"top": 0, "left": 0, "rows": 100, "columns": 81}]
    assert windows["crop"] == [{"top": 18, "left": 8, "rows": 64, "columns": 64}]


def test_the_page_keeps_its_policy_and_asks_only_its_own_host(
    demo: Path, browser: Browser, examples: Path, tmp_path: Path
) -> None:
    host = _Host(demo)
    page = browser.new_page()
    asked: list[str] = []
    errors: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("pageerror", lambda error: errors.append(str(error)))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(200))
    try:
        _open(page, host.url)
        scored = _scored(page, [examples / "real" / "dress.jpg", broken])
    finally:
        host.close()
    assert scored["broken.png"]["data-verdict"] == "error"
    assert scored["dress.jpg"]["data-verdict"] in ("real", "unsure", "ai")
    assert errors == []
    assert {url for url in asked if not url.startswith((host.url, "blob:", "data:"))} == set()
    page.close()


def test_files_that_come_before_the_detector_is_ready_wait_for_it(demo: Path, browser: Browser, examples: Path) -> None:
    host = _Host(demo)
    context = browser.new_context()
    page = context.new_page()
    try:
        page.goto(host.url, wait_until="domcontentloaded")
        page.set_input_files("#files", [str(examples / "real" / "trousers.jpg")])
        expect(page.locator(".item")).to_have_count(1)
        expect(page.locator("#engine")).not_to_have_attribute("data-state", "ready")
        expect(page.locator(".item")).to_have_attribute("data-verdict", "real", timeout=_READY)
    finally:
        host.close()
    context.close()


_STORED = """async () => {
  const names = await caches.keys();
  return (await Promise.all(names.map(async name => (await (await caches.open(name)).keys()).length)))
    .reduce((sum, count) => sum + count, 0);
}"""


_REPLACED = """async () => {
  while (!(await caches.keys()).every(name => name.includes("-demo-new-"))) {
    await new Promise(done => setTimeout(done, 50));
  }
}"""


def test_nothing_is_stored_until_the_pictures_are_scored(demo: Path, browser: Browser, examples: Path) -> None:
    """Storing takes the cores that the first verdict waits for."""
    host = _Host(demo)
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    try:
        _open(page, host.url)
        scored = _scored(page, [examples / "real" / "trousers.jpg"])
        assert page.evaluate(_STORED) == 0
        expect(page.locator("#engine")).to_have_attribute("data-offline", "yes", timeout=_READY)
    finally:
        host.close()
    assert page.evaluate(_STORED) == 13
    assert scored["trousers.jpg"]["data-verdict"] == "real"
    context.close()


def test_another_build_replaces_what_was_stored_as_a_whole(demo: Path, browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(demo, folder)
    host = _Host(folder)
    context = browser.new_context(bypass_csp=True)
    page = context.new_page()
    try:
        _open(page, host.url)
        expect(page.locator("#engine")).to_have_attribute("data-offline", "yes", timeout=_READY)
        page_file, worker = folder / "index.html", folder / "service-worker.js"
        page_file.write_text(page_file.read_text().replace("Photograph or", "Photo or"))
        worker.write_text(worker.read_text().replace('CACHE = "asr-browser-demo-', 'CACHE = "asr-browser-demo-new-'))
        page.evaluate("navigator.serviceWorker.getRegistration().then(found => found.update())")
        page.evaluate(_REPLACED)
    finally:
        host.close()
    _open(page, host.url)
    assert page.inner_text("h1") == "Photo or AI-generated?"
    context.close()


def test_a_browser_that_refuses_the_service_worker_scores_all_the_same(
    demo: Path, browser: Browser, examples: Path
) -> None:
    host = _Host(demo)
    context = browser.new_context(service_workers="block")
    page = context.new_page()
    try:
        _open(page, host.url)
        scored = _scored(page, [examples / "real" / "trousers.jpg"])
    finally:
        host.close()
    assert scored["trousers.jpg"]["data-verdict"] == "real"
    assert page.get_attribute("#engine", "data-offline") is None
    context.close()


def test_the_first_verdict_is_timed_from_opening_the_page(demo: Path, browser: Browser) -> None:
    host = _Host(demo)
    try:
        first, whole, first_again, whole_again = first_verdicts(browser, host.url)
    finally:
        host.close()
    assert min(first, first_again) > 0.1  # an engine that did not start would answer at once
    assert first < whole
    assert first_again < whole_again


_NOTE_CENTRE = """
new MutationObserver((_, observer) => {
  const item = document.querySelector(".item[data-centre]");
  if (!item) return;
  observer.disconnect();
  const { centre, verdict } = item.dataset;
  window.seen = { centre, verdict: verdict ?? "none", text: item.querySelector(".text").innerText };
}).observe(document, { subtree: true, childList: true, attributes: true });
"""


def test_the_verdict_of_the_centre_is_shown_while_the_other_windows_are_scored(
    demo: Path, browser: Browser, examples: Path
) -> None:
    host = _Host(demo)
    context = browser.new_context()
    context.add_init_script(_NOTE_CENTRE)
    page = context.new_page()
    path = examples / "real" / "trousers.jpg"
    try:
        _open(page, host.url)
        scored = _scored(page, [path])[path.name]
        seen = page.evaluate("window.seen")
        text = page.locator(".item .text").inner_text()
    finally:
        host.close()
    context.close()
    centre = Detector(_MODEL, device="cpu")(read_image(path))
    assert seen["centre"] == centre.verdicts[0]
    assert seen["verdict"] == "none"  # not yet
    assert "so far" in seen["text"]
    assert f"{100 * float(centre.probability[0]):.0f}% AI" in seen["text"]
    assert "so far" not in text
    assert text.count("% AI") == 1
    assert f"{100 * float(scored['data-probability']):.0f}% AI" in text


def test_asr_serve_offers_the_demo_and_no_reload_is_needed(demo: Path, browser: Browser, examples: Path) -> None:
    path = examples / "real" / "dress.jpg"
    with command("--model", _MODEL, "--port", 0, "--workers", 1, "--browser-demo", demo) as (_, address):
        context = browser.new_context()
        page = context.new_page()
        asked: list[str] = []
        complaints: list[str] = []
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
        page.goto(f"http://{address}/")
        page.get_by_role("link", name="In the browser alone").click()
        expect(page.locator("#engine")).to_have_attribute("data-state", "ready", timeout=_READY)
        assert page.evaluate("crossOriginIsolated")
        assert asked.count(f"http://{address}/browser-demo/demo.js") == 1
        scored = _scored(page, [path])["dress.jpg"]
        assert not any("/v1/screen" in url for url in asked)
        context.close()
    detector = Detector(_MODEL, device="cpu")
    assert float(scored["data-probability"]) == pytest.approx(detector.look(read_image(path)).probability, abs=2e-2)
    assert [
        url for url in asked if not url.startswith((f"http://{address}/", f"blob:http://{address}/", "data:"))
    ] == []
    assert complaints == []


def test_webgpu_computes_what_python_computes(demo: Path, examples: Path, tmp_path: Path) -> None:
    """SwiftShader emulates a graphics processor on this one; the page uses it only where it is asked to."""
    path = tmp_path / "photo.png"
    cv2.imwrite(str(path), read_image(examples / "real" / "dress.jpg")[:160, :160])  # one window: it is slow
    host = _Host(demo)
    try:
        with open_browser("--enable-unsafe-webgpu", "--use-webgpu-adapter=swiftshader") as browser:
            page = browser.new_page()
            page.goto(host.url + "model.json")
            if not page.evaluate("navigator.gpu?.requestAdapter().then(adapter => adapter !== null)"):
                pytest.skip("this browser has no WebGPU adapter, not even SwiftShader")
            page.goto(host.url + "?engine=webgpu")
            expect(page.locator("#engine")).to_have_attribute("data-state", "ready", timeout=400_000)
            assert page.inner_text("#engine").startswith("Ready (WebGPU)")
            scored = _scored(page, [path])["photo.png"]
            page.goto(host.url)
            expect(page.locator("#engine")).to_have_attribute("data-kind", "wasm", timeout=_READY)
    finally:
        host.close()
    expected = float(Detector(_MODEL, device="cpu").look(read_image(path)).probability)
    assert float(scored["data-probability"]) == pytest.approx(expected, abs=1e-4)


def test_a_file_that_computes_something_else_is_not_used(demo: Path, browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "site"
    shutil.copytree(demo, folder)
    pixels = bytearray((folder / "check.bin").read_bytes())
    pixels[: len(pixels) // 2] = bytes(len(pixels) // 2)
    (folder / "check.bin").write_bytes(pixels)
    host = _Host(folder)
    page = browser.new_page()
    try:
        page.goto(host.url)
        expect(page.locator("#engine")).to_have_attribute("data-state", "broken", timeout=_READY)
    finally:
        host.close()
    assert "Nothing is scored" in page.inner_text("#engine")
    page.set_input_files("#files", [str(demo / "model.json")])
    expect(page.locator(".item .why")).to_have_text("The detector does not work in this browser.")
    page.close()
