"""asr-composite."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import click

from asr_models import ModelsError
from asr_runtime.command import EXIT_INPUT_FAILED, command
from asr_train.commands.options import FOLDER, layout_option
from asr_train.resynthesis.composites import WAYS

__all__ = ["composite_command"]


@command("asr-composite", refusals=(ModelsError,))
@click.option("--data", type=FOLDER, default="dataset", help="Data folder whose photos are taken.")
@layout_option
@click.option("-o", "--output", type=FOLDER, required=True, help="Folder of the pictures.")
@click.option(
    "--with",
    "ways",
    type=click.Choice(WAYS),
    multiple=True,
    required=True,
    help="What fills the region: a piece of a generated picture, or a network that redraws the photo; repeatable.",
)
@click.option("--weights", type=FOLDER, help="Folder of TAEF2's weights.")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="[default: every split there is]")
@click.option("--side", type=int, default=768, help="Longest side of a picture; of larger photos the middle is taken.")
@click.option("--most", type=int, help="At most so many photos of each split, sources in turn.  [default: all]")
def composite_command(**options: Any) -> None:
    """Make partly generated pictures: photos with one region that a network drew, and a mask that shows it.

    Writes a data folder with one source per way of filling the region, prints its counts as JSON.
    `asr-evaluate --regions` measures a model on it.

    Exit codes: 0 all done; 1 some photo gave no picture; 2 usage, a package or weights missing; 3 output cannot be
    written; 130 or 143 stopped by SIGINT or SIGTERM with all pictures whole.
    """
    from asr_runtime.interrupt import stop_on_signals
    from asr_train.data.layouts import find_data
    from asr_train.resynthesis.composites import composite

    data = find_data(options["data"], options["layout"])
    with stop_on_signals() as interrupt:
        done = composite(
            data,
            options["output"],
            options["ways"],
            options["weights"],
            [options["split"]] if options["split"] else None,
            options["side"],
            options["most"],
            interrupt.stop,
        )
    for why in done.failed.values():
        click.echo(why, err=True)
    click.echo(json.dumps(dataclasses.asdict(done)))
    click.get_current_context().exit(interrupt.exit_code or (EXIT_INPUT_FAILED if done.failed else 0))
