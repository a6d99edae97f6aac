"""Figures of a running screening for Prometheus, and whether it is healthy, over HTTP."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, get_args

from asr_runtime.errors import DependencyError
from asr_runtime.records import ErrorRecord, FrameRecord, ImageRecord, Record, SourceState, StateRecord
from asr_runtime.reports.http_server import Answer, HttpServer

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily

    from asr_runtime.reports.alerts import Alerts

__all__ = ["Figures", "MetricsServer"]

_FILES = "files"  # label of all that is not live: a series for every file of a folder would never end
_AGES = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)  # seconds
_JSON, _TEXT = "application/json", "text/plain; charset=utf-8"


class MetricsServer:
    """Serves `/metrics` (Prometheus) and `/healthz` (JSON; 200, or 503 with the reasons) from a daemon thread.

    Args:
        address: `[HOST:]PORT`; without a host 127.0.0.1, and port 0 is a free one.
        sources: names of the live sources of the run; one that has reported nothing yet is not healthy.
        fresh: seconds after which the newest result of a live source is too old to be healthy.
        alerts: whose undelivered alerts are counted.

    Attributes:
        address: `HOST:PORT` that is served.

    Raises:
        ConfigurationError: the address is none.
        DependencyError: prometheus-client is not installed.
        OutputError: the address cannot be listened on, for one because the port is in use.
    """

    def __init__(
        self, address: str, *, sources: Sequence[str] = (), fresh: float = 10.0, alerts: Alerts | None = None
    ) -> None:
        self._figures = Figures(sources, alerts)
        self._health = _Health(sources, fresh)
        self._server = HttpServer(address, self._answer)
        self.address = self._server.address

    def observe(self, record: Record) -> None:
        """Count one record of the run."""
        self._health.observe(record)
        self._figures.observe(record)

    def close(self) -> None:
        """Stop serving."""
        self._server.close()

    def _answer(self, path: str) -> Answer:
        if path == "/metrics":
            return Answer(200, *self._figures.page())
        if path == "/healthz":
            report = self._health.report()
            return Answer(503 if report["reasons"] else 200, json.dumps(report).encode() + b"\n", _JSON)
        return Answer(404, b"expected /metrics or /healthz\n", _TEXT)


class Figures:
    """The Prometheus metrics of records, in a registry of their own.

    Args:
        sources: names of the live sources.
        alerts: whose undelivered alerts are counted.

    Attributes:
        registry: a `prometheus_client.CollectorRegistry`; further metrics may be registered.

    Raises:
        DependencyError: prometheus-client is not installed.
    """

    def __init__(self, sources: Sequence[str] = (), alerts: Alerts | None = None) -> None:
        try:
            from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
        except ImportError:
            raise DependencyError(
                "metrics: need the package prometheus-client: pip install 'asrnet-edge[live]'"
            ) from None
        registry = self.registry = CollectorRegistry()
        self._live: set[str] = set()
        self._been_live: set[str] = set()

        def of(kind: Any, name: str, text: str, *labels: str, **options: Any) -> Any:
            return kind(f"asr_{name}", text, ("source", *labels), registry=registry, **options)

        self._frames = of(Counter, "frames", "Frames and images that were scored.", "verdict")
        self._errors = of(Counter, "errors", "Inputs or frames that could not be scored.", "kind")
        self._dropped = of(Counter, "dropped_frames", "Frames given up for newer ones because scoring was behind.")
        self._reconnects = of(Counter, "reconnects", "How often a live source came back.")
        self._state = of(Gauge, "source_state", "1 for the state that a live source is in, otherwise 0.", "state")
        self._age = of(Histogram, "frame_age_seconds", "From reception of a live frame to its score.", buckets=_AGES)
        self._last = of(Gauge, "last_result_timestamp_seconds", "Unix time of the newest score.")
        self._probability = of(Gauge, "probability", "P(AI-generated) of the newest frame.")
        self._smoothed = of(Gauge, "smoothed_probability", "P(AI-generated) over the latest frames of the scene.")
        for source in sources:
            self._meet(source)
        if alerts is not None:
            registry.register(_Undelivered(alerts))

    def page(self) -> tuple[bytes, str]:
        """Return the text of all metrics and its content type."""
        from prometheus_client import CONTENT_TYPE_LATEST, generate_latest

        return generate_latest(self.registry), CONTENT_TYPE_LATEST

    def observe(self, record: Record) -> None:
        """Count one record."""
        if isinstance(record, StateRecord):
            self._observe_state(record)
        elif isinstance(record, ErrorRecord):
            self._errors.labels(self._label(record.source), record.kind).inc()
        elif isinstance(record, FrameRecord | ImageRecord):
            self._observe_score(record)

    def _observe_score(self, record: FrameRecord | ImageRecord) -> None:
        source = self._label(record.source)
        self._frames.labels(source, record.verdict).inc()
        self._last.labels(source).set_to_current_time()
        self._probability.labels(source).set(record.probability)
        if isinstance(record, FrameRecord):
            self._smoothed.labels(source).set(record.smoothed)
            if record.age is not None:
                self._age.labels(source).observe(record.age)
                self._dropped.labels(source).inc(record.dropped)

    def _observe_state(self, record: StateRecord) -> None:
        source = record.source
        self._meet(source)
        for state in get_args(SourceState):
            self._state.labels(source, state).set(state == record.state)
        if record.state == "live":
            self._reconnects.labels(source).inc(source in self._been_live)
            self._been_live.add(source)

    def _meet(self, source: str) -> None:
        if source not in self._live:
            self._live.add(source)
            for counter in (self._dropped, self._reconnects):
                counter.labels(source)  # a series that begins at its first increment hides it from rate()

    def _label(self, source: str) -> str:
        return source if source in self._live else _FILES


class _Undelivered:
    """Asks the alerts for their count whenever the metrics are read."""

    def __init__(self, alerts: Alerts) -> None:
        self._alerts = alerts

    def collect(self) -> Iterator[CounterMetricFamily]:
        from prometheus_client.core import CounterMetricFamily

        family = CounterMetricFamily("asr_alerts_undelivered", "Alerts that a target did not get.", labels=["target"])
        for target, count in self._alerts.undelivered.items():
            family.add_metric([target], count)
        yield family


@dataclass(slots=True)
class _Source:
    """What is known of a live source; times are of `time.monotonic()`."""

    state: SourceState = "connecting"
    detail: str = "nothing was reported yet"
    since: float = field(default_factory=time.monotonic)
    result: float | None = None


class _Health:
    """Whether every live source is live and its results are fresh."""

    def __init__(self, sources: Sequence[str], fresh: float) -> None:
        self._sources = {name: _Source() for name in sources}
        self._fresh = fresh
        self._lock = threading.Lock()

    def observe(self, record: Record) -> None:
        with self._lock:
            if isinstance(record, StateRecord):
                source = self._sources.setdefault(record.source, _Source())
                source.state, source.since = record.state, time.monotonic()
                source.detail = f"{record.detail}; given up" if record.given_up else record.detail
            elif isinstance(record, FrameRecord) and record.source in self._sources:
                self._sources[record.source].result = time.monotonic()

    def report(self) -> dict[str, Any]:
        """Return the JSON object of `/healthz`; it is healthy where `reasons` is empty."""
        now = time.monotonic()
        with self._lock:
            reasons = [text for name, source in self._sources.items() if (text := self._reason(name, source, now))]
            sources = {
                name: {
                    "state": source.state,
                    "since": round(now - source.since, 3),
                    "result_age": None if source.result is None else round(now - source.result, 3),
                    "detail": source.detail,
                }
                for name, source in self._sources.items()
            }
        return {"status": "failing" if reasons else "ok", "reasons": reasons, "sources": sources}

    def _reason(self, name: str, source: _Source, now: float) -> str | None:
        if source.state != "live":
            return f"{name}: {source.state}" + (f" ({source.detail})" if source.detail else "")
        newest = source.since if source.result is None else max(source.since, source.result)
        if now - newest > self._fresh:
            return f"{name}: live, but no result for {now - newest:.1f} s, expected one every {self._fresh:g} s"
        return None
