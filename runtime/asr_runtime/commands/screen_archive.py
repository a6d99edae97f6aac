"""asr-screen --ray: which options fit, and the run on a cluster."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from asr_runtime.command import EXIT_INPUT_FAILED, require_extra
from asr_runtime.errors import ConfigurationError
from asr_runtime.interrupt import stop_on_signals

if TYPE_CHECKING:
    pass

__all__ = ["ADDRESS", "refuse_with_ray", "screen_with_ray"]

ADDRESS = re.compile(r"local|auto|ray://\S+|[\w.-]+:\d+|\[[0-9a-fA-F:]+\]:\d+")
"""Address of a Ray cluster: a host with its port, a client's URL, or one of two words."""


_WITH_RAY = (
    "sources",
    "ray",
    "model",
    "sha256",
    "device",
    "form",
    "output",
    "fps",
    "deadline",
    "look",
    "windows",
    "chunk",
)


def refuse_with_ray(context: click.Context) -> None:
    """Refuse options that have no meaning on a cluster.

    Raises:
        ConfigurationError: one of them is there.
    """
    for parameter in context.command.params:
        is_given = context.get_parameter_source(parameter.name or "") not in (ParameterSource.DEFAULT, None)
        if is_given and parameter.name not in _WITH_RAY:
            raise ConfigurationError(
                f"{parameter.opts[0]}: cannot be combined with --ray, which screens files in chunks"
            )


def screen_with_ray(
    sources: tuple[str, ...], address: str, form: str, folder: str | None, sha256: str | None, options: dict[str, Any]
) -> None:
    """Screen on a cluster, print the account, set the exit code."""
    require_extra("ray", "ray", "pyarrow", "fsspec")
    from asr_runtime.archive.report import ArchiveReport
    from asr_runtime.archive.screen_archive import screen_archive
    from asr_runtime.inference.detector import Detector
    from asr_runtime.reports.text import summary_line

    if form not in ("jsonl", "parquet"):
        raise ConfigurationError(f"--format {form}: with --ray expected jsonl or parquet")
    if folder is None:
        raise ConfigurationError("--ray: expected -o DIR, the folder for the records; every node must reach it")
    with stop_on_signals() as interrupt:
        detector = Detector(options["model"], device=options["device"], threads=1, sha256=sha256)
        with ArchiveReport() as report:
            summary = screen_archive(
                sources,
                detector,
                folder,
                address=address,
                form="parquet" if form == "parquet" else "jsonl",
                stop=interrupt.stop,
                progress=report.show,
                **options,
            )
    click.echo(summary_line(summary), err=True)
    if interrupt.exit_code is not None:
        click.echo("asr-screen: stopped; the same command line goes on", err=True)
    click.get_current_context().exit(interrupt.exit_code or (EXIT_INPUT_FAILED if summary.failed else 0))
