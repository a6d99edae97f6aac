"""Progress of a screening, or of any long loop, on the terminal; always on standard error."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator
from types import TracebackType
from typing import Self, TypeVar

from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, SummaryRecord

__all__ = ["ProgressLine", "progress_bar"]

T = TypeVar("T")

_INTERVAL = 0.1  # seconds between redraws


class ProgressLine:
    """One line with the counts so far; shows nothing when standard error is no terminal."""

    def __init__(self) -> None:
        self._scored = self._failed = 0
        self._drawn = 0.0
        self._progress = None
        if sys.stderr.isatty():
            # Imported here: rich costs a third of the time to the first score.
            from rich.console import Console
            from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

            self._progress = Progress(
                SpinnerColumn(),
                TextColumn("{task.description}", markup=False),
                TimeElapsedColumn(),
                console=Console(stderr=True),
                auto_refresh=False,
                transient=True,
                # rich would send what is printed on standard output to this console, away from its reader.
                redirect_stdout=False,
                redirect_stderr=False,
            )
            self._task = self._progress.add_task("screening")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._progress is not None and self._progress.live.is_started:
            self._progress.stop()

    def count(self, record: Record) -> None:
        """Count one record and redraw now and then."""
        if self._progress is None or isinstance(record, SummaryRecord):
            return
        if isinstance(record, ErrorRecord):
            self._failed += 1
        elif isinstance(record, ImageRecord | FrameRecord):
            self._scored += 1
        now = time.monotonic()
        if now - self._drawn >= _INTERVAL:
            self._drawn = now
            name = record.source if len(record.source) <= 40 else "…" + record.source[-39:]
            name = "".join(c if c.isprintable() else "?" for c in name)
            self._progress.start()  # again, after `cleared`
            text = f"{self._scored} scored, {self._failed} failed · {name}"
            self._progress.update(self._task, description=text, refresh=True)

    @contextlib.contextmanager
    def cleared(self) -> Iterator[None]:
        """Take the line off the screen before a row on the same terminal; `count` draws it again."""
        if self._progress is not None and self._progress.live.is_started:
            self._progress.stop()
        yield


def progress_bar(steps: Iterable[T], title: str, *, total: int | None = None, visible: bool = True) -> Iterable[T]:
    """Iterate with a progress bar on standard error, where that is a terminal.

    Args:
        steps: what to iterate over.
        title: stands before the bar.
        total: number of steps; None: the length of `steps`, if it has one.
        visible: False shows nothing.
    """
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not (visible and console.is_terminal)
    return track(steps, title, total=total, console=console, transient=True, disable=hidden)
