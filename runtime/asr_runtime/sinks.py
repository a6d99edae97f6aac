"""Records -> text: a table for people, JSON lines and CSV for machines. One line at a time, flushed."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import TracebackType
from typing import Self, TextIO

from asr_runtime.contract import Decision
from asr_runtime.errors import OutputError
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, SummaryRecord

__all__ = ["CSV_COLUMNS", "FORMATS", "Output", "Sink", "make_sink", "summary_line"]

CSV_COLUMNS = ("type", "source", "frame", "time", "probability", "verdict", "kind", "error")


class Output:
    """Where text goes: a file, or standard output. Every failure to write is an `OutputError`.

    Args:
        path: file to write, replaced if it exists; None: standard output.

    Attributes:
        is_terminal: people read it directly.
        around: context of each write; where a progress line shares the terminal, it steps aside here.

    Raises:
        OutputError: the file cannot be created.
    """

    def __init__(self, path: str | os.PathLike[str] | None = None) -> None:
        self.name = "standard output" if path is None else os.fspath(path)
        self._owned = path is not None
        try:
            self._stream: TextIO = sys.stdout if path is None else _create(path)
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
        # Python would try to flush the rest at exit, fail again, and end with a code of its own (120).
        sys.stdout = None

    def _failure(self, error: Exception) -> OutputError:
        if isinstance(error, BrokenPipeError):
            return OutputError(f"{self.name}: the reader of the output closed it")
        reason = error.strerror if isinstance(error, OSError) else str(error)
        return OutputError(f"{self.name}: cannot be written ({reason})")


def _create(path: str | os.PathLike[str]) -> TextIO:
    return Path(path).open("w", encoding="utf-8", newline="")


class Sink(ABC):
    """Writes the records of one run; a context manager that closes its output."""

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

    def write(self, record: Record) -> None:
        """Write one record. Raises `OutputError`."""
        self.output.write(json.dumps(record.to_dict(), allow_nan=False) + "\n")


class Csv(Sink):
    """One row per image, frame and error under a fixed header. The summary is no row; see `summary_line`."""

    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self.output.write(",".join(CSV_COLUMNS) + "\n")

    def write(self, record: Record) -> None:
        """Write one record. Raises `OutputError`."""
        if isinstance(record, SummaryRecord):
            return
        row = io.StringIO()
        csv.DictWriter(row, CSV_COLUMNS, lineterminator="\n").writerow(record.to_dict())
        self.output.write(row.getvalue())


class Table(Sink):
    """Aligned columns for people: a row per image, error and video (mean and maximum of its frames)."""

    _COLOURS = {"ai": "red", "real": "green", "unsure": "yellow", "error": "magenta"}  # noqa: RUF012

    def __init__(self, output: Output, decision: Decision) -> None:
        super().__init__(output)
        self._decision = decision
        self._video: _Video | None = None
        self._coloured = output.is_terminal and "NO_COLOR" not in os.environ
        self.output.write(_row("VERDICT", "PROBABILITY", "MAX", "FRAMES", "SOURCE"))

    def write(self, record: Record) -> None:
        """Write one record, or keep it in the sums of its video. Raises `OutputError`."""
        if isinstance(record, FrameRecord):
            if self._video is None or not self._video.goes_on_with(record):
                self._end_video()
                self._video = _Video(record.source)
            self._video.add(record)
            return
        self._end_video()
        if isinstance(record, ImageRecord):
            self._write(record.verdict, f"{record.probability:.4f}", "-", "-", record.source)
        elif isinstance(record, ErrorRecord):
            self._write("error", "-", "-", "-", record.error)
        else:
            self.output.write(summary_line(record) + "\n")

    def _end_video(self) -> None:
        if (video := self._video) is not None:
            self._video = None
            mean = video.total / video.frames
            verdict = self._decision.verdict(mean)
            self._write(verdict, f"{mean:.4f}", f"{video.largest:.4f}", str(video.frames), video.source)

    def _write(self, verdict: str, *cells: str) -> None:
        row = _row(verdict, *cells)
        if self._coloured:
            import click

            row = click.style(row[: len(verdict)], fg=self._COLOURS[verdict]) + row[len(verdict) :]
        self.output.write(row)


class _Video:
    """Sums over the frames of one video, so that a row needs no list of them."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.frames, self.total, self.largest, self._last = 0, 0.0, 0.0, -1

    def goes_on_with(self, record: FrameRecord) -> bool:
        """Whether the record belongs here; the same video given twice begins again at frame 0."""
        return record.source == self.source and record.frame > self._last

    def add(self, record: FrameRecord) -> None:
        self.frames += 1
        self.total += record.probability
        self.largest = max(self.largest, record.probability)
        self._last = record.frame


def _row(verdict: str, probability: str, largest: str, frames: str, source: str) -> str:
    # A file name may hold line ends and terminal control sequences.
    shown = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in source)
    return f"{verdict:<7}  {probability:>11}  {largest:>6}  {frames:>6}  {shown}\n"


def summary_line(summary: SummaryRecord) -> str:
    """Return the account of a run in one line for people."""
    skipped = f", {summary.skipped} skipped" if summary.skipped else ""
    dropped = f", {summary.dropped} dropped" if summary.dropped else ""
    return (
        f"{summary.read} read: {summary.scored} scored, {summary.failed} failed{skipped}{dropped}"
        f" in {summary.seconds:.1f} s with {summary.model}"
    )


FORMATS: dict[str, Callable[[Output, Decision], Sink]] = {
    "table": Table,
    "jsonl": lambda output, decision: JsonLines(output),
    "csv": lambda output, decision: Csv(output),
}


def make_sink(name: str, output: Output, decision: Decision) -> Sink:
    """Make the sink of a format (`table`, `jsonl`, `csv`); `decision` names the verdict of a video's mean.

    Raises:
        OutputError: the header cannot be written.
    """
    return FORMATS[name](output, decision)
