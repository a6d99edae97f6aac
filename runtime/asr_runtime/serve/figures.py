"""Figures of the server for Prometheus, beside those of the records."""

from __future__ import annotations

from typing import Any

from asr_runtime.reports.prometheus import Figures
from asr_runtime.serve.screener import Screener
from asr_runtime.serve.uploads import Budget

__all__ = ["server_figures"]

_SECONDS = (0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 30, 60, 120)


def server_figures(screener: Screener, budget: Budget) -> tuple[Figures, Any, Any]:
    """Make the metrics of the server.

    Args:
        screener: whose queue is measured whenever the metrics are read.
        budget: whose bytes are.

    Returns:
        The figures of records; a counter of requests with the label `status`; a histogram of the seconds from a
        complete upload to the last record.

    Raises:
        DependencyError: prometheus-client is not installed.
    """
    figures = Figures()
    from prometheus_client import Counter, Gauge, Histogram  # `Figures` says which extra is missing

    registry = figures.registry
    requests = Counter("asr_requests", "Requests to screen, by HTTP status.", ("status",), registry=registry)
    seconds = Histogram(
        "asr_request_seconds", "From a complete upload to its last record.", registry=registry, buckets=_SECONDS
    )
    open_jobs = Gauge("asr_requests_open", "Requests that are screened or wait for it.", registry=registry)
    open_jobs.set_function(lambda: screener.open_jobs)
    upload_bytes = Gauge("asr_upload_bytes", "Bytes of uploads in memory.", registry=registry)
    upload_bytes.set_function(lambda: budget.bytes)
    return figures, requests, seconds
