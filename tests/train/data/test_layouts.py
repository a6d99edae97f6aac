"""Data folders: what is read from them, and the message for a folder that is none."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from asr_runtime.errors import DatasetError
from asr_runtime.media.image import IMAGE_SUFFIXES
from asr_runtime.sources.walk import files_below
from asr_train.data.layouts import find_data
from asr_train.data.roles import Folder


def test_the_layout_generators_is_recognised(generators: Path) -> None:
    data = find_data(generators)
    assert data.layout == "generators"
    counts = Counter((s.source, s.label) for s in data.train)
    assert counts == {("photos", 0): 12, ("snaps", 0): 4, ("midjourney", 1): 4, ("sd3", 1): 8}
    assert {s.path for s in data.train}.isdisjoint(s.path for s in data.val)


def test_folders_match_labels_by_image_id_and_say_so(folders: Path) -> None:
    data = find_data(folders)
    assert data.layout == "folders"
    assert Counter(s.label for s in data.test) == {0: 3, 1: 3}
    assert {s.path.name: s.label for s in data.test}["blouse.jpg"] == 0
    assert any("matched to files by image_id" in note for note in data.notes)
    assert data.val  # held out of train
    assert {s.path for s in data.train}.isdisjoint(s.path for s in data.val)


def test_unlabelled_test_images_are_an_error(folders: Path) -> None:
    (folders / "label_test.csv").unlink()
    with pytest.raises(DatasetError, match=r"label_test\.csv"):
        find_data(folders)


def test_a_missing_folder_an_empty_class_and_an_unknown_layout_say_what_was_looked_for(
    folders: Path, generators: Path, tmp_path: Path
) -> None:
    with pytest.raises(DatasetError, match="no such folder"):
        find_data(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DatasetError, match="train/0_real"):
        find_data(tmp_path / "empty")
    shutil.rmtree(folders / "train" / "1_fake")
    with pytest.raises(DatasetError, match=r"class 1 \(ai\): looked in train/1_fake"):
        find_data(folders)
    for source in ("photos", "snaps"):
        shutil.rmtree(generators / source / "train")
    with pytest.raises(DatasetError, match=r"class 0 \(real\): looked in <name>/train/nature"):
        find_data(generators)


def test_sources_can_be_left_out_of_every_split(generators: Path) -> None:
    data = find_data(generators).without(["sd3"])
    assert {s.source for s in (*data.train, *data.val)} == {"photos", "snaps", "midjourney"}
    with pytest.raises(DatasetError, match="no source 'sd4'; it has midjourney, photos, sd3, snaps"):
        find_data(generators).without(["sd4"])


def test_the_fingerprint_changes_with_the_files(generators: Path) -> None:
    before = find_data(generators).summary()
    assert find_data(generators).summary() == before
    fingerprints = {before["fingerprint"]}
    first, last = sorted((generators / "sd3" / "train" / "ai").iterdir())[:2]
    data = first.read_bytes()
    # The same number of bytes, others at the start or the end; more bytes; another name; one file less.
    for change in (
        lambda: first.write_bytes(b"x" + data[1:]),
        lambda: first.write_bytes(data[:-1] + b"x"),
        lambda: first.write_bytes(data[:5000] + data),
        lambda: first.rename(first.with_name("other.jpg")),
        last.unlink,
    ):
        change()
        fingerprints.add(find_data(generators).summary()["fingerprint"])
    assert len(fingerprints) == 6


def test_the_fingerprint_stays_when_the_folder_moves(generators: Path, tmp_path: Path) -> None:
    before = find_data(generators).fingerprint
    generators.rename(tmp_path / "elsewhere")
    assert find_data(tmp_path / "elsewhere").fingerprint == before


def _write(path: Path, examples: Path, label: int, count: int = 2) -> None:
    path.mkdir(parents=True)
    for number, file in enumerate(sorted((examples / ("real", "ai")[label]).glob("*.jpg"))[:count]):
        shutil.copy(file, path / f"{number:03}.jpg")


@pytest.mark.parametrize(
    ("real", "fake", "sources"),
    [
        ("train/REAL", "train/FAKE", {"REAL", "FAKE"}),  # Kaggle's CIFAKE
        ("Train/Real", "Train/Fake", {"Real", "Fake"}),
        ("train/reals", "train/fakes", {"reals", "fakes"}),
        ("train/nature", "train/ai", {"nature", "ai"}),  # one generator of GenImage, opened
        ("real/train", "fake/train", {"real", "fake"}),
        ("train/real/2023/may", "train/fake/nature", {"real", "fake"}),  # what stands below a class is part of it
        ("BigGAN/imagenet_ai_0419_biggan/train/nature", "BigGAN/imagenet_ai_0419_biggan/train/ai", {"BigGAN"}),
        ("train/airplane/0_real", "train/airplane/1_fake", {"airplane"}),  # CNNDetection's
        ("real/train/nature", "fake/train/ai", {"real", "fake"}),  # sources that are called like a class
        ("biggan/train/real", "biggan/train/fake", {"biggan"}),
        ("archive/train/REAL", "archive/train/FAKE", {"archive"}),  # CIFAKE, unpacked into a folder
        ("real_vs_fake/real-vs-fake/train/real", "real_vs_fake/real-vs-fake/train/fake", {"real_vs_fake"}),
    ],
)
def test_layouts_of_published_data_are_recognised(
    examples: Path, tmp_path: Path, real: str, fake: str, sources: set[str]
) -> None:
    root = tmp_path / "data"
    for label, folder in enumerate((real, fake)):
        _write(root / folder, examples, label, 4)
    data = find_data(root)
    samples = (*data.train, *data.val)
    has_sources = data.layout == "generators" and len(sources) > 1
    assert Counter(s.label for s in data.val) == (
        {} if has_sources else {0: 1, 1: 1}
    )  # held out: there is no folder val
    assert {s.source for s in samples} == sources
    assert Counter(s.label for s in samples) == {0: 4, 1: 4}
    assert all(s.label == (1 if s.path.is_relative_to(root / fake) else 0) for s in samples)
    assert not [note for note in data.notes if note.startswith("ignored")]


def test_a_source_has_one_name_in_every_split(examples: Path, tmp_path: Path) -> None:
    for label, folders in enumerate((("TRAIN/REAL", "val/Real"), ("TRAIN/FAKE", "val/fake"))):
        for folder in folders:
            _write(tmp_path / "data" / folder, examples, label)
    data = find_data(tmp_path / "data")
    assert {s.source for s in data.train} == {s.source for s in data.val}
    assert Counter(s.label for s in data.val) == {0: 2, 1: 2}


@pytest.mark.parametrize(("folder", "split"), [("valid", "val"), ("Validation", "val"), ("testing", "test")])
def test_splits_have_other_names_too_and_that_is_reported(
    examples: Path, tmp_path: Path, folder: str, split: str
) -> None:
    for name in ("train", folder):
        _write(tmp_path / name / "real", examples, 0)
        _write(tmp_path / name / "fake", examples, 1)
    data = find_data(tmp_path)
    assert len(data.split(split)) == 4
    assert f"folder {folder}: read as {split}" in data.notes


def test_what_is_not_used_is_reported(generators: Path, examples: Path) -> None:
    _write(generators / "sd3" / "train" / "drawings", examples, 0)
    _write(generators / "sd3" / "holdout" / "ai", examples, 1)
    used = generators / "sd3" / "train" / "ai"
    for name in ("a.psd", "b.PSD", "c.dng", ".DS_Store", "._d.jpg", "Thumbs.db"):
        (used / name).write_bytes(b"x")
    before = len(find_data(generators).train)
    notes = " ".join(find_data(generators).notes)
    assert "sd3/holdout/ai (2 images)" in notes
    assert "sd3/train/drawings (2 images)" in notes
    assert ".dng 1, .psd 2" in notes
    assert "DS_Store" not in notes
    assert before == 28


def test_counts_per_source_and_class_are_reported(generators: Path) -> None:
    assert find_data(generators).lines()[:2] == [
        "train: 16 real (photos 12, snaps 4), 12 AI-generated (midjourney 4, sd3 8)",
        "val: 8 real (photos 4, snaps 4), 8 AI-generated (midjourney 4, sd3 4)",
    ]


def test_symbolic_links_are_followed_and_loops_are_not(generators: Path, tmp_path: Path) -> None:
    (generators / "sd3").rename(tmp_path / "sd3")
    (generators / "sd3").symlink_to(tmp_path / "sd3")
    (tmp_path / "sd3" / "again").symlink_to(generators)
    assert Counter(s.source for s in find_data(generators).train)["sd3"] == 8


def test_training_reads_the_files_that_screening_finds(generators: Path, examples: Path, tmp_path: Path) -> None:
    photo = examples / "real" / "blouse.jpg"
    used = generators / "photos" / "train" / "nature"
    before = len(find_data(generators).train)
    system = ("._d.jpg", ".nfs0000a1.jpg", "@eaDir/d.jpg", "#recycle/d.jpg", ".thumbnails/d.jpg", ".git/d.jpg")
    for name in (*system, ".hidden.jpg", ".private/d.jpg", "below/d.JPG"):
        (used / name).parent.mkdir(exist_ok=True)
        shutil.copy(photo, used / name)
    (used / "linked.jpg").symlink_to(photo)
    (used / "more").symlink_to(examples / "real")
    read = {str(sample.path) for sample in (*find_data(generators).train, *find_data(generators).val)}
    assert read == {path for path in files_below(str(generators)) if Path(path).suffix.lower() in IMAGE_SUFFIXES}
    assert len(find_data(generators).train) == before + 4 + len(list((examples / "real").iterdir()))


def test_many_sources_are_not_compared_with_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for source in range(100):
        for name in ("ai", "nature"):
            (tmp_path / f"s{source}" / "train" / name).mkdir(parents=True)
            (tmp_path / f"s{source}" / "train" / name / "0.jpg").touch()
    compared = []
    monkeypatch.setattr(Folder, "__eq__", lambda one, other: compared.append(1) or one is other)
    assert len(find_data(tmp_path).train) == 200
    assert len(compared) < 1000


def test_a_file_that_cannot_be_read_has_a_place_in_the_fingerprint(generators: Path, tmp_path: Path) -> None:
    (generators / "sd3" / "train" / "ai" / "gone.jpg").symlink_to(tmp_path / "gone.jpg")
    before = find_data(generators).fingerprint
    (tmp_path / "gone.jpg").write_bytes(b"here again")
    assert find_data(generators).fingerprint != before


def test_an_unknown_layout_says_what_was_found_and_what_was_expected(examples: Path, tmp_path: Path) -> None:
    _write(tmp_path / "cats" / "pictures", examples, 0)
    with pytest.raises(DatasetError, match=r"looked for train/0_real.*<name>/train/ai.*found cats, cats/pictures"):
        find_data(tmp_path)


def test_a_thinned_folder_has_a_few_images_of_every_source(generators: Path) -> None:
    data = find_data(generators)
    few = data.thinned(3, 2)
    counts = Counter((s.source, s.label) for s in few.train)
    assert counts == {("photos", 0): 3, ("snaps", 0): 3, ("midjourney", 1): 3, ("sd3", 1): 3}
    own = [s for s in data.train if s.source == "photos"]
    assert [s for s in few.train if s.source == "photos"] == [own[0], own[6], own[11]]  # spread over the files
    assert {s.source: 2 for s in few.val} == Counter(s.source for s in few.val)
    assert list(data.thinned(1000, 1000).train) == list(data.train)
