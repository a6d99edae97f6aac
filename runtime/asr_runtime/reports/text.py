"""Records -> text: a table for people, JSON lines and CSV for machines. One line at a time, flushed."""

from __future__ import annotations

import contextlib
import csv
import io
import json
import os
import sys
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Literal, Self, TextIO

from asr_runtime.claims import contradictions
from asr_runtime.errors import OutputError
from asr_runtime.records import (
    ErrorRecord,
    FrameRecord,
    ImageRecord,
    Record,
    StateRecord,
    SummaryRecord,
    VideoRecord,
)

__all__ = ["CSV_COLUMNS", "FORMATS", "Output", "Sink", "finished_sources", "make_sink", "summary_line"]

CSV_COLUMNS = (
    *("type", "source", "frame", "time", "probability", "verdict", "smoothed", "steady", "repeated", "age", "dropped"),
    *("start", "end", "peak", "frames", "duration", "state", "detail", "retry", "given_up", "kind", "error", "look"),
    *("reason", "note"),
)


class Output:
    """Where text goes: a file, or standard output. Every failure to write is an `OutputError`.

    Args:
        path: file to write, replaced if it exists and is a text; None: standard output.
        append: go on with the file instead; a last line that was cut short is taken away.

    Attributes:
        is_terminal: people read it directly.
        is_empty: nothing was written to it, in an earlier run either.
        around: context of each write; where a progress line shares the terminal, it steps aside here.

    Raises:
        OutputError: the file cannot be created, or is no text: a picture that was named by mistake.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None, *, append: bool = False) -> None:
        self.name = "standard output" if path is None else os.fspath(path)
        self._owned = path is not None
        self.is_empty = True
        if path is not None and _is_binary(Path(path)):
            raise OutputError(
                f"{self.name}: is no text, and would be replaced by the results; choose another name, or remove it"
            )
        try:
            if path is not None and append:
                self.is_empty = _end_whole(Path(path)) == 0
            self._stream: TextIO = sys.stdout if path is None else _create(path, "a" if append else "w")
        except OSError as error:
            raise self._failure(error) from None
        self.is_terminal = self._stream.isatty()
        self.around: Callable[[], AbstractContextManager[None]] = nullcontext

    def write(self, text: str) -> None:
        """Write and flush.

        Raises:
            OutputError: the disk is full, the reader has gone, the stream is closed.
        """
        encoding = self._stream.encoding or "utf-8"
        # File names need not be text in any encoding.
        text = text.encode(encoding, "backslashreplace").decode(encoding)
        try:
            with self.around():
                self._stream.write(text)
                self._stream.flush()
        except (OSError, ValueError) as error:
            self._abandon()
            raise self._failure(error) from None

    def close(self) -> None:
        """Close a file; standard output stays open.

        Raises:
            OutputError: what was written did not reach the file.
        """
        if not self._owned:
            return
        try:
            self._stream.close()
        except OSError as error:
            raise self._failure(error) from None

    def _abandon(self) -> None:
        if self._owned:
            return
        # Python would try to flush the rest at exit, fail again, and end with its own code (120).
        sys.stdout = None

    def _failure(self, error: Exception) -> OutputError:
        if isinstance(error, BrokenPipeError):
            return OutputError(f"{self.name}: the reader of the output closed it")
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return OutputError(f"{self.name}: cannot be written ({reason})")


def _is_binary(path: Path) -> bool:
    """Whether a file is there that no run has written."""
    try:
        with path.open("rb") as file:
            return path.is_file() and b"\0" in file.read(4096)
    except OSError:
        return False  # it cannot be written either, or is not there


def _create(path: str | os.PathLike[str], mode: Literal["a", "w"]) -> TextIO:
    return Path(path).open(mode, encoding="utf-8", newline="")


def _end_whole(path: Path) -> int:
    """Take away a last line that a kill cut short; returns the length of the file, 0 if there is none."""
    if not path.exists():
        return 0
    with path.open("rb+") as file:
        size = file.seek(0, os.SEEK_END)
        whole = size
        while whole:
            start = max(0, whole - 65536)
            file.seek(start)
            end = file.read(whole - start).rfind(b"\n") + 1
            whole = start + end
            if end:
                break
        if whole < size:
            file.truncate(whole)
        return whole


def finished_sources(path: str | os.PathLike[str], last: int = 1 << 16) -> list[str]:
    """Return the files whose last record stands at the end of a file of JSON lines.

    Args:
        path: what an earlier run wrote; none is no error.
        last: bytes that are read.
    """
    if not Path(path).is_file():
        return []
    with Path(path).open("rb") as file:
        file.seek(max(0, file.seek(0, os.SEEK_END) - last))
        lines = file.read().splitlines()
    sources = []
    for line in lines:
        with contextlib.suppress(ValueError, KeyError, TypeError):  # the first may be cut, and a person may edit it
            record = json.loads(line)
            if record["type"] in ("image", "video") or (record["type"] == "error" and "frame" not in record):
                sources.append(str(record["source"]))
    return sources


class Sink(ABC):
    """Writes the records of one run; a context manager that closes its output.

    Attributes:
        has_summary: it writes the summary; of another format the command prints the summary to stderr.
        has_claims: it writes what files claim about themselves.
        has_windows: it writes the windows that were scored.
    """

    has_summary: ClassVar[bool] = True
    has_claims: ClassVar[bool] = True
    has_windows: ClassVar[bool] = False

    def __init__(self, output: Output) -> None:
        self.output = output

    @abstractmethod
    def write(self, record: Record) -> None:
        """Write one record. Raises `OutputError`."""

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.output.close()


class JsonLines(Sink):
    """One JSON object per record and line, ASCII, the summary last."""

    has_windows = True

    def write(self, record: Record) -> None:
        """Write one record. Raises `OutputError`."""
        self.output.write(json.dumps(record.to_dict(), allow_nan=False) + "\n")


class Csv(Sink):
    """One row per record under a fixed header. The summary is no row; see `summary_line`."""

    has_summary = False
    has_claims = False

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        if output.is_empty:
            self.output.write(",".join(CSV_COLUMNS) + "\n")

    def write(self, record: Record) -> None:
        """Write one record. Raises `OutputError`."""
        if isinstance(record, SummaryRecord):
            return
        row = io.StringIO()
        csv.DictWriter(row, CSV_COLUMNS, lineterminator="\n").writerow(record.to_dict())
        self.output.write(row.getvalue())


class Table(Sink):
    """Aligned columns for people: a row per image, video file and error; of a live source, per change."""

    _COLOURS = {  # noqa: RUF012
        **{"ai": "red", "real": "green", "unsure": "yellow", "error": "magenta"},
        **{"claim": "bright_black", "conflict": "yellow"},
        **{"connecting": "cyan", "live": "cyan", "stalled": "magenta", "lost": "magenta"},
    }

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._steady: dict[str, str] = {}  # of live sources
        self._coloured = output.is_terminal and "NO_COLOR" not in os.environ
        self.output.write(_row("VERDICT", "PROBABILITY", "MAX", "FRAMES", "SOURCE"))

    def write(self, record: Record) -> None:
        """Write one record, or leave it out. Raises `OutputError`."""
        if isinstance(record, ImageRecord):
            self._write(record.verdict, f"{record.probability:.4f}", "-", "-", _with_reason(record))
            self._write_claims(record)
        elif isinstance(record, VideoRecord):
            cells = f"{record.probability:.4f}", f"{record.peak:.4f}", str(record.frames), _with_reason(record)
            self._write(record.verdict, *cells)
            self._write_claims(record)
        elif isinstance(record, StateRecord):
            self._steady.pop(record.source, None)
            detail = f" ({record.detail})" if record.detail else ""
            self._write(record.state, "-", "-", "-", f"{_clock(record.time)} {record.source}{detail}")
        elif isinstance(record, FrameRecord):
            self._change(record)
        elif isinstance(record, ErrorRecord):
            self._write("error", "-", "-", "-", record.error)
        elif isinstance(record, SummaryRecord):
            self.output.write(summary_line(record) + "\n")

    def _write_claims(self, record: ImageRecord | VideoRecord) -> None:
        """Write a row for each claim of the file, and for each contradiction."""
        for claim in record.claims or ():
            self._write("claim", "-", "-", "-", f"{record.source}: {claim.source}: {claim.text}")
        for text in contradictions(record.claims or (), record.verdict):
            self._write("conflict", "-", "-", "-", f"{record.source}: {text}")

    def _change(self, record: FrameRecord) -> None:
        if record.age is not None and self._steady.get(record.source) != record.steady:
            self._steady[record.source] = record.steady
            where = f"{_clock(record.time)} {record.source}"
            self._write(record.steady, f"{record.smoothed:.4f}", f"{record.probability:.4f}", "-", where)

    def _write(self, verdict: str, *cells: str) -> None:
        row = _row(verdict, *cells)
        if self._coloured:
            import click

            row = click.style(row[: len(verdict)], fg=self._COLOURS[verdict]) + row[len(verdict) :]
        self.output.write(row)


def _with_reason(record: ImageRecord | VideoRecord) -> str:
    notes = [text for text in (record.reason, record.note if isinstance(record, VideoRecord) else None) if text]
    return f"{record.source} ({'; '.join(notes)})" if notes else record.source


def _clock(seconds: float) -> str:
    return time.strftime("%H:%M:%S", time.localtime(seconds))


def _row(verdict: str, probability: str, largest: str, frames: str, source: str) -> str:
    # A file name may hold line ends and terminal control sequences.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in source)
    return f"{verdict:<10}  {probability:>11}  {largest:>6}  {frames:>6}  {shown}\n"


def summary_line(summary: SummaryRecord) -> str:
    """Return the totals of a run in one line for people."""
    skipped = f", {summary.skipped} skipped" if summary.skipped else ""
    ignored = f", {summary.ignored} ignored" if summary.ignored else ""
    dropped = f", {summary.dropped} dropped" if summary.dropped else ""
    reconnects = f", {summary.reconnects} reconnects" if summary.reconnects else ""
    given_up = f", {summary.given_up} given up" if summary.given_up else ""
    return (
        f"{summary.read} read: {summary.scored} scored, {summary.failed} failed{skipped}{dropped}{ignored}"
        f"{reconnects}{given_up} in {summary.seconds:.1f} s with {summary.model}"
    )


FORMATS: dict[str, type[Sink]] = {"table": Table, "jsonl": JsonLines, "csv": Csv}
"""Name of a format, as `asr-screen --format` takes it -> the class that writes it."""


def make_sink(name: str, output: Output) -> Sink:
    """Make the sink of a format (`table`, `jsonl`, `csv`).

    Raises:
        OutputError: the header cannot be written.
    """
    return FORMATS[name](output)
