"""From an index of public pictures to a data folder that anybody can rebuild."""

from __future__ import annotations

import csv
import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from asr_runtime.errors import ConfigurationError, DatasetError
from asr_runtime.whole_file import write_whole
from asr_train.collection.index import Picture
from asr_train.collection.snapshots import clone, find_snapshot, open_repository

__all__ = ["Collected", "collect", "write_families"]


@dataclass
class Collected:
    """What became of the pictures of an index.

    Attributes:
        written: pictures written by this run, per source.
        present: pictures that an earlier run had written, with the right hash, per source.
        missing: reason -> pictures that could not be had for it.
    """

    written: Counter[str] = field(default_factory=Counter)
    present: Counter[str] = field(default_factory=Counter)
    missing: dict[str, list[Picture]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_complete(self) -> bool:
        """Whether every picture of the index is in the data folder."""
        return not self.missing

    def lines(self) -> list[str]:
        """Return the account in words: what is there, then what is missing and why, most first."""
        absent = sum(map(len, self.missing.values()))
        lines = [
            f"{self.written.total()} pictures written, {self.present.total()} were there already, {absent} missing; "
            f"{len(self.written | self.present)} sources"
        ]
        for reason, pictures in sorted(self.missing.items(), key=lambda item: -len(item[1])):
            sources = Counter(picture.source for picture in pictures)
            names = ", ".join(f"{name} {count}" for name, count in sources.most_common(5))
            more = f" and {len(sources) - 5} more sources" if len(sources) > 5 else ""
            lines.append(f"missing: {reason}: {len(pictures)} pictures ({names}{more})")
        return lines


def collect(
    pictures: Sequence[Picture],
    out: Path,
    *,
    snapshots: Path | None = None,
    clone_from: str | None = None,
    advance: Callable[[int], None] = lambda _: None,
) -> Collected:
    """Write the pictures of an index as a data folder in the layout `generators`, with `families.csv` beside them.

    A picture is written only if its SHA-256 is the one in the index. A picture that is there already with that hash is
    left alone, so a run that was stopped goes on where it was. Every picture is written whole or not at all.

    Args:
        pictures: rows of the index.
        out: data folder; made if it does not exist.
        snapshots: folder of git repositories (see `snapshots.find_snapshot`).
        clone_from: prefix of URLs: `PREFIX/owner/name` is cloned into `out/.repositories`. With both, snapshots come
            first.
        advance: is called with the number of pictures that were dealt with since the last call.

    Raises:
        ConfigurationError: neither `snapshots` nor `clone_from`, or no such folder.
        OutputError: the data folder cannot be written.
        DependencyError: git is not installed.
    """
    if snapshots is None and clone_from is None:
        raise ConfigurationError(
            "no place to take pictures from: give --snapshots DIR (git repositories on this disk) or "
            "--clone-from PREFIX (a URL that PREFIX/owner/name can be cloned from)"
        )
    if snapshots is not None and not snapshots.is_dir():
        raise ConfigurationError(f"{snapshots}: no such folder; expected git repositories as owner/name below it")
    collected = Collected()
    waiting: dict[str, list[Picture]] = defaultdict(list)
    for picture in pictures:
        if _is_there(out / picture.target, picture):
            collected.present[picture.source] += 1
            advance(1)
        else:
            waiting[picture.repository].append(picture)
    for repository, rows in sorted(waiting.items()):
        try:
            place = find_snapshot(snapshots, repository) if snapshots is not None else None
            if place is None and clone_from is not None:
                place = clone(clone_from, repository, out / ".repositories")
            if place is None:
                raise DatasetError(f"no snapshot of it below {snapshots}")
            _take(place, rows, out, collected, advance)
        except DatasetError as error:
            done = {picture.sha256 for picture in rows if _is_there(out / picture.target, picture)}
            collected.missing[f"{repository}: {error}"] += [row for row in rows if row.sha256 not in done]
            advance(len(rows) - len(done))
    write_families(pictures, out / "families.csv")
    return collected


def write_families(pictures: Sequence[Picture], path: Path) -> None:
    """Write which family each source belongs to, as the protocols that leave families out read it.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = sorted({(p.source, p.label, p.family, p.year) for p in pictures})
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerows([("source", "label", "family", "year"), *rows])
    write_whole(path, text.getvalue())


def _take(
    repository: Path, rows: Sequence[Picture], out: Path, collected: Collected, advance: Callable[[int], None]
) -> None:
    with open_repository(repository) as blobs:
        for picture in rows:
            data = blobs.read(picture.blob)
            if data is None:
                collected.missing[f"{picture.repository}: no longer has the file"].append(picture)
            elif hashlib.sha256(data).hexdigest() != picture.sha256:
                collected.missing[f"{picture.repository}: SHA-256 is not the one in the index"].append(picture)
            else:
                write_whole(out / picture.target, data)
                collected.written[picture.source] += 1
            advance(1)


def _is_there(path: Path, picture: Picture) -> bool:
    try:
        if path.stat().st_size != picture.bytes:
            return False
        return hashlib.sha256(path.read_bytes()).hexdigest() == picture.sha256
    except OSError:
        return False
