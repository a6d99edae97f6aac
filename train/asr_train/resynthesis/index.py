"""index.csv of a folder of content-matched pairs: where each pair is from, and what is there already."""

from __future__ import annotations

import csv
from collections.abc import Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from types import TracebackType
from typing import Self

from asr_runtime.errors import ConfigurationError, OutputError
from asr_runtime.whole_file import whole_file

__all__ = ["Index", "Row"]


@dataclass(frozen=True)
class Row:
    """One pair.

    Attributes:
        twin: file of the twin, relative to the folder; the photo window's has `nature` for `ai`.
        resynthesiser: name of the network.
        split: of the photo.
        photo: file that the window is cut from, relative to its data folder.
        source: of the photo.
        sha256: of that file.
        side: longest side that was asked for.
        top: first row of the window in the photo.
        left: first column of the window.
        height: of window and twin, in pixels.
        width: of window and twin, in pixels.
        psnr: of the twin against the window, in dB.
    """

    twin: str
    resynthesiser: str
    split: str
    photo: str
    source: str
    sha256: str
    side: int
    top: int
    left: int
    height: int
    width: int
    psnr: float


_COLUMNS = [field.name for field in fields(Row)]


class Index:
    """The index, open for more rows. A row is written once its files are, so a run that was stopped can go on.

    Args:
        out: folder of the pairs; made if it does not exist.
        side: of the windows; one folder holds windows of one side.

    Attributes:
        present: (resynthesiser, split, photo) of the pairs that are there.

    Raises:
        ConfigurationError: the folder holds another index.csv, or windows of another side.
        OutputError: the index cannot be written.
    """

    def __init__(self, out: Path, side: int) -> None:
        self.path = out / "index.csv"
        rows = [row for row in _read(self.path, side) if _is_there(out, row["twin"])]
        self.present = {(row["resynthesiser"], row["split"], row["photo"]) for row in rows}
        try:
            # Written again, because a run that was killed may have left half a line at the end.
            with whole_file(self.path) as part, part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, _COLUMNS)
                writer.writeheader()
                writer.writerows(rows)
            self._file = self.path.open("a", newline="", encoding="utf-8")
        except OSError as error:
            raise _failure(self.path, error) from None
        self._writer = csv.DictWriter(self._file, _COLUMNS)

    def add(self, rows: Iterable[Row]) -> None:
        """Write rows and flush.

        Raises:
            OutputError: the disk is full, for one.
        """
        try:
            self._writer.writerows(asdict(row) for row in rows)
            self._file.flush()
        except OSError as error:
            raise _failure(self.path, error) from None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()


def _read(path: Path, side: int) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    try:
        with path.open(newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns, rows = reader.fieldnames, list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise ConfigurationError(f"{path}: cannot be read ({error})") from None
    if columns != _COLUMNS:
        raise ConfigurationError(f"{path}: not written by asr-resynthesise; choose another folder for the pairs")
    whole = [row for row in rows if None not in row.values()]
    if other := next((row["side"] for row in whole if row["side"] != str(side)), None):
        raise ConfigurationError(f"{path.parent}: holds windows of side {other}; take --side {other} or another folder")
    return whole


def _is_there(out: Path, twin: str) -> bool:
    path = out / twin
    return path.is_file() and (path.parent.parent / "nature" / path.name).is_file()


def _failure(path: Path, error: OSError) -> OutputError:
    return OutputError(f"{path}: cannot be written ({error.strerror or error})")
