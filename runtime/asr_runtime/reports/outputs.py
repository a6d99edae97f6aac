"""Where the records of a run of asr-screen go: the results, the progress line, alerts, metrics, pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from asr_runtime.records import Record, SummaryRecord
from asr_runtime.redact import redact
from asr_runtime.reports.progress import ProgressLine
from asr_runtime.reports.text import Output, make_sink, summary_line

__all__ = ["Outputs"]

Picture = NDArray[np.uint8] | None


class Outputs:
    """Writes every record everywhere it was asked for.

    Args:
        form: `table`, `jsonl` or `csv`.
        output: file for it; None: standard output.
        annotate: Matroska file for videos with the verdict drawn in.
        snapshots: folder for pictures that were found to be generated.
        alerts: webhook and MQTT URLs.
        metrics: `[HOST:]PORT` of the metrics server.
        live: names of the live sources.
        view: `[HOST:]PORT` of the live wall.
        token_file: holds what viewers of the wall must present, where other machines can reach it.
    """

    def __init__(
        self,
        form: str,
        output: str | None,
        annotate: str | None = None,
        snapshots: str | None = None,
        alerts: Sequence[str] = (),
        metrics: str | None = None,
        live: Sequence[str] = (),
        view: str | None = None,
        token_file: str | None = None,
    ) -> None:
        self._form, self._output = form, output
        self._annotate, self._snapshots, self._alerts, self._metrics = annotate, snapshots, alerts, metrics
        self._live, self._view, self._token_file = live, view, token_file

    def run(self, steps: Generator[tuple[Record, Picture], None, None]) -> SummaryRecord:
        """Write all records and return the last one, the summary.

        Args:
            steps: records with their pictures, as `screening.screen_with_pictures` gives them.

        Raises:
            OutputError: something could not be written.
            ConfigurationError: an output that cannot be right.
            DependencyError: a package for an output is missing.
        """
        with contextlib.ExitStack() as stack:
            observers = self._observers(stack)
            sink = stack.enter_context(make_sink(self._form, Output(self._output)))
            stack.enter_context(contextlib.closing(steps))
            progress = stack.enter_context(ProgressLine())
            if sink.output.is_terminal:
                sink.output.around = progress.cleared
            for record, picture in steps:
                progress.count(record)
                sink.write(record)
                for observer in observers:
                    observer(record, picture)
                if isinstance(record, SummaryRecord):
                    summary = record
        if self._form == "csv" or self._output is not None:
            click.echo(summary_line(summary), err=True)
        return summary

    def _observers(self, stack: contextlib.ExitStack) -> list[Callable[[Record, Picture], None]]:
        """Open what was asked for; it is closed with the stack."""
        observers: list[Callable[[Record, Picture], None]] = []
        alerts = None
        if self._alerts:
            from asr_runtime.reports.alerts import Alerts

            alerts = Alerts(self._alerts, warn=_warn)
            stack.callback(self._last_alerts, alerts)
            observers.append(lambda record, _: alerts.observe(record))
        if self._metrics is not None:
            from asr_runtime.reports.prometheus import MetricsServer

            server = MetricsServer(self._metrics, sources=self._live, alerts=alerts)
            stack.callback(server.close)
            _warn(f"metrics: http://{server.address}/metrics and /healthz")
            observers.append(lambda record, _: server.observe(record))
        if self._view is not None:
            from asr_runtime.reports.access import read_token
            from asr_runtime.reports.wall import Wall
            from asr_runtime.reports.wall_server import WallServer

            wall = Wall(tuple(self._live))
            token = None if self._token_file is None else read_token(self._token_file)
            page = WallServer(wall, self._view, token)
            stack.callback(page.close)
            _warn(f"view: {page.url}" + ("" if token is None else "?token=... (the token file holds it)"))
            observers.append(wall.observe)
        if self._snapshots is not None:
            from asr_runtime.reports.snapshots import Snapshots

            snapshots = Snapshots(self._snapshots)
            observers.append(snapshots.observe)
        if self._annotate is not None:
            from asr_runtime.reports.annotate import AnnotatedVideo

            video = AnnotatedVideo(self._annotate, warn=_warn)
            stack.callback(video.close)
            observers.append(video.observe)
        return observers

    def _last_alerts(self, alerts: Any) -> None:
        if undelivered := alerts.close():
            _warn(f"alerts: {undelivered} could not be delivered")


def _warn(line: str) -> None:
    click.echo(redact(line), err=True)
