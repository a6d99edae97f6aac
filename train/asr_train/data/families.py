"""Which generator made the pictures of a source, or what kind of pictures a real source holds, and of which year.

Several sites may show pictures of one generator. A detector that has seen one of them has seen the generator, so whole
families are left out when it is to be judged on what it has never seen. A family stands in a CSV file beside the data
folder, with the columns source, label (0 real, 1 AI-generated), family and year (may be empty).
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from asr_runtime.errors import DatasetError
from asr_train.data.layouts import DataFolder, Sample, picture_counts

__all__ = ["FAMILIES_FILE", "Families", "find_families", "read_families"]

FAMILIES_FILE = "families.csv"
_COLUMNS = ("source", "label", "family", "year")
_MIXED = "mixed"
_UNKNOWN = ("", "unknown")


@dataclass(frozen=True)
class Families:
    """The families of a data folder's sources.

    Attributes:
        names: (label, source) -> family; for real sources the kind of picture.
        years: (label, source) -> year of the generator or site; a source without a year is missing.
    """

    names: Mapping[tuple[int, str], str]
    years: Mapping[tuple[int, str], int]

    def of(self, label: int, source: str) -> str:
        """Return the family of a source; a source whose family is not known is its own family."""
        name = self.names.get((label, source), "")
        return source if name in _UNKNOWN else name

    def is_known(self, label: int, source: str) -> bool:
        """Whether figures may be claimed for the family: it is named, and is one generator or kind of picture."""
        name = self.names.get((label, source), "")
        return name not in _UNKNOWN and not name.startswith(_MIXED)

    def sources_without(self, label: int, family: str, samples: Sequence[Sample]) -> frozenset[str]:
        """Return the sources that training must not see to be judged by a family.

        Sources with pictures of several generators (a family that starts with `mixed`) go out with every generator.
        """
        pairs = {(kind, source) for kind, source in picture_counts(samples) if kind == label}
        mixed = {s for k, s in pairs if label == 1 and self.of(k, s).startswith(_MIXED)}
        return frozenset(mixed | {s for k, s in pairs if self.of(k, s) == family})

    def judged(self, label: int, samples: Sequence[Sample], at_least: int) -> list[str]:
        """Return the known families of one class with at least so many pictures."""
        counts: dict[str, int] = {}
        for (kind, source), number in picture_counts(samples).items():
            if kind == label and self.is_known(label, source):
                name = self.of(label, source)
                counts[name] = counts.get(name, 0) + number
        return sorted(name for name, count in counts.items() if count >= at_least)


def find_families(data: DataFolder, file: Path | None) -> Families | None:
    """Read the families of a data folder.

    Args:
        data: the folder.
        file: the CSV file; None takes `families.csv` in the data folder or beside it, if there is one.

    Raises:
        DatasetError: the file cannot be read, or names no source of the folder.
    """
    if file is None:
        beside = [data.root / FAMILIES_FILE, data.root.absolute().parent / FAMILIES_FILE]
        file = next((path for path in beside if path.is_file()), None)
        if file is None:
            return None
    families = read_families(file)
    sources = {group for samples in (data.train, data.val, data.test) for group in picture_counts(samples)}
    if not sources & set(families.names):
        raise DatasetError(f"{file}: names none of the {len(sources)} sources of {data.root}")
    return families


def read_families(file: Path) -> Families:
    """Read a CSV file with the columns source, label, family, year.

    Raises:
        DatasetError: it cannot be read, a column is missing, or a label or year is none.
    """
    try:
        with file.open(newline="", encoding="utf-8-sig") as stream:
            reader = csv.DictReader(stream)
            if not set(_COLUMNS) <= set(reader.fieldnames or ()):
                raise DatasetError(f"{file}: columns {reader.fieldnames}, expected {', '.join(_COLUMNS)}")
            rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DatasetError(f"{file}: cannot be read ({error})") from None
    names: dict[tuple[int, str], str] = {}
    years: dict[tuple[int, str], int] = {}
    for line, row in enumerate(rows, start=2):
        if row["label"] not in ("0", "1"):
            raise DatasetError(f"{file}: line {line}: label {row['label']!r}, expected 0 (real) or 1 (AI-generated)")
        key = int(row["label"]), row["source"]
        names[key] = (row["family"] or "").strip()
        if row["year"]:
            if not (row["year"].isascii() and row["year"].isdigit() and len(row["year"]) <= 4):
                raise DatasetError(f"{file}: line {line}: year {row['year'][:20]!r}, expected a number or nothing")
            years[key] = int(row["year"])
    return Families(names, years)
