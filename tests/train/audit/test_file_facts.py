"""What files say of themselves, against files written with known settings; and pictures that occur twice."""

from __future__ import annotations

import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image

from asr_runtime.media.image import read_image
from asr_train.audit.duplicates import duplicates
from asr_train.audit.file_facts import file_facts, read_facts
from asr_train.data.layouts import Sample


@pytest.fixture
def photo(examples: Path) -> Image.Image:
    with Image.open(examples / "real" / "coffee.png") as image:
        return image.convert("RGB").crop((0, 0, 200, 136))


@pytest.mark.parametrize("quality", [30, 75, 90, 96])
@pytest.mark.parametrize("chroma", ["4:4:4", "4:2:2", "4:2:0"])
def test_jpeg_quality_tables_and_chroma_are_read(photo: Image.Image, tmp_path: Path, quality: int, chroma: str) -> None:
    photo.save(tmp_path / "x.jpg", quality=quality, subsampling=chroma, progressive=quality == 90)
    facts = read_facts((tmp_path / "x.jpg").read_bytes())
    assert (facts.container, facts.quality, facts.subsampling) == ("JPEG", quality, chroma)
    assert facts.tables is not None
    assert facts.tables.startswith("standard ")
    assert facts.progressive == (quality == 90)
    assert (facts.width, facts.height) == (200, 136)


def test_custom_tables_are_distinguished_from_the_standard_ones(photo: Image.Image, tmp_path: Path) -> None:
    tables = [[max(1, i // 3) for i in range(1, 65)], [5] * 64]
    photo.save(tmp_path / "x.jpg", qtables=tables)
    facts = read_facts((tmp_path / "x.jpg").read_bytes())
    assert facts.tables is not None
    assert not facts.tables.startswith("standard")
    cv2.imwrite(str(tmp_path / "grey.jpg"), np.asarray(photo.convert("L")), [cv2.IMWRITE_JPEG_QUALITY, 80])
    grey = read_facts((tmp_path / "grey.jpg").read_bytes())
    assert (grey.quality, grey.subsampling, grey.mode) == (80, "grey", "L")
    assert grey.tables is not None
    assert grey.tables.startswith("standard")


def test_containers_sample_depth_and_metadata_are_read(photo: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[271] = "a camera"
    alpha = photo.copy()
    alpha.putalpha(128)
    photo.save(tmp_path / "lossless.webp", lossless=True)
    photo.save(tmp_path / "lossy.webp", quality=80, exif=exif)
    alpha.save(tmp_path / "alpha.webp", lossless=True)
    alpha.save(tmp_path / "alpha.png")
    cv2.imwrite(str(tmp_path / "deep.png"), np.asarray(photo).astype(np.uint16) * 257)
    photo.save(tmp_path / "camera.jpg", exif=exif, icc_profile=b"profile", comment=b"hello")
    facts = {path.name: read_facts(path.read_bytes()) for path in tmp_path.iterdir()}
    assert {name: f.container for name, f in facts.items()} == {
        "lossless.webp": "WebP lossless",
        "lossy.webp": "WebP lossy",
        "alpha.webp": "WebP lossless",
        "alpha.png": "PNG",
        "deep.png": "PNG",
        "camera.jpg": "JPEG",
    }
    assert {name for name, f in facts.items() if f.alpha} == {"alpha.webp", "alpha.png"}
    assert {name for name, f in facts.items() if f.bit_depth == 16} == {"deep.png"}
    assert {name for name, f in facts.items() if f.exif} == {"camera.jpg", "lossy.webp"}
    assert {name for name, f in facts.items() if f.icc} == {"camera.jpg"}
    assert {name for name, f in facts.items() if f.text} == {"camera.jpg"}
    png = facts["alpha.png"]
    assert (png.quality, png.tables, png.subsampling) == (None, None, None)


def test_unreadable_files_are_named_and_the_others_go_on(photo: Image.Image, tmp_path: Path) -> None:
    photo.save(tmp_path / "good.jpg")
    (tmp_path / "bad.jpg").write_bytes(b"\xff\xd8\xff nothing")
    (tmp_path / "cut.jpg").write_bytes((tmp_path / "good.jpg").read_bytes()[:3000])
    (tmp_path / "text.png").write_text("no picture")
    samples = [Sample(tmp_path / name, 0, "x") for name in ("bad.jpg", "good.jpg", "text.png", "cut.jpg", "none.png")]
    facts, unreadable = file_facts(samples, tmp_path, hashes=True)
    assert [fact is not None for fact in facts] == [False, True, False, False, False]
    assert sorted(Path(path).name for path in unreadable) == ["bad.jpg", "cut.jpg", "none.png", "text.png"]


def test_a_picture_that_occurs_twice_is_found_whatever_was_done_to_the_file(examples: Path, tmp_path: Path) -> None:
    originals = sorted((examples / "real").iterdir()) + sorted((examples / "ai").iterdir())
    shutil.copy(originals[0], tmp_path / "copy.png")
    image = read_image(originals[1])
    small = cv2.resize(image, (0, 0), fx=0.6, fy=0.6, interpolation=cv2.INTER_AREA)
    cv2.imwrite(str(tmp_path / "saved-again.jpg"), small, [cv2.IMWRITE_JPEG_QUALITY, 60])
    for name, level in (("white.png", 255), ("grey.png", 90)):
        cv2.imwrite(str(tmp_path / name), np.full((64, 64, 3), level, np.uint8))
    samples = [Sample(p, 0, "x") for p in originals]
    samples += [Sample(p, 1, "x") for p in sorted(tmp_path.iterdir())]
    splits = ["train"] * len(originals) + ["val"] * 4
    facts, _ = file_facts(samples, Path("/"), hashes=True)
    copies = duplicates(samples, splits, facts, Path("/"))
    counts = {kind: [copies[kind][k] for k in ("across_splits", "across_classes", "within")] for kind in copies}
    assert counts == {"exact": [1, 1, 0], "near": [1, 1, 0]}
    assert [Path(p).name for p in copies["near"]["examples"][0]] == [originals[1].name, "saved-again.jpg"]
    assert [s.path.name for s, f in zip(samples, facts, strict=True) if f is not None and f.blank] == [
        "grey.png",
        "white.png",
    ]
