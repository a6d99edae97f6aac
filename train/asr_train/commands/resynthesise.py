"""asr-resynthesise."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from asr_models import ModelsError
from asr_runtime.command import EXIT_INPUT_FAILED, command
from asr_train.commands.options import FOLDER, layout_option
from asr_train.resynthesis.resynthesise import RESYNTHESISERS

__all__ = ["resynthesise_command"]


@command("asr-resynthesise", refusals=(ModelsError,))
@click.option("--data", type=FOLDER, default="dataset", help="Data folder whose photos are taken.")
@layout_option
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the pairs; what it holds is kept.")
@click.option(
    "--with",
    "names",
    type=click.Choice(RESYNTHESISERS),
    multiple=True,
    required=True,
    help="Network that redraws the photos; repeatable.",
)
@click.option("--weights", type=FOLDER, help="Folder of TAEF2's weights.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="[default: every split there is]")
@click.option("--side", type=int, default=256, help="Longest side of a photo window in pixels.")
@click.option("--workers", type=int, default=1, help="Processes.")
def resynthesise_command(**options: Any) -> None:
    """Make content-matched pairs: windows of photos, and what neural networks make of the same content.

    Writes a data folder with one source per network, prints its counts as JSON. A run that was stopped goes on.

    Exit codes: 0 all done; 1 some photo could not be read; 2 usage, a package or weights missing; 3 output cannot be
    written; 130 or 143 stopped by SIGINT or SIGTERM with all pairs whole.
    """
    from asr_runtime.interrupt import stop_on_signals
    from asr_train.data.layouts import find_data
    from asr_train.resynthesis.resynthesise import resynthesise

    data = find_data(options["data"], options["layout"])
    splits = [options["split"]] if options["split"] else None
    with stop_on_signals() as interrupt:
        done = resynthesise(
            data,
            options["output"],
            options["names"],
            options["weights"],
            splits,
            options["side"],
            options["workers"],
            interrupt.stop,
        )
    for why in done.failed.values():
        click.echo(why, err=True)
    click.echo(json.dumps(dataclasses.asdict(done)))
    click.get_current_context().exit(interrupt.exit_code or (EXIT_INPUT_FAILED if done.failed else 0))
