"""What files say about themselves, through the API and on the page, with the tools' own files."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from browser import open_browser
from claim_samples import A1111, certificates, jpeg, png, signed, source_type_xmp, tool_xmp
from PIL import Image
from playwright.sync_api import expect
from runtime_samples import encoded, shade
from serve_samples import Client, Serve

from asr_runtime.provenance.reader import ClaimReader

BLACK, WHITE = (Image.fromarray(shade(level, 200, 260)) for level in (0, 255))

FILES = {  # name -> file; source of its claim, what it says, words on the page; whether that contradicts the verdict
    "signed-camera.jpg": (
        signed(encoded(shade(255, 200, 260), ".jpg"), "image/jpeg", "digitalCapture"),
        ("c2pa", "camera", "Content Credentials: ", "Test Camera Works, Camera 1", True),
    ),
    "signed-ai.png": (
        signed(encoded(shade(255, 200, 260), ".png"), "image/png", "trainedAlgorithmicMedia"),
        ("c2pa", "generated", "Content Credentials: ", "Test Camera 2.1", False),
    ),
    "iptc.jpg": (
        jpeg(BLACK, xmp=source_type_xmp("trainedAlgorithmicMedia")),
        ("iptc", "generated", "IPTC: ", "trainedAlgorithmicMedia", True),
    ),
    "note.png": (png(WHITE, parameters=A1111), ("png", "generated", "PNG text: ", "model v1-5-pruned", False)),
    "xmp.jpg": (jpeg(BLACK, xmp=tool_xmp("Adobe Firefly")), ("xmp", "generated", "XMP: ", "Adobe Firefly", True)),
    "exif.jpg": (
        jpeg(BLACK, {0x10F: "ACME <b>", 0x110: "X100"}),
        ("exif", "camera", "EXIF: ", "Camera ACME <b> X100", False),
    ),
}


@pytest.fixture(scope="module")
def reading(serve: Serve) -> Iterator[Client]:
    """A server that reads claims and trusts the signer of the samples."""
    with serve(make_reader=lambda: ClaimReader(certificates()[2].decode())) as client:
        yield client


def test_the_api_says_what_each_file_says(reading: Client) -> None:
    for name, (data, (source, says, _, words, is_contradiction)) in FILES.items():
        (record,) = reading.screen(data, f"claims=true&name={name}")["records"]
        (claim,) = record["claims"]
        assert (claim["source"], claim["says"]) == (source, says), name
        assert words in claim["text"], name
        assert bool(record.get("contradictions")) is is_contradiction, name
        (plain,) = reading.screen(data, f"name={name}")["records"]
        assert "claims" not in plain
        assert plain["probability"] == record["probability"], name


def test_a_server_without_the_reader_refuses_claims(server: Client) -> None:
    status, _, body = server.ask("POST", "/v1/screen?claims=true", FILES["exif.jpg"][0])
    assert (status, b"pip install" in body) == (422, True)


def test_the_page_shows_claims_beside_the_verdict(reading: Client) -> None:
    plain = encoded(shade(0, 200, 260), ".png")
    broken = bytearray(FILES["signed-camera.jpg"][0])
    broken[-200] ^= 1
    files = {**{name: data for name, (data, _) in FILES.items()}, "plain.png": plain, "altered.jpg": bytes(broken)}
    uploads = [{"name": name, "mimeType": "image/*", "buffer": data} for name, data in files.items()]
    with open_browser() as browser:
        page = browser.new_page()
        page.goto(f"http://{reading.address}/")
        page.set_input_files("#files", uploads)  # type: ignore[arg-type]
        expect(page.locator(".card")).to_have_count(len(files))
        expect(page.locator(".card.waiting")).to_have_count(0, timeout=60_000)
        for name, (_, (_, _, label, words, is_contradiction)) in FILES.items():
            card = page.locator(".card", has=page.get_by_text(name, exact=True))
            (line,) = card.locator(".claims li").all()
            assert line.locator("b").inner_text() == label, name
            assert words in line.inner_text(), name  # markup in a claim is text
            assert card.locator(".contradiction").is_visible() is is_contradiction, name
        expect(page.locator(".card", has_text="plain.png").locator(".claims")).to_be_hidden()
        altered = page.locator(".card", has_text="altered.jpg")
        expect(altered.locator(".claims")).to_contain_text("does not fit the file")
        expect(altered.locator(".contradiction")).to_be_hidden()
        page.get_by_role("button", name="Enlarge signed-camera.jpg").click()
        expect(page.locator("#viewer .claims")).to_contain_text("Test Camera Works, Camera 1")
        page.close()


def test_samples_are_whole_pictures() -> None:
    for data, _ in FILES.values():
        Image.open(io.BytesIO(data)).load()
