"""Sends the records of a run to all outputs: results, progress line, alerts, metrics, pictures."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Sequence
from dataclasses import KW_ONLY, dataclass
from typing import Any, TypeGuard

import click
import cv2
import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import OutputError
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, SummaryRecord, VideoRecord
from asr_runtime.redact import redact
from asr_runtime.reports.progress import ProgressLine
from asr_runtime.reports.text import Output, finished_sources, make_sink, summary_line
from asr_runtime.windows import Window

__all__ = ["Outputs"]

Picture = NDArray[np.uint8] | None
ScoreMap = Callable[[NDArray[np.uint8], int], Sequence[Window]]


@dataclass(frozen=True)
class Outputs:
    """Writes every record everywhere it was asked for.

    Args:
        form: `table`, `jsonl` or `csv`.
        output: file for it; None: standard output.
        annotate: Matroska file for videos with the verdict drawn in.
        snapshots: folder for pictures whose verdict is ai.
        evidence: folder for evidence maps of these pictures.
        score_map: `Detector.map`, which scores the windows of the maps.
        alerts: webhook and MQTT URLs.
        metrics: `[HOST:]PORT` of the metrics server.
        live: names of the live sources.
        append: continue the file `output` instead of replacing it.
        done: called with the name of every file when its last record is written.
        view: `[HOST:]PORT` of the live wall.
        token_file: file with the token that viewers of the wall must show.
    """

    form: str
    output: str | None
    _: KW_ONLY
    annotate: str | None = None
    snapshots: str | None = None
    evidence: str | None = None
    score_map: ScoreMap | None = None
    alerts: Sequence[str] = ()
    metrics: str | None = None
    view: str | None = None
    token_file: str | None = None
    live: Sequence[str] = ()
    append: bool = False
    done: Callable[[str], None] | None = None

    def run(self, steps: Generator[tuple[Record, Picture], None, None]) -> SummaryRecord:
        """Write all records and return the last one, the summary.

        Args:
            steps: records with their pictures, as `screening.Screening.with_pictures` gives them.

        Raises:
            OutputError: something could not be written.
            ConfigurationError: an output that cannot be right.
            DependencyError: a package for an output is missing.
        """
        with contextlib.ExitStack() as stack:
            observers = self._observers(stack)
            if self.append and self.output is not None and self.form == "jsonl" and self.done is not None:
                for source in finished_sources(self.output):  # a kill may have come between the two
                    self.done(source)
            sink = stack.enter_context(make_sink(self.form, Output(self.output, append=self.append)))
            stack.enter_context(contextlib.closing(steps))
            progress = stack.enter_context(ProgressLine())
            if sink.output.is_terminal:
                sink.output.around = progress.cleared
            for record, picture in steps:
                progress.count(record)
                sink.write(record)
                try:
                    for observer in observers:
                        observer(record, picture)
                except (cv2.error, MemoryError) as error:
                    raise _unwritten(record, picture, error) from None
                if self.done is not None and _ends_file(record):
                    self.done(record.source)
                if isinstance(record, SummaryRecord):
                    summary = record
        if not sink.has_summary or self.output is not None:
            click.echo(summary_line(summary), err=True)
        return summary

    def _observers(self, stack: contextlib.ExitStack) -> list[Callable[[Record, Picture], None]]:
        """Open what was asked for; it is closed with the stack."""
        observers: list[Callable[[Record, Picture], None]] = []
        alerts = None
        if self.alerts:
            from asr_runtime.reports.alerts import Alerts

            alerts = Alerts(self.alerts, warn=_warn)
            stack.callback(self._last_alerts, alerts)
            observers.append(lambda record, _: alerts.observe(record))
        if self.metrics is not None:
            from asr_runtime.reports.prometheus import MetricsServer

            server = MetricsServer(self.metrics, sources=self.live, alerts=alerts)
            stack.callback(server.close)
            _warn(f"metrics: http://{server.address}/metrics and /healthz")
            observers.append(lambda record, _: server.observe(record))
        if self.view is not None:
            from asr_runtime.reports.access import read_token
            from asr_runtime.reports.wall import Wall
            from asr_runtime.reports.wall_server import WallServer

            wall = Wall(tuple(self.live))
            token = None if self.token_file is None else read_token(self.token_file)
            page = WallServer(wall, self.view, token)
            stack.callback(page.close)
            _warn(f"view: {page.url}" + ("" if token is None else " (it asks for the token of the token file)"))
            observers.append(wall.observe)
        if self.snapshots is not None:
            from asr_runtime.reports.flagged import FlaggedPictures
            from asr_runtime.reports.snapshots import Snapshots

            snapshots = Snapshots(FlaggedPictures(self.snapshots, "snapshot"))
            observers.append(snapshots.observe)
        if self.evidence is not None and self.score_map is not None:
            from asr_runtime.reports.evidence import Evidence
            from asr_runtime.reports.flagged import FlaggedPictures

            maps = Evidence(FlaggedPictures(self.evidence, "evidence map"), self.score_map, warn=_warn)
            observers.append(maps.observe)
        if self.annotate is not None:
            from asr_runtime.reports.annotate import AnnotatedVideo

            video = AnnotatedVideo(self.annotate, warn=_warn)
            stack.callback(video.close)
            observers.append(video.observe)
        return observers

    def _last_alerts(self, alerts: Any) -> None:
        if undelivered := alerts.close():
            _warn(f"alerts: {undelivered} could not be delivered")


def _unwritten(record: Record, picture: Picture, error: cv2.error | MemoryError) -> OutputError:
    height, width = picture.shape[:2] if picture is not None else (0, 0)
    reason = "not enough memory" if isinstance(error, MemoryError) else error.err
    source = record.source if isinstance(record, ImageRecord | FrameRecord) else "a picture"
    return OutputError(f"{source}: {width} x {height} pixels cannot be written ({reason}); scale it down")


def _ends_file(record: Record) -> TypeGuard[ImageRecord | VideoRecord | ErrorRecord]:
    return isinstance(record, ImageRecord | VideoRecord) or (isinstance(record, ErrorRecord) and record.frame is None)


def _warn(line: str) -> None:
    click.echo(redact(line), err=True)
