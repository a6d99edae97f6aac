"""Labels of a flat folder of images, from a CSV file with the columns image_id and label."""

from __future__ import annotations

import csv
import io
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath

from asr_runtime.errors import DatasetError

__all__ = ["labels_of"]

_LABELS = {"0": 0, "1": 1}
_BYTE_ORDER_MARKS = (b"\xff\xfe", b"\xfe\xff")  # of UTF-16


def labels_of(images: Sequence[Path], folder: Path, file: Path, by_position: bool) -> tuple[dict[Path, int], str]:
    """Read which label each image of a folder has.

    An image_id names its file in any of these forms, all rows in the same one: the path below the folder or above it
    (`test/000.jpg`, `./000.jpg`), the name whatever folder stands before it (`images/000.jpg`), the name without
    suffix, or its number (`7` for `007.jpg`); capital letters do not matter where names stay different without them.

    Args:
        images: files below the folder, sorted.
        folder: with the images.
        file: the CSV file.
        by_position: the rows stand in the order of the sorted files, whatever their image_id says.

    Returns:
        The label of every image, and how they were matched, for people.

    Raises:
        DatasetError: the file cannot be read, an image has no row, a row no image, or a name has two labels.
    """
    if not file.is_file():
        raise DatasetError(f"{folder}: holds images without class folders; expected their labels in {file}")
    rows = _rows(file)
    if by_position:
        if len(rows) != len(images):
            raise DatasetError(f"{file}: {len(rows)} rows, {len(images)} images in {folder}; expected as many rows")
        labels = {image: label for image, (_, label) in zip(images, rows, strict=True)}
        return labels, f"{file.name}: rows matched to the sorted file list by position, as asked"
    ids: dict[str, int] = {}
    for name, label in rows:
        if ids.setdefault(name, label) != label:
            raise DatasetError(f"{file}: image_id {name!r} stands there twice, with label 0 and with label 1")
    best: tuple[int, str] = (-1, "")
    for key_of in _FORMS:
        matched_labels, matched, problem = _matched(images, ids, folder, key_of)
        if not problem:
            return matched_labels, f"{file.name}: rows matched to files by image_id"
        best = max(best, (matched, problem), key=lambda known: known[0])
    matched, problem = best
    if matched == 0:
        problem = (
            f"{len(ids)} rows, {len(images)} images, and no image_id names a file (first row {next(iter(ids), '')!r}, "
            f"first file {images[0].name!r}); write file names, or say --labels-by-position if the rows stand in the "
            "order of the sorted file names"
        )
    raise DatasetError(f"{file}: does not match {folder}: {problem}")


def _matched(
    images: Sequence[Path], ids: Mapping[str, int], folder: Path, key_of: Callable[[str, str], str]
) -> tuple[dict[Path, int], int, str]:
    """Match rows and images in one form: the labels, how many images have one, and what does not match."""
    asked = {key_of(name, folder.name) for name in ids}
    image_of: dict[str, Path] = {}
    for image in images:
        key = key_of(image.relative_to(folder).as_posix(), folder.name)
        if key in asked and key in image_of:
            return (
                {},
                len(asked & set(image_of)),
                f"{image.name} and {image_of[key].name} cannot be told apart by image_id",
            )
        image_of[key] = image
    labels: dict[Path, int] = {}
    strangers = []
    for name, label in ids.items():
        image_or_none = image_of.get(key_of(name, folder.name) or " ")
        if image_or_none is None:
            strangers.append(name)
        elif labels.setdefault(image_or_none, label) != label:
            return {}, len(labels), f"{image_or_none.name} has two rows, with label 0 and with label 1"
    if unlabelled := [image for image in images if image not in labels]:
        rows = f"{len(ids)} rows, {len(images)} images"
        return {}, len(labels), f"{unlabelled[0].name} has no row ({rows}, {len(labels)} of them match)"
    if strangers:
        return {}, len(labels), f"no file for image_id {strangers[0]!r} ({len(ids)} rows, {len(images)} images)"
    return labels, len(labels), ""


def _path(name: str, folder: str) -> str:
    """Return the path below the folder, whether or not the name says the folder as well, however accents are coded."""
    plain = unicodedata.normalize("NFC", name.replace("\\", "/"))
    parts = [part for part in PurePosixPath(plain).parts if part not in ("/", ".")]
    while len(parts) > 1 and folder in parts[:-1]:
        parts = parts[parts.index(folder) + 1 :]
    return "/".join(parts)


def _name(name: str, folder: str) -> str:
    return _path(name, folder).rpartition("/")[2]


def _stem(name: str, folder: str) -> str:
    return PurePosixPath(_name(name, folder)).stem


def _number(name: str, folder: str) -> str:
    stem = _stem(name, folder)
    return (stem.lstrip("0") or "0") if stem.isascii() and stem.isdigit() else ""


def _caseless(form: Callable[[str, str], str]) -> Callable[[str, str], str]:
    return lambda name, folder: form(name, folder).casefold()


_FORMS: tuple[Callable[[str, str], str], ...] = (
    *(_path, _name, _stem),
    *(_caseless(_path), _caseless(_name), _caseless(_stem)),
    _number,
)


def _rows(file: Path) -> list[tuple[str, int]]:
    """Read image_id and label of every row."""
    try:
        reader = csv.DictReader(io.StringIO(_text(file), newline=""))
        columns = {(name or "").strip().casefold(): name for name in reader.fieldnames or ()}
        if not {"image_id", "label"} <= set(columns):
            raise DatasetError(f"{file}: columns {reader.fieldnames}, expected image_id,label")
        rows = [(row[columns["image_id"]] or "", row[columns["label"]] or "") for row in reader]
    except csv.Error as error:
        raise DatasetError(f"{file}: not a CSV file ({error}); expected the columns image_id,label") from None
    for line, (name, label) in enumerate(rows, start=2):
        if label.strip() not in _LABELS:
            raise DatasetError(f"{file}: line {line}: label {label!r}, expected 0 (real) or 1 (AI-generated)")
        if not name.strip():
            raise DatasetError(f"{file}: line {line}: no image_id; expected the name of a file")
    return [(name.strip(), _LABELS[label.strip()]) for name, label in rows]


def _text(file: Path) -> str:
    """Decode UTF-8, UTF-16 with its byte order mark, or else Latin-1, in which every byte is valid."""
    try:
        data = file.read_bytes()
    except OSError as error:
        raise DatasetError(f"{file}: cannot be read ({error.strerror})") from None
    try:
        text = data.decode("utf-16" if data.startswith(_BYTE_ORDER_MARKS) else "utf-8-sig")
    except UnicodeDecodeError:
        text = data.decode("latin-1")
    if "\0" in text:
        raise DatasetError(f"{file}: neither UTF-8 nor UTF-16 with a byte order mark; save it as UTF-8")
    return text
