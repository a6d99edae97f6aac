"""Claims are read from files that the tools made, and a hostile file costs only its own claims."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from claim_samples import (
    A1111,
    COMFY,
    certificates,
    jpeg,
    novelai,
    png,
    signed,
    source_type_xmp,
    tool_xmp,
)
from PIL import Image
from runtime_samples import Runner, encoded, picture, shade

from asr_runtime.claims import Claim, contradictions
from asr_runtime.provenance.reader import ClaimReader
from asr_runtime.sources.expand import Source

IMAGE = Image.fromarray(picture()[:, :, ::-1])
PLAIN = encoded(picture(), ".jpg")


@pytest.fixture(scope="module")
def reader() -> Iterator[ClaimReader]:
    with contextlib.closing(ClaimReader()) as reader:
        yield reader


def claims(reader: ClaimReader, data: bytes) -> list[tuple[str, str]]:
    return [(claim.source, claim.says) for claim in reader.read(Source("x", "image", data))]


def test_files_without_claims_have_none(reader: ClaimReader, examples: Path) -> None:
    for path in sorted(examples.glob("*/*.*")):
        kind = "video" if path.suffix == ".mp4" else "image"
        assert [c for c in reader.read(Source(str(path), kind)) if c.says != "camera"] == [], path
    assert claims(reader, b"no picture at all") == []
    assert claims(reader, b"") == []


@pytest.mark.parametrize(
    ("suffix", "mime"),
    [(".jpg", "image/jpeg"), (".png", "image/png"), (".webp", "image/webp"), (".tiff", "image/tiff")],
)
@pytest.mark.parametrize(
    ("source_type", "says"),
    [
        ("trainedAlgorithmicMedia", "generated"),
        ("compositeWithTrainedAlgorithmicMedia", "edited"),
        ("digitalCapture", "camera"),
    ],
)
def test_signed_content_credentials_say_who_and_what(
    reader: ClaimReader, suffix: str, mime: str, source_type: str, says: str
) -> None:
    (claim,) = reader.read(Source("x", "image", signed(encoded(picture(), suffix), mime, source_type)))
    assert (claim.source, claim.says, claim.signed, claim.trusted) == ("c2pa", says, True, False)
    assert claim.signer == "Test Camera Works, Camera 1"
    assert claim.actions == ("c2pa.created",)
    assert "tool Test Camera 2.1" in claim.text


def test_a_video_has_content_credentials_too(reader: ClaimReader, examples: Path, tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(signed((examples / "video" / "pan.mp4").read_bytes(), "video/mp4", "digitalCapture"))
    (claim,) = reader.read(Source(str(path), "video"))
    assert (claim.says, claim.signed) == ("camera", True)


def test_a_signer_is_trusted_only_by_the_list_that_was_given() -> None:
    data = signed(PLAIN, "image/jpeg", "digitalCapture")
    with contextlib.closing(ClaimReader(certificates()[2].decode())) as reader:
        (claim,) = reader.read(Source("x", "image", data))
    assert (claim.signed, claim.trusted) == (True, True)


def test_a_manifest_that_does_not_fit_its_file_proves_nothing(reader: ClaimReader) -> None:
    data = bytearray(signed(PLAIN, "image/jpeg", "digitalCapture"))
    data[-200] ^= 1
    (claim,) = reader.read(Source("x", "image", bytes(data)))
    assert (claim.says, claim.signed) == ("other", False)
    assert "does not fit the file" in claim.text
    (claim,) = reader.read(Source("x", "image", bytes(data).replace(b"c2pa.signature", b"c2pa.signatur\0")))
    assert (claim.says, claim.signed) == ("other", False)


def test_a_manifest_elsewhere_is_not_fetched(reader: ClaimReader) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.3)
        url = f"http://127.0.0.1:{canary.getsockname()[1]}/manifest.c2pa"
        (claim,) = reader.read(Source("x", "image", signed(PLAIN, "image/jpeg", "digitalCapture", remote=url)))
        with pytest.raises(TimeoutError):
            canary.accept()
    assert (claim.source, claim.says, claim.signed) == ("c2pa", "other", False)


@pytest.mark.parametrize(
    ("data", "expected", "words"),
    [
        (png(IMAGE, parameters=A1111), ("png", "generated"), "model v1-5-pruned"),
        (jpeg(IMAGE, comment=A1111), ("exif", "generated"), "AUTOMATIC1111"),
        (png(IMAGE, prompt=json.dumps(COMFY), workflow="{}"), ("png", "generated"), "ComfyUI workflow (2 nodes)"),
        (png(IMAGE, invokeai_metadata='{"positive_prompt": "a fox"}'), ("png", "generated"), "InvokeAI wrote: a fox"),
        (novelai(IMAGE), ("png", "generated"), "Software: NovelAI"),
        (jpeg(IMAGE, xmp=source_type_xmp("trainedAlgorithmicMedia")), ("iptc", "generated"), "trainedAlgorithmicMedia"),
        (jpeg(IMAGE, xmp=source_type_xmp("digitalCapture")), ("iptc", "camera"), "digitalCapture"),
        (jpeg(IMAGE, xmp=tool_xmp("Adobe Firefly")), ("xmp", "generated"), "Adobe Firefly"),
        (jpeg(IMAGE, {0x10F: "ACME", 0x110: "X100"}), ("exif", "camera"), "Camera ACME X100"),
        (jpeg(IMAGE, {0x131: "Midjourney v6"}), ("exif", "generated"), "Midjourney"),
    ],
)
def test_notes_of_tools_and_cameras_are_recognised(
    reader: ClaimReader, data: bytes, expected: tuple[str, str], words: str
) -> None:
    (claim,) = reader.read(Source("x", "image", data))
    assert (claim.source, claim.says) == expected
    assert words in claim.text


def test_other_texts_are_no_claims(reader: ClaimReader) -> None:
    assert (
        claims(reader, png(IMAGE, Software="GIMP 2.10", Comment="holiday", prompt="what a day", parameters="x")) == []
    )
    assert claims(reader, jpeg(IMAGE, {0x131: "Adobe Lightroom"}, xmp=tool_xmp("Adobe Photoshop 25"))) == []


def test_claims_are_one_printable_line(reader: ClaimReader) -> None:
    (claim,) = reader.read(Source("x", "image", jpeg(IMAGE, {0x10F: "A\x1b[31mB\nC" * 200})))
    assert claim.text.isprintable()
    assert len(claim.text) < 250


def test_hostile_files_end_in_a_line_or_nothing_and_the_next_file_is_read(reader: ClaimReader) -> None:
    good = signed(png(IMAGE, parameters=A1111), "image/png", "trainedAlgorithmicMedia")
    random = np.random.default_rng(7)
    for _ in range(60):
        data = bytearray(good)
        for at in random.integers(8, len(data), 12):
            data[at] = random.integers(256)
        reader.read(Source("x", "image", bytes(data[: random.integers(20, len(data))])))
        reader.read(Source("x", "image", bytes(data)))
    assert ("png", "generated") in claims(reader, good)


def test_a_reader_that_hangs_or_dies_is_replaced(tmp_path: Path) -> None:
    with contextlib.closing(ClaimReader(seconds=20.0)) as reader:
        assert claims(reader, PLAIN) == []
        assert reader._child is not None
        reader._child._process.kill()
        reader._child._process.wait()
        assert claims(reader, jpeg(IMAGE, {0x10F: "ACME"})) == [("exif", "camera")]


def test_contradictions_are_pointed_out() -> None:
    camera, generated = Claim("c2pa", "camera", "x", signed=True), Claim("png", "generated", "x")
    assert contradictions([camera], "real") == contradictions([generated], "ai") == []
    assert contradictions([camera, generated], "unsure") == [
        "The file contradicts itself: one claim says generated, another says taken by a camera."
    ]
    (text,) = contradictions([camera], "ai")
    assert text == "Signed Content Credentials say that a camera took it, but the picture looks AI-generated."
    (text,) = contradictions([generated], "real")
    assert text == "The file says that it was generated, but the picture looks real."


def test_asr_screen_shows_claims_beside_the_verdict(run_command: Runner, model_path: Path, tmp_path: Path) -> None:
    dark = Image.fromarray(shade(0, 96, 96))
    (tmp_path / "a.png").write_bytes(png(dark, parameters=A1111))
    (tmp_path / "b.png").write_bytes(png(dark))
    arguments = ("a.png", "b.png", "--model", model_path)
    done = run_command("screen", *arguments, "--claims", "--format", "jsonl")
    first, second, _ = map(json.loads, done.stdout.splitlines())
    assert [claim["says"] for claim in first["claims"]] == ["generated"]
    assert first["contradictions"] == ["The file says that it was generated, but the picture looks real."]
    assert (second["claims"], "contradictions" in second) == ([], False)
    plain = [json.loads(line) for line in run_command("screen", *arguments, "--format", "jsonl").stdout.splitlines()]
    assert [r["probability"] for r in plain[:2]] == [first["probability"], second["probability"]]
    assert "claims" not in plain[0]
    table = run_command("screen", *arguments, "--claims").stdout.decode()
    assert "conflict" in table
    assert "AUTOMATIC1111" in table


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--claims", "--format", "csv"], "format csv has no place for claims"),
        (["--trust-anchors", "x.pem"], "belongs to --claims"),
        (["--claims", "--trust-anchors", "missing.pem"], "cannot be read"),
    ],
)
def test_impossible_options_are_refused(
    run_command: Runner, model_path: Path, options: list[str], message: str
) -> None:
    done = run_command("screen", "x.png", "--model", model_path, *options)
    assert (done.returncode, message in done.stderr.decode()) == (2, True), done.stderr
