"""asr-composite."""

from __future__ import annotations

from typing import Any

import click

from asr_models import ModelsError
from asr_runtime.command import command
from asr_train.commands.options import drawing_options, end_drawing
from asr_train.resynthesis.composites import WAYS

__all__ = ["composite_command"]


@command("asr-composite", refusals=(ModelsError,))
@drawing_options(
    "Folder of the pictures.",
    WAYS,
    "What fills the region: a piece of a generated picture, or a network that redraws the photo; repeatable.",
    side=768,
)
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
    end_drawing(done, interrupt)
