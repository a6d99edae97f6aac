"""The audit finds a leak that was planted, names it first, and is quiet where there is none."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from numpy.typing import NDArray

from asr_train.audit import audit as audit_module
from asr_train.audit import file_facts as file_facts_module
from asr_train.audit.audit import Audit, audit, audit_warning
from asr_train.audit.leaks import auroc_interval
from asr_train.audit.text import audit_text
from asr_train.cli import audit_command
from asr_train.data.layouts import find_data
from asr_train.data.write_shards import write_shards

Image = NDArray[np.uint8]
Save = Callable[[Path, Image, np.random.Generator], None]


def _jpeg(low: int, high: int) -> Save:
    def save(path: Path, image: Image, rng: np.random.Generator) -> None:
        quality = int(rng.integers(low, high + 1))
        cv2.imwrite(str(path.with_suffix(".jpg")), image, [cv2.IMWRITE_JPEG_QUALITY, quality])

    return save


def _png(path: Path, image: Image, rng: np.random.Generator) -> None:
    cv2.imwrite(str(path.with_suffix(".png")), image)


def _picture(rng: np.random.Generator, size: tuple[int, int] = (128, 128), tint: int = 0) -> Image:
    """Smooth blobs of random colours and a little noise."""
    blobs = rng.integers(0, 256, (5, 5, 3), dtype=np.uint8)
    image = cv2.resize(blobs, size, interpolation=cv2.INTER_CUBIC) + rng.normal(0, 3, (size[1], size[0], 3))
    image[..., 0] += tint
    return np.clip(image, 0, 255).astype(np.uint8)


def _data(root: Path, real: Save, ai: Save, counts: tuple[int, int] = (16, 12), **of_ai: Any) -> Path:
    """Data in which the classes differ by how they are saved, and by the arguments of `_picture` given for ai."""
    rng = np.random.default_rng(5)
    for split, count in zip(("train", "val"), counts, strict=True):
        for folder, save, given in (("photos/{}/nature", real, {}), ("maker/{}/ai", ai, of_ai)):
            into = root / folder.format(split)
            into.mkdir(parents=True)
            for index in range(count):
                save(into / str(index), _picture(rng, **given), rng)
    return root


def _audit(root: Path) -> Audit:
    return audit(find_data(root))


def test_data_without_a_leak_give_nothing_away(tmp_path: Path) -> None:
    result = _audit(_data(tmp_path / "data", _jpeg(60, 95), _jpeg(60, 95)))
    assert [f["what"] for f in result.findings if f["gives_away"]] == []
    assert result.files is not None
    assert result.content is not None
    assert {f["what"] for f in result.findings} >= {"JPEG quality (of JPEG files)", "content"}
    assert "Nothing was found that gives the label away" in audit_text(result)
    assert audit_warning(find_data(tmp_path / "data")) is None


@pytest.mark.parametrize(
    ("real", "ai", "of_ai", "what", "says"),
    [
        (_jpeg(60, 95), _png, {}, "container", "PNG: 0% of real files, 100% of AI-generated"),
        (_jpeg(70, 80), _jpeg(85, 95), {}, "JPEG quality (of JPEG files)", "median and middle 80%: real 7"),
        (_png, _png, {"size": (136, 128)}, "width", "real 128 (128 to 128), AI-generated 136 (136 to 136)"),
    ],
    ids=["container", "quality", "size"],
)
def test_a_planted_leak_of_the_files_is_named(
    real: Save, ai: Save, of_ai: dict[str, Any], what: str, says: str, tmp_path: Path
) -> None:
    result = _audit(_data(tmp_path / "data", real, ai, **of_ai))
    assert result.files is not None
    assert result.files["auroc"] > 0.95
    finding = next(f for f in result.findings if f["what"] == what)
    assert finding["auroc"] == result.findings[0]["auroc"]  # nothing tells more
    assert finding["gives_away"]
    assert says in finding["says"]
    assert not any(f["gives_away"] for f in result.findings if f["kind"] == "content")
    text = audit_text(result)
    assert text.index(f"{what}: {finding['says']}") > text.index("The files give the label away")
    warning = audit_warning(find_data(tmp_path / "data"))
    assert warning is not None
    assert "container, size and compression of the files (AUROC" in warning
    assert "subject matter" not in warning


def test_planted_content_is_distinguished_from_the_files(tmp_path: Path) -> None:
    result = _audit(_data(tmp_path / "data", _jpeg(60, 95), _jpeg(60, 95), tint=70))
    assert [f["what"] for f in result.findings if f["gives_away"]] == ["content"]
    assert "The subjects give the label away" in audit_text(result)
    warning = audit_warning(find_data(tmp_path / "data"))
    assert warning is not None
    assert "give the label away: subject matter (AUROC" in warning
    assert "files" not in warning


def test_a_generator_that_is_left_out_is_measured_by_probes_that_never_saw_it(tmp_path: Path) -> None:
    root = _data(tmp_path / "data", _png, _jpeg(90, 90), (20, 10))
    rng = np.random.default_rng(1)
    for split, count in (("train", 20), ("val", 10)):
        into = root / "lossless maker" / split / "ai"
        into.mkdir(parents=True)
        for index in range(count):
            _png(into / str(index), _picture(rng), rng)
    result = _audit(root).leave_one_generator_out
    assert set(result["generators"]) == {"maker", "lossless maker"}
    # Without it nothing hints at JPEG, and with only JPEG fakes the lossless ones look real.
    assert result["generators"]["maker"]["files"] == pytest.approx(0.5, abs=0.01)
    assert result["generators"]["lossless maker"]["files"] == pytest.approx(0.5, abs=0.01)
    assert set(result) == {"mean_content", "mean_files", "generators"}


def test_copies_across_splits_and_unreadable_files_are_reported(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = _data(tmp_path / "data", _png, _png, (8, 6))
    shutil.copy(root / "photos" / "train" / "nature" / "0.png", root / "photos" / "val" / "nature" / "copy.png")
    (root / "maker" / "val" / "ai" / "broken.png").write_text("no picture")
    result = _audit(root)
    assert result.duplicates["exact"]["across_splits"] == 1
    assert result.duplicates["exact"]["examples"] == [["photos/train/nature/0.png", "photos/val/nature/copy.png"]]
    assert list(result.data["unreadable"]) == ["maker/val/ai/broken.png"]
    assert "skipped: maker/val/ai/broken.png: cannot identify image file" in caplog.text
    text = audit_text(result)
    assert "photos/train/nature/0.png = photos/val/nature/copy.png" in text
    assert "unreadable, left out: 1: maker/val/ai/broken.png" in text


def test_without_a_validation_split_the_figures_are_cross_validated_and_a_handful_is_not_measured(
    tmp_path: Path, folders: Path
) -> None:
    root = _data(tmp_path / "data", _jpeg(60, 95), _png, (20, 1))
    for folder in root.glob("*/val"):
        shutil.rmtree(folder)
    result = _audit(root)
    assert result.measured == "5-fold cross-validation on train"
    assert result.files is not None
    assert (result.files["auroc"], result.files["images"]) == (1.0, 40)
    assert result.leave_one_generator_out == {"generators": {}}
    for file in sorted((root / "maker").rglob("*.png"))[3:]:
        file.unlink()
    handful = _audit(root)
    assert (handful.files, handful.content, handful.findings) == (None, None, [])
    assert "too little to measure" in audit_text(handful)


@pytest.mark.parametrize("counts", [(8, 0), (7, 1), (5, 3), (6, 6)])
def test_a_small_folder_is_judged_right_and_with_its_interval(tmp_path: Path, counts: tuple[int, int]) -> None:
    """Eight files a class, the container tells all: the trees of scikit-learn pass over categories that small."""
    result = _audit(_data(tmp_path / "data", _jpeg(60, 95), _png, counts))
    first = result.findings[0]
    assert (first["what"], first["auroc"], first["gives_away"]) == ("container", 1.0, True)
    low, high = first["interval"]
    assert 0.5 < low < 0.85
    assert high == 1.0
    same = _audit(_data(tmp_path / "same", _png, _png, counts))
    assert not [finding for finding in same.findings if finding["gives_away"]]


def test_intervals_of_an_auroc_are_wide_where_there_are_few_images() -> None:
    assert auroc_interval(1.0, 8, 8) == pytest.approx((0.757, 1.0), abs=0.01)
    assert auroc_interval(0.0, 8, 8) == pytest.approx((0.0, 0.243), abs=0.01)
    assert auroc_interval(1.0, 1, 1)[0] < 0.25
    low, high = auroc_interval(0.8, 400, 400)
    assert (low, high) == pytest.approx((0.768, 0.828), abs=0.005)


def test_small_pictures_have_no_content_figure(tmp_path: Path) -> None:
    root = _data(tmp_path / "data", _png, _png, (8, 6))
    for file in root.rglob("*.png"):
        cv2.imwrite(str(file), np.ascontiguousarray(cv2.imread(str(file))[:32, :32]))  # type: ignore[index]
    result = _audit(root)
    assert result.content is None
    assert "images of 32 px show traces even in a thumbnail" in audit_text(result)


def test_the_command_prints_text_and_writes_everything_as_json(generators: Path, tmp_path: Path) -> None:
    path = tmp_path / "audit.json"
    done = CliRunner().invoke(audit_command, ["--data", str(generators), "--json", str(path)])
    assert done.exit_code == 0, done.output
    assert done.stdout.startswith("generators (layout generators): 16 real and 12 AI-generated in train")
    result = json.loads(path.read_text())
    assert result["duplicates"]["exact"]["across_splits"] == 0
    groups = {(g["split"], g["class"], g["source"]): g for g in result["groups"]}
    assert groups["val", "ai", "sd3"]["images"] == 4
    assert groups["val", "ai", None]["containers"] == {"JPEG": 8}


def test_mistakes_are_one_line(generators: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(audit_command, ["--data", str(tmp_path / "nowhere")])
    assert (done.exit_code, "no such folder" in done.output) == (2, True)
    (tmp_path / "file").touch()
    done = CliRunner().invoke(audit_command, ["--data", str(generators), "--json", str(tmp_path / "file" / "x.json")])
    assert (done.exit_code, "cannot be written" in done.output) == (3, True)


def test_shards_give_the_findings_of_their_folder(generators: Path, tmp_path: Path) -> None:
    data = find_data(generators)
    write_shards(data, tmp_path / "shards", 60_000, 0)
    folder, shards = audit(data, progress=False), audit(find_data(tmp_path / "shards"), progress=False)
    facts = [sorted((f["what"], f["images"]) for f in result.findings) for result in (folder, shards)]
    assert facts[0] == facts[1] != []
    assert {(g["split"], g["class"], g["source"], g["images"]) for g in shards.groups} == {
        (g["split"], g["class"], g["source"], g["images"]) for g in folder.groups
    }
    assert shards.data["images"] == folder.data["images"]
    counted = [{k: v for k, v in f.duplicates["exact"].items() if k != "examples"} for f in (folder, shards)]
    assert counted[0] == counted[1]


def test_a_second_audit_reads_no_file_that_is_the_same(
    generators: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    data = find_data(generators)
    first = audit(data, progress=False).to_dict()
    read = file_facts_module.read_facts
    seen: list[bool] = []
    monkeypatch.setattr(file_facts_module, "read_facts", lambda *given: seen.append(True) or read(*given))
    assert audit(data, progress=False).to_dict() == first
    assert seen == []
    (file,) = (tmp_path / "cache" / "asrnet-edge" / "facts-1").glob("*.parquet")
    rows = pq.read_table(file).to_pydict()
    rows["facts"][2] = rows["facts"][2][:-9]
    pq.write_table(pa.table(rows), file)
    assert audit(data, progress=False).to_dict() == first
    assert len(seen) == 1
    assert f"{file}: the row of {rows['path'][2]} is damaged; the file is read again" in caplog.text


def test_of_a_very_large_split_some_files_are_read_and_that_is_said(
    generators: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(audit_module, "_LARGEST_READ", 20)
    result = audit(find_data(generators), progress=False)
    assert "of 28 images of the split train, 20 drawn at random were read" in result.data["notes"]
    assert sum(g["images"] for g in result.groups if g["source"] is None and g["split"] == "train") == 20
