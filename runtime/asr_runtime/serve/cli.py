"""The command `asr-serve`."""

from __future__ import annotations

import contextlib
import os
import webbrowser
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import click

from asr_runtime.command import FOLDER, command, model_options, require_extra, trust_anchors_option
from asr_runtime.errors import ConfigurationError, DependencyError

if TYPE_CHECKING:
    from asr_runtime.provenance.reader import ClaimReader

require_extra("serve", "fastapi", "uvicorn", "python_multipart", "prometheus_client")

__all__ = ["serve_command"]

_MIB = 1 << 20


@command("asr-serve", silences_libraries=True)
@model_options
@click.option(
    "--host", default="127.0.0.1", help="Address to listen on. One that other machines can reach needs --token-file."
)
@click.option("--port", type=click.IntRange(0, 65535), default=8765, help="Port to listen on; 0 is a free one.")
@click.option(
    "--token-file", metavar="FILE", help="File with the token that clients must show, 16 characters at least."
)
@trust_anchors_option
@click.option(
    "--allow-host",
    "hosts",
    multiple=True,
    metavar="NAME",
    help="Host name that clients use for this server, for example behind a proxy.",
)
@click.option(
    "--workers",
    type=click.IntRange(min=1),
    help="Requests that are screened at the same time.  [default: usable cores, at most 4]",
)
@click.option(
    "--queue", type=click.IntRange(min=1), default=64, help="Requests that may wait. The next one is answered 429."
)
@click.option("--max-size", type=click.IntRange(min=1), default=256, metavar="MIB", help="Largest request body.")
@click.option(
    "--max-pixels", type=click.IntRange(min=1), default=1 << 26, metavar="N", help="Largest image, in pixels."
)
@click.option(
    "--time-limit",
    type=click.FloatRange(min=0, min_open=True),
    default=120.0,
    metavar="SECONDS",
    help="Longest screening time of one request. A longer video is scored in part.",
)
@click.option(
    "--browser-demo",
    type=FOLDER,
    metavar="DIR",
    help="Also serve the page that scores pictures in the browser itself, as `make browser-demo` builds it.",
)
@click.option("--open", "opens", is_flag=True, help="Open the page in the browser.")
def serve_command(
    model: str | None,
    sha256: str | None,
    device: str,
    precision: str,
    host: str,
    port: int,
    token_file: str | None,
    trust_anchors: str | None,
    hosts: tuple[str, ...],
    workers: int | None,
    queue: int,
    max_size: int,
    max_pixels: int,
    time_limit: float,
    browser_demo: Path | None,
    opens: bool,
) -> None:
    """Serve a page to drop pictures on, and an HTTP API, on this machine.

    The page, the API and its description (/docs) work without the internet. Uploads stay in memory and are
    deleted after the answer.

    Exit codes: 2 usage, model or device refused; 3 the address cannot be listened on; 130 or 143 stopped by SIGINT or
    SIGTERM.
    """
    from asr_runtime.inference.detector import Detector
    from asr_runtime.machine import usable_cores
    from asr_runtime.reports.access import is_loopback, read_token
    from asr_runtime.serve.limits import Limits
    from asr_runtime.serve.server import run_server

    if not hasattr(os, "memfd_create"):
        raise ConfigurationError("asr-serve needs Linux: it decodes uploads in confined processes, from memory")
    token = None if token_file is None else read_token(token_file)
    if token is None and (hosts or not is_loopback(host)):
        option = "--allow-host" if is_loopback(host) else f"--host {host}"
        raise ConfigurationError(f"{option}: other machines could use this server; protect it with --token-file FILE")
    cores = usable_cores()
    limits = Limits(
        workers=workers or min(4, cores),
        waiting=queue,
        request_bytes=max_size * _MIB,
        upload_bytes=max(1024, 4 * max_size) * _MIB,
        pixels=max_pixels,
        seconds=time_limit,
    )
    threads = max(1, cores // limits.workers)

    def make_detector() -> Detector:
        return Detector(model, device=device, precision=precision, threads=threads, sha256=sha256, deadline=30.0)

    def announce(address: str) -> None:
        click.echo(f"asr-serve: http://{address}/ (the API is described at /docs); Ctrl-C ends it", err=True)
        if opens:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(f"http://{address}/")

    code = run_server(
        make_detector,
        limits,
        f"[{host}]:{port}" if ":" in host else f"{host}:{port}",
        make_reader=_make_reader(trust_anchors),
        token=token,
        hosts=hosts if is_loopback(host) or hosts else None,
        browser_demo=browser_demo,
        announce=announce,
    )
    click.get_current_context().exit(code)


def _make_reader(trust_anchors: str | None) -> Callable[[], ClaimReader] | None:
    """Return what makes readers of claims; None where the extra for it is not installed and was not asked for."""
    from asr_runtime.provenance.reader import ClaimReader, check_claims, read_trust_anchors

    try:
        check_claims()
    except DependencyError:
        if trust_anchors is not None:
            raise
        return None
    anchors = None if trust_anchors is None else read_trust_anchors(trust_anchors)
    return lambda: ClaimReader(anchors)
