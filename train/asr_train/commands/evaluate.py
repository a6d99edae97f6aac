"""asr-evaluate."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from asr_models import ModelsError
from asr_runtime.command import FILE, FOLDER, command
from asr_train.commands.options import (
    by_position_option,
    data_option,
    layout_option,
    log_to_stderr,
    number_or_all,
    quality_or_off,
)

__all__ = ["evaluate_command"]


@command("asr-evaluate", refusals=(ModelsError,), silences_libraries=True)
@click.option("--model", help="An exported file or built-in model; beside --checkpoint, its network.")
@click.option("--checkpoint", type=FILE, help="A checkpoint.")
@data_option
@layout_option
@by_position_option
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="[default: test if there is one, else val]")
@click.option("--leave-out", multiple=True, metavar="SOURCE", help="Source to leave out; repeatable.")
@click.option(
    "--equalise",
    callback=quality_or_off,
    metavar="QUALITY|off",
    default="90",
    help="JPEG quality every image passes first; the files as they are are measured beside it.",
)
@click.option(
    "--content-data", type=FOLDER, help="What the model was trained on, to hold content fixed.  [default: --data]"
)
@click.option(
    "--robustness",
    callback=number_or_all,
    metavar="N|all",
    help="Measure under every degradation and edit as well, on N images of each class.",
)
@click.option(
    "--degrade",
    "degraded",
    multiple=True,
    metavar="FAMILY",
    help="With --robustness: only this family of degradations or edits; repeatable.  [default: all]",
)
@click.option("--reencoding-shift", is_flag=True, help="Measure the shift of accuracy at JPEG 96 as well.")
@click.option(
    "--look",
    type=click.Choice(["centre", "whole", "auto"]),
    default="centre",
    help="Of an exported file: the centre of each image, windows all over it, or as its card advises.",
)
@click.option(
    "--families",
    type=FILE,
    help="CSV with source, label, family, year.  [default: families.csv in or beside the data folder]",
)
@click.option(
    "--regions",
    is_flag=True,
    help="The data folder is one of asr-composite: compare windows inside generated regions with windows outside.",
)
@click.option("--spectrum", type=click.Choice(["global", "patch"]), help="Of a published Lightning checkpoint.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--batch-size", type=int, default=32)
@click.option("--workers", type=int, default=2, help="Reading processes.")
@click.option("--report", type=FOLDER, help="Where to write.  [default: folder `evaluation` beside the model]")
def evaluate_command(**options: Any) -> None:
    """Measure a checkpoint or an exported file on a data folder.

    Prints the figures and writes metrics.json, report.txt, result.csv and plots.
    """
    from asr_train.evaluation.evaluate import evaluate_model
    from asr_train.evaluation.regions import evaluate_regions, region_lines
    from asr_train.evaluation.report import report_text, write_report

    log_to_stderr()
    report: Path | None = options.pop("report")
    options["equalise"] = None if options["equalise"] == "off" else options["equalise"]
    if options.pop("regions"):
        names = ("model", "data", "split", "equalise", "device")
        click.echo("\n".join(region_lines(evaluate_regions(**{name: options[name] for name in names}))))
        return
    evaluation = evaluate_model(**options)
    folder = report or Path(options["checkpoint"] or options["model"]).parent / "evaluation"
    written = write_report(evaluation, folder)
    click.echo(report_text(evaluation), nl=False)
    click.echo(f"wrote {len(written)} files to {folder}", err=True)
