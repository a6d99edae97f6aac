"""The index of a collection: one row per picture, with the repository that holds it and the hash of its bytes."""

from __future__ import annotations

import csv
import re
from dataclasses import dataclass
from pathlib import Path

from asr_runtime.errors import DatasetError

__all__ = ["COLUMNS", "Picture", "read_index"]

COLUMNS = ("label", "source", "family", "year", "split", "repository", "path", "blob", "bytes", "sha256", "licence")
"""Columns of an index, in any order; further ones are allowed and ignored."""

_PATTERNS = {
    "label": "[01]",
    "source": "[A-Za-z0-9_][A-Za-z0-9._-]*",
    "split": "train|val",
    "repository": "[A-Za-z0-9][A-Za-z0-9._-]*/[A-Za-z0-9_][A-Za-z0-9._-]*",
    "path": r"[^\x00-\x1f]*\.[A-Za-z0-9]{1,5}",
    "blob": "[0-9a-f]{40}",
    "bytes": "[1-9][0-9]{0,9}",
    "sha256": "[0-9a-f]{64}",
}


@dataclass(frozen=True, slots=True)
class Picture:
    """One row of an index.

    Attributes:
        label: 0 = real, 1 = AI-generated.
        source: folder that it goes to; one generator's site, or one set of photos.
        family: one maker's generator, or the kind of picture of a real source; sources of a family are left out of
            training together.
        year: of the generator or the pictures; may be empty.
        split: `train` or `val`.
        repository: `owner/name`.
        path: inside the repository, for people; the bytes are looked up by `blob`.
        blob: git object name of the bytes.
        bytes: length of the file.
        sha256: of the file.
        licence: as the repository states it.
    """

    label: int
    source: str
    family: str
    year: str
    split: str
    repository: str
    path: str
    blob: str
    bytes: int
    sha256: str
    licence: str

    @property
    def target(self) -> Path:
        """Place in a data folder of the layout `generators`, relative to it."""
        kind = "ai" if self.label else "nature"
        return Path(self.source, self.split, kind, f"{self.sha256[:16]}{Path(self.path).suffix.lower()}")


def read_index(path: Path) -> list[Picture]:
    """Read an index (CSV, UTF-8, with a header).

    Raises:
        DatasetError: the file cannot be read, a column is missing, or a row has a value that cannot be right, stands
            twice, or gives one source two labels; the message names the line.
    """
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            header = reader.fieldnames or []
            if missing := [name for name in COLUMNS if name not in header]:
                raise DatasetError(
                    f"{path}: no column {missing[0]!r}; expected a CSV file with the columns {', '.join(COLUMNS)}"
                )
            pictures = [_picture(row, f"{path}, line {reader.line_num}") for row in reader]
    except OSError as error:
        raise DatasetError(
            f"{path}: cannot be read ({error.strerror}); expected the CSV index of a collection"
        ) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{path}: not a CSV file in UTF-8 ({error})") from None
    if not pictures:
        raise DatasetError(f"{path}: the index lists no picture")
    _check_together(path, pictures)
    return pictures


def _picture(row: dict[str, str | None], where: str) -> Picture:
    values = {name: row[name] or "" for name in COLUMNS}
    for name, pattern in _PATTERNS.items():
        if not re.fullmatch(pattern, values[name]):
            raise DatasetError(f"{where}: {name} {values[name][:80]!r}, expected {pattern}")
    numbers = {"label": int(values.pop("label")), "bytes": int(values.pop("bytes"))}
    return Picture(**values, **numbers)  # type: ignore[arg-type]


def _check_together(path: Path, pictures: list[Picture]) -> None:
    hashes: set[str] = set()
    labels: dict[str, int] = {}
    for picture in pictures:
        if picture.sha256 in hashes:
            raise DatasetError(f"{path}: the picture {picture.sha256} is listed twice; expected each picture once")
        hashes.add(picture.sha256)
        if labels.setdefault(picture.source, picture.label) != picture.label:
            raise DatasetError(f"{path}: source {picture.source} has both labels; expected one name per class")
