"""asr-tune."""

from __future__ import annotations

import json
import logging
from typing import Any

import click

from asr_runtime.command import FILE, FOLDER, command, require_extra

require_extra(
    "tune",
    *("optuna", "sqlalchemy", "threadpoolctl"),
    *("torch", "torchvision", "lightning", "sklearn", "matplotlib", "jinja2", "msgspec", "tomli_w"),
)

from asr_models import ModelsError  # noqa: E402 - needs the extra
from asr_train.commands.options import log_to_stderr  # noqa: E402

__all__ = ["tune_command"]


@command("asr-tune", refusals=(ModelsError,))
@click.option(
    "--model",
    "models",
    multiple=True,
    default=("asrnet-lite",),
    help="Network to try; repeatable. asrnet-lite is solved in closed form, others are trained by gradient descent.",
)
@click.option("--config", type=FILE, metavar="FILE.toml", help="What all trials have, as asr-train --config reads it.")
@click.option("--data", type=FOLDER, help="Data folder.  [default: the configuration's, else dataset]")
@click.option(
    "--families",
    type=FILE,
    help="CSV with source, label, family, year.  [default: families.csv in or beside the data folder]",
)
@click.option(
    "--judge",
    multiple=True,
    metavar="FAMILY",
    help="Family that judges trials; repeatable.  [default: every second one; the others compare at the end]",
)
@click.option("--at-least", type=int, default=20, help="Validation images that a family needs to judge.")
@click.option("--space", type=FILE, metavar="FILE.toml", help="What may change.  [default: as the documentation says]")
@click.option("--trials", type=click.IntRange(min=1), default=60, help="Trials of the study, earlier ones included.")
@click.option("--jobs", type=click.IntRange(min=1), default=1, help="Processes that run trials.")
@click.option(
    "--margin",
    type=float,
    default=0.02,
    help="A trial ends early if a finished one that costs no more is better by so much; 0 to end none early.",
)
@click.option("--warmup", type=click.IntRange(min=1), default=3, help="Families, or epochs, before a trial may end.")
@click.option("--most-macs", type=float, metavar="MACS", help="Most multiply-adds of the best configuration.")
@click.option(
    "--compare",
    "seeds",
    type=int,
    multiple=True,
    metavar="SEED",
    help="Train the best configuration and the recipe with this seed as well; repeatable.",
)
@click.option("--study", "storage", metavar="FILE|URL", help="Database.  [default: study.db in the output folder]")
@click.option("--name", default="asr-tune", help="Name of the study in the database.")
@click.option("--seed", type=int, default=0, help="Of the sampler.")
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder for the page, configurations and features.")
def tune_command(**options: Any) -> None:
    """Search for a better configuration.

    Writes best.toml, which asr-train --config takes, and study.html: all trials, the Pareto front and what mattered.
    The same command goes on with a study that was stopped; other machines join it with the same --study URL.
    """
    from asr_runtime.whole_file import write_whole
    from asr_train.fitting.config_file import write_config
    from asr_train.tuning.comparison import best_trial, compared, configuration_of
    from asr_train.tuning.page import study_page
    from asr_train.tuning.search import prepared
    from asr_train.tuning.study import FIGURE, MACS, open_study, run_trials

    progress = log_to_stderr().is_terminal
    seeds, most, output = options.pop("seeds"), options.pop("most_macs"), options["output"]
    search, judge, shared = prepared(progress=progress, **options)
    study = open_study(search, judge.data.fingerprint)
    run_trials(search, study, judge, shared, log_to_stderr)
    best = best_trial(study, most)
    write_config(output / "best.toml", configuration_of(best, search))
    if seeds:
        study.set_user_attr("comparison", compared(search, best, seeds, judge, shared))
    page = study_page(study, search, best)
    write_whole(output / "study.html", page)
    log = logging.getLogger("asr_train")
    log.info("wrote %s and %s", output / "study.html", output / "best.toml")
    known = {"trial": best.number, "ca_auroc": best.values[FIGURE], "macs": best.values[MACS], "choices": best.params}
    click.echo(json.dumps(known, indent=2))
