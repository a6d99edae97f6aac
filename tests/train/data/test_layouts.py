"""Data folders: what is found in them, and what is said of folders that are not."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path

import pytest

from asr_runtime.errors import DatasetError
from asr_train.data.layouts import find_data


def test_generators_are_found_by_themselves(generators: Path) -> None:
    data = find_data(generators)
    assert data.layout == "generators"
    counts = Counter((s.source, s.label) for s in data.train)
    assert counts == {("photos", 0): 7, ("midjourney", 1): 2, ("sd3", 1): 3}
    assert {s.path for s in data.train}.isdisjoint(s.path for s in data.val)


def test_folders_match_labels_by_image_id_and_say_so(folders: Path) -> None:
    data = find_data(folders)
    assert data.layout == "folders"
    assert Counter(s.label for s in data.test) == {0: 3, 1: 3}
    assert {s.path.name: s.label for s in data.test}["blouse.jpg"] == 0
    assert any("matched to files by image_id" in note for note in data.notes)
    assert data.val  # held out of train
    assert {s.path for s in data.train}.isdisjoint(s.path for s in data.val)


def test_labels_without_file_names_match_by_position_and_say_so(folders: Path) -> None:
    names = sorted(p.name for p in (folders / "test").iterdir())
    labels = [
        int(not (folders.parent.parent / name).exists() and name.startswith(("midjourney", "sd15"))) for name in names
    ]
    rows = "".join(f"{i},{label}\n" for i, label in enumerate(labels))
    (folders / "label_test.csv").write_text("image_id,label\n" + rows)
    data = find_data(folders)
    assert [s.label for s in data.test] == labels
    assert any("by position" in note for note in data.notes)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("image_id,label\nblouse.jpg,0\n", "has no row"),
        ("image_id,label\n1,0\n2,1\n", "2 rows, 6 images"),
        ("name,truth\nblouse.jpg,0\n", "expected image_id,label"),
        ("image_id,label\nblouse.jpg,fake\n", "line 2: label 'fake'"),
    ],
)
def test_a_label_file_that_does_not_match_is_an_error(folders: Path, content: str, said: str) -> None:
    (folders / "label_test.csv").write_text(content)
    with pytest.raises(DatasetError, match=said):
        find_data(folders)


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
    shutil.rmtree(generators / "photos" / "train")
    with pytest.raises(DatasetError, match=r"class 0 \(real\): looked in <name>/train/nature"):
        find_data(generators)


def test_sources_can_be_left_out_of_every_split(generators: Path) -> None:
    data = find_data(generators).without(["sd3"])
    assert {s.source for s in (*data.train, *data.val)} == {"photos", "midjourney"}
    with pytest.raises(DatasetError, match="no source 'sd4'; it has midjourney, photos, sd3"):
        find_data(generators).without(["sd4"])


def test_the_fingerprint_changes_with_the_files(generators: Path) -> None:
    before = find_data(generators).summary()
    assert find_data(generators).summary() == before
    next((generators / "sd3" / "train" / "ai").iterdir()).unlink()
    assert find_data(generators).summary()["fingerprint"] != before["fingerprint"]
