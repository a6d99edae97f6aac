"""What is on disk of an archive's screening: the plan, the parts with their records, and which parts are complete.

    DIR/plan/00000.parquet   inputs, a row group per chunk; written once
    DIR/plan/plan.json       what was asked for; written when the plan is complete
    DIR/part-000000.jsonl    records of one chunk (or .parquet)
    DIR/begun/000000.json    of a chunk that a worker is at
    DIR/done/000000.json     account of one chunk; written when its part is complete
    DIR/summary.json         totals of all chunks

A chunk is the unit that is written whole, repeated after a crash, and never written twice under two names. DIR may be a
URL of an object store.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from asr_runtime.archive.inputs import ArchiveInput, Inputs
from asr_runtime.errors import ConfigurationError, OutputError
from asr_runtime.redact import redact
from asr_runtime.whole_file import write_whole

if TYPE_CHECKING:
    from pyarrow import Table

__all__ = ["Account", "ArchiveFormat", "Attempt", "Ledger"]

ArchiveFormat = Literal["jsonl", "parquet"]

T = TypeVar("T")

_GROUPS = 500  # chunks in one file of the plan


@dataclass(frozen=True, slots=True)
class Account:
    """What became of some inputs; `read == scored + failed + skipped`, as in `records.SummaryRecord`."""

    inputs: int = 0
    read: int = 0
    scored: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Account) -> Account:
        return Account(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))


@dataclass(frozen=True, slots=True)
class Attempt:
    """How far earlier workers came with a chunk that none has finished.

    Attributes:
        deaths: workers that began it and ended before it was complete.
        at: position of the input that the last attempt screened; None: it screened the chunk as a whole.
        fatal: positions of inputs at which a worker ended.
    """

    deaths: int = 0
    at: int | None = None
    fatal: tuple[int, ...] = ()


class Ledger:
    """The folder of one archive's screening.

    Args:
        folder: local or shared folder, or a URL that fsspec writes to.
        form: of the parts.

    Raises:
        OutputError: the folder cannot be used.
    """

    def __init__(self, folder: str, form: ArchiveFormat) -> None:
        from fsspec.core import url_to_fs

        self.folder, self.form = folder, form
        try:
            self._store, self._root = url_to_fs(folder)
            for name in ("plan", "begun", "done"):
                self._store.makedirs(f"{self._root}/{name}", exist_ok=True)
        except (OSError, ImportError, ValueError) as error:
            raise self._unwritable(folder, error) from None

    def plan(self, asked: Mapping[str, Any], inputs: Inputs, chunk: int) -> tuple[int, int]:
        """Write the list of inputs, or go on with the one that an earlier run wrote.

        Args:
            asked: what decides about the records (sources, model, look ...), as JSON.
            inputs: are listed if there is no plan yet.
            chunk: inputs in a chunk.

        Returns:
            Number of chunks, and of files that were left out as neither pictures nor videos.

        Raises:
            ConfigurationError: the plan in the folder is for something else.
            OutputError: it cannot be written.
        """
        path = f"{self._root}/plan/plan.json"
        if self._store.exists(path):
            with self._reading(path):
                plan = json.loads(self._store.cat_file(path))
                planned, chunks, ignored = dict(plan["asked"]), int(plan["chunks"]), int(plan["ignored"])
            if differing := [key for key in asked if planned.get(key) != asked[key]]:
                raise ConfigurationError(
                    f"{redact(self.folder)}: holds records of a run with other {', '.join(differing)}; give another "
                    "folder, or the same command line as before to go on"
                )
            return chunks, ignored
        chunks = 0
        for number, group in enumerate(_batches(_batches(inputs, chunk), _GROUPS)):
            self._write_whole(f"{self._root}/plan/{number:05}.parquet", _table_bytes([_plan_table(c) for c in group]))
            chunks += len(group)
        ignored = inputs.ignored
        self._write_json(path, {"asked": dict(asked), "chunks": chunks, "chunk": chunk, "ignored": ignored})
        return chunks, ignored

    def chunk(self, number: int) -> list[ArchiveInput]:
        """Read the inputs of one chunk from the plan."""
        from pyarrow.parquet import ParquetFile

        file, group = divmod(number, _GROUPS)
        path = f"{self._root}/plan/{file:05}.parquet"
        with self._reading(path), self._store.open(path, "rb") as handle, ParquetFile(handle) as table:
            return [ArchiveInput(**row) for row in table.read_row_group(group).to_pylist()]

    def finished(self) -> dict[int, Account]:
        """Read the accounts of the chunks that are complete."""
        self._store.invalidate_cache()
        done = {}
        for path in self._store.glob(f"{self._root}/done/*.json"):
            with self._reading(path):
                number = int(path.rpartition("/")[2].removesuffix(".json"))
                done[number] = Account(**json.loads(self._store.cat_file(path)))
        return done

    def account(self, number: int) -> Account | None:
        """Read the account of one chunk; None: it is not complete."""
        try:
            with self._reading(self._done(number)):
                return Account(**json.loads(self._store.cat_file(self._done(number))))
        except FileNotFoundError:
            return None

    def begin(self, number: int) -> Attempt:
        """Note that a chunk is begun, and return what became of earlier attempts."""
        try:
            with self._reading(self._begun(number)):
                last = Attempt(**json.loads(self._store.cat_file(self._begun(number))))
        except FileNotFoundError:
            attempt = Attempt()
        else:
            fatal = (*last.fatal, *(() if last.at is None else (last.at,)))
            attempt = Attempt(last.deaths + 1, None, fatal)
        self.note(number, attempt)
        return attempt

    def note(self, number: int, attempt: Attempt) -> None:
        """Write how far a chunk is."""
        self._write_json(self._begun(number), asdict(attempt))

    def finish(self, number: int, records: Sequence[Mapping[str, Any]], account: Account) -> None:
        """Write the records of a chunk, then its account.

        Raises:
            OutputError: they cannot be written.
        """
        if self.form == "parquet":
            data = _table_bytes([_record_table(records)])
        else:
            data = "".join(json.dumps(record, allow_nan=False) + "\n" for record in records).encode()
        self._write_whole(f"{self._root}/part-{number:06}.{self.form}", data)
        self._write_json(self._done(number), asdict(account))
        self._store.rm_file(self._begun(number))

    def summarise(self, summary: Mapping[str, Any]) -> None:
        """Write the account of the whole archive."""
        self._write_json(f"{self._root}/summary.json", summary)

    def _begun(self, number: int) -> str:
        return f"{self._root}/begun/{number:06}.json"

    def _done(self, number: int) -> str:
        return f"{self._root}/done/{number:06}.json"

    def _write_json(self, path: str, data: Mapping[str, Any]) -> None:
        self._write_whole(path, (json.dumps(data, allow_nan=False, indent=1) + "\n").encode())

    def _write_whole(self, path: str, data: bytes) -> None:
        """Write a file whole or not at all, as object stores do themselves."""
        from fsspec.implementations.local import LocalFileSystem

        if isinstance(self._store, LocalFileSystem):
            write_whole(Path(path), data)
            return
        try:
            self._store.pipe_file(path, data)
        except Exception as error:  # every store raises its own errors
            raise self._unwritable(path, error) from None

    @contextlib.contextmanager
    def _reading(self, path: str) -> Iterator[None]:
        """Turn errors of reading a file of the folder into ours, except that the file does not exist."""
        try:
            yield
        except FileNotFoundError:
            raise
        except Exception as error:  # every store raises its own errors, and a damaged file may bring any
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ConfigurationError(
                f"{redact(path)}: damaged, or not written by asr-screen ({reason}); remove it, or give another folder"
            ) from None

    def _unwritable(self, path: str, error: Exception) -> OutputError:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else error
        return OutputError(f"{redact(path)}: cannot be written ({reason})")


def _batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def _plan_table(inputs: Sequence[ArchiveInput]) -> Table:
    from pyarrow import Table

    return Table.from_pydict({f.name: [getattr(i, f.name) for i in inputs] for f in fields(ArchiveInput)})


def _record_table(records: Sequence[Mapping[str, Any]]) -> Table:
    """Put the fields that are asked for most in columns, and every record whole, as JSON, in the last one."""
    import pyarrow

    columns = {
        **{name: pyarrow.string() for name in ("type", "source", "verdict", "reason", "kind", "error")},
        **{"frame": pyarrow.int64(), "time": pyarrow.float64(), "probability": pyarrow.float64()},
    }
    data = {name: pyarrow.array([r.get(name) for r in records], kind) for name, kind in columns.items()}
    return pyarrow.table({**data, "record": [json.dumps(record, allow_nan=False) for record in records]})


def _table_bytes(groups: Sequence[Table]) -> bytes:
    """Return a Parquet file with one row group for each table."""
    from pyarrow import BufferOutputStream
    from pyarrow.parquet import ParquetWriter

    buffer = BufferOutputStream()
    with ParquetWriter(buffer, groups[0].schema, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(1, group.num_rows))
    data: bytes = buffer.getvalue().to_pybytes()
    return data
