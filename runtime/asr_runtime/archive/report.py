"""What a person sees while an archive is screened: a bar on a terminal, a line now and then in a log."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Self

import click

from asr_runtime.archive.ledger import Account

__all__ = ["ArchiveReport"]

_LOG_SECONDS = 30.0


class ArchiveReport:
    """Shows on standard error how far a run is; a context manager."""

    def __init__(self) -> None:
        self._started = self._logged = time.monotonic()
        self._before: int | None = None  # inputs that an earlier run had screened
        self._bar = None
        if sys.stderr.isatty():
            from rich.console import Console
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:.1f}%"))
            self._bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
            self._task = self._bar.add_task("listing", total=None)

    def __enter__(self) -> Self:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, account: Account, finished: int, chunks: int) -> None:
        """Show how far the run is: what became of the inputs so far, and how many of all chunks are complete."""
        now = time.monotonic()
        if self._before is None:
            self._before = account.inputs
            if account.inputs:
                click.echo(f"asr-screen: {account.inputs} inputs are screened already; going on after them", err=True)
        speed = (account.inputs - self._before) / max(now - self._started, 1e-9)
        text = f"{account.inputs} inputs, {account.scored} scored, {account.failed} failed, {speed:.1f} a second"
        if self._bar is not None:
            self._bar.update(self._task, description=text, completed=finished, total=chunks)
        elif now - self._logged >= _LOG_SECONDS:
            self._logged = now
            click.echo(f"asr-screen: chunk {finished} of {chunks}: {text}", err=True)
