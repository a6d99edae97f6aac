"""asr-register."""

from __future__ import annotations

from pathlib import Path

import click

from asr_runtime.command import FILE, FOLDER, command
from asr_runtime.errors import ConfigurationError

__all__ = ["register_command"]


@command("asr-register")
@click.argument("run", type=FOLDER)
@click.argument("model", type=FILE)
@click.option("--report", type=FOLDER, help="Folder that asr-evaluate wrote; its files are added.")
@click.option("--name", help="Of the model in the registry.  [default: the name in its card]")
def register_command(run: Path, model: Path, report: Path | None, name: str | None) -> None:
    """Add an exported file to its run in MLflow, and register it.

    RUN is the folder of a run of asr-train --tracker mlflow, MODEL the file that asr-export wrote. The file, its
    card and the report become artefacts of that run, and the model gets a version in the registry.
    """
    from asr_runtime import Detector
    from asr_train.tracking.mlflow_run import register

    if report is not None and not report.is_dir():
        raise ConfigurationError(f"--report {report}: no such folder; expected one that asr-evaluate wrote")
    card = Detector(model, device="cpu").card
    name = name or card.name
    version = register(run, model, card.to_json(), report, name)
    click.echo(f"{model}: version {version} of {name}")
