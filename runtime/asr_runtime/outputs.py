"""Where the records of a run of asr-screen go: the results, the progress line, alerts, metrics, pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Sequence
from typing import Any

import click
import numpy as np
from numpy.typing import NDArray

from asr_runtime.command import EXIT_GIVEN_UP, EXIT_INPUT_FAILED
from asr_runtime.progress import ProgressLine
from asr_runtime.records import FrameRecord, ImageRecord, Record, SummaryRecord
from asr_runtime.redact import redact
from asr_runtime.sinks import Output, make_sink, summary_line

__all__ = ["Outputs"]


class Outputs:
    """Writes every record everywhere it was asked for.

    Args:
        form: `table`, `jsonl` or `csv`.
        output: file for it; None: standard output.
        annotate: Matroska file for videos with the verdict drawn in.
        snapshots: folder for pictures that were found to be generated.
        alerts: webhook and MQTT URLs.
        metrics: `[HOST:]PORT` of the metrics server.
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
    ) -> None:
        self._form, self._output = form, output
        self._annotate, self._snapshots, self._alerts, self._metrics = annotate, snapshots, alerts, metrics
        self._live = live
        self._picture: tuple[Record, NDArray[np.uint8]] | None = None

    def picture(self, record: ImageRecord | FrameRecord, image: NDArray[np.uint8]) -> None:
        """Take the picture of the record that comes next; for `screening.screen`."""
        self._picture = record, image

    def run(self, records: Generator[Record, None, None]) -> int:
        """Write all records and return the exit code of the run.

        Raises:
            OutputError: something could not be written.
            ConfigurationError: an output that cannot be right.
            DependencyError: a package for an output is missing.
        """
        code = 0
        with contextlib.ExitStack() as stack:
            observers = self._observers(stack)
            sink = stack.enter_context(make_sink(self._form, Output(self._output)))
            stack.enter_context(contextlib.closing(records))
            progress = stack.enter_context(ProgressLine())
            if sink.output.is_terminal:
                sink.output.around = progress.cleared
            for record in records:
                progress.count(record)
                sink.write(record)
                for observer in observers:
                    observer(record)
                if isinstance(record, SummaryRecord):
                    code = EXIT_GIVEN_UP if record.given_up else EXIT_INPUT_FAILED if record.failed else 0
                    summary = summary_line(record)
        if self._form == "csv" or self._output is not None:
            click.echo(summary, err=True)
        return code

    def _observers(self, stack: contextlib.ExitStack) -> list[Any]:
        """Open what was asked for; it is closed with the stack."""
        found: list[Any] = []
        alerts = None
        if self._alerts:
            from asr_runtime.alerts import Alerts

            alerts = Alerts(self._alerts, warn=_warn)
            stack.callback(self._last_alerts, alerts)
            found.append(alerts.observe)
        if self._metrics is not None:
            from asr_runtime.metrics import MetricsServer

            server = MetricsServer(self._metrics, sources=self._live, alerts=alerts)
            stack.callback(server.close)
            _warn(f"metrics: http://{server.address}/metrics and /healthz")
            found.append(server.observe)
        if self._snapshots is not None:
            from asr_runtime.snapshots import Snapshots

            snapshots = Snapshots(self._snapshots)
            found.append(lambda record: snapshots.observe(record, self._image(record)))
        if self._annotate is not None:
            from asr_runtime.annotate import AnnotatedVideo

            video = AnnotatedVideo(self._annotate, warn=_warn)
            stack.callback(video.close)
            found.append(lambda record: video.observe(record, self._image(record)))
        return found

    def _image(self, record: Record) -> NDArray[np.uint8] | None:
        return self._picture[1] if self._picture is not None and self._picture[0] is record else None

    def _last_alerts(self, alerts: Any) -> None:
        if undelivered := alerts.close():
            _warn(f"alerts: {undelivered} could not be delivered")


def _warn(line: str) -> None:
    click.echo(redact(line), err=True)
