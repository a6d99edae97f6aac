"""Labels from a CSV file: matched by name in every form, or refused."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from asr_runtime.errors import DatasetError
from asr_train.data.layouts import find_data

_LABELS = {f"{number:03}": label for number, label in enumerate((0, 1, 1, 0, 1, 0, 0, 1))}


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    """A data folder with eight images in `test`, 000.jpg to 007.jpg."""
    (tmp_path / "data" / "test").mkdir(parents=True)
    for stem in _LABELS:
        (tmp_path / "data" / "test" / f"{stem}.jpg").write_bytes(b"not looked at")
    return tmp_path / "data"


def _table(flat: Path, form: str = "{0}.jpg", encoding: str = "utf-8", header: str = "image_id,label") -> None:
    rows = [f"{form.format(stem, int(stem))},{label}" for stem, label in _LABELS.items()]
    random.Random(0).shuffle(rows)
    (flat / "label_test.csv").write_text("\n".join([header, *rows]) + "\n", encoding=encoding)


def _labels_of(flat: Path, by_position: bool = False) -> dict[str, int]:
    return {s.path.stem: s.label for s in find_data(flat, labels_by_position=by_position).test}


@pytest.mark.parametrize(
    "form",
    [
        *(
            "{0}.jpg",
            "{0}",
            "test/{0}.jpg",
            "./{0}.jpg",
            "images/{0}.jpg",
            "{1}",
            "{0}.JPG",
            "{0}.png",
            "/x/test/{0}.jpg",
        ),
        *("/x/test/{0}.jpg", "data/test/{0}.jpg", "test/{0}", "images\\{0}.jpg", " {0}.jpg ", "{1}.jpg"),
    ],
)
def test_rows_in_any_order_are_matched_by_file_name(flat: Path, form: str) -> None:
    _table(flat, form)
    assert _labels_of(flat) == _LABELS
    assert find_data(flat).notes == ("label_test.csv: rows matched to files by image_id",)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
def test_encodings_of_spreadsheets_are_read(flat: Path, encoding: str) -> None:
    (flat / "test" / "000.jpg").rename(flat / "test" / "\u00e4rger.jpg")
    rows = [
        "image_id,label",
        "\u00e4rger.jpg,0",
        *(f"{stem}.jpg,{label}" for stem, label in _LABELS.items() if stem != "000"),
    ]
    (flat / "label_test.csv").write_text("\r\n".join(rows), encoding=encoding)
    assert _labels_of(flat) == {"\u00e4rger": 0, **{stem: label for stem, label in _LABELS.items() if stem != "000"}}


def test_columns_are_named_in_any_case(flat: Path) -> None:
    _table(flat, header="Image_ID, Label")
    assert _labels_of(flat) == _LABELS


def test_names_that_match_no_file_are_refused_and_read_by_position_only_when_asked(flat: Path) -> None:
    rows = [f"picture {100 - number},{label}" for number, label in enumerate(_LABELS.values())]
    (flat / "label_test.csv").write_text("\n".join(["image_id,label", *rows]))
    with pytest.raises(DatasetError, match=r"no image_id names a file .*picture 100.*000.jpg.*--labels-by-position"):
        find_data(flat)
    assert _labels_of(flat, by_position=True) == _LABELS
    assert "by position, as asked" in find_data(flat, labels_by_position=True).notes[0]
    (flat / "label_test.csv").write_text("\n".join(["image_id,label", *rows[:-1]]))
    with pytest.raises(DatasetError, match="7 rows, 8 images"):
        find_data(flat, labels_by_position=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows[:-1], r"\d+.jpg has no row \(7 rows, 8 images, 7 of them match\)"),
        (lambda rows: [*rows, "008.jpg,1"], "no file for image_id '008.jpg'"),
        (lambda rows: [*rows[:-1], "oo7.jpg,1"], "has no row"),
        (lambda rows: [*rows, "000.jpg,1"], "'000.jpg' stands there twice, with label 0 and with label 1"),
        (lambda rows: [*rows, "./000.jpg,1"], "000.jpg has two rows, with label 0 and with label 1"),
        (lambda rows: [*rows, "001.jpg"], "line 10: label ''"),
        (lambda rows: [*rows, ",1"], "line 10: no image_id"),
        (lambda rows: [row.replace(",", ";") for row in rows], "label ''"),
        (lambda rows: [*rows, "000.jpg,fake"], "line 10: label 'fake'"),
    ],
)
def test_rows_that_nearly_match_are_refused(flat: Path, change: object, message: str) -> None:
    rows = [f"{stem}.jpg,{label}" for stem, label in _LABELS.items()]
    (flat / "label_test.csv").write_text("\n".join(["image_id,label", *change(rows)]))  # type: ignore[operator]
    with pytest.raises(DatasetError, match=message):
        find_data(flat)


def test_a_row_that_stands_twice_with_the_same_label_counts_once(flat: Path) -> None:
    _table(flat)
    with (flat / "label_test.csv").open("a") as file:
        file.write("000.jpg,0\n./001.jpg,1\n")
    assert _labels_of(flat) == _LABELS


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"name,truth\n000.jpg,0\n", "expected image_id,label"),
        (b"", "expected image_id,label"),
        ("image_id,label\n000.jpg,0\n".encode("utf-16-le"), "save it as UTF-8"),
        (b'image_id,label\n"' + b"x" * 200_000 + b'",0\n', "not a CSV file"),
    ],
)
def test_other_files_are_refused_in_one_line(flat: Path, content: bytes, message: str) -> None:
    (flat / "label_test.csv").write_bytes(content)
    with pytest.raises(DatasetError, match=message) as caught:
        find_data(flat)
    assert "\n" not in str(caught.value)


def test_a_number_of_any_length_is_an_image_id(flat: Path) -> None:
    (flat / "label_test.csv").write_text("image_id,label\n" + "9" * 5000 + ",0\n")
    with pytest.raises(DatasetError, match="no image_id names a file"):
        find_data(flat)


def test_files_that_an_image_id_cannot_tell_apart_are_refused(flat: Path) -> None:
    _table(flat, "{0}")
    (flat / "test" / "000.png").write_bytes(b"not looked at")
    with pytest.raises(DatasetError, match="cannot be told apart"):
        find_data(flat)


def test_accents_of_a_mac_and_of_other_systems_are_the_same_name(flat: Path) -> None:
    for stem in _LABELS:
        (flat / "test" / f"{stem}.jpg").rename(flat / "test" / f"caf\u00e9-{stem}.jpg")
    _table(flat, "cafe\u0301-{0}.jpg")
    assert _labels_of(flat) == {f"caf\u00e9-{stem}": label for stem, label in _LABELS.items()}
