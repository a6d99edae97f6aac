"""asr-resynthesise."""

from __future__ import annotations

from typing import Any

import click

from asr_models import ModelsError
from asr_runtime.command import command
from asr_train.commands.options import drawing_options, end_drawing
from asr_train.resynthesis.resynthesise import RESYNTHESISERS

__all__ = ["resynthesise_command"]


@command("asr-resynthesise", refusals=(ModelsError,))
@drawing_options(
    "Folder of the pairs; what it holds is kept.",
    RESYNTHESISERS,
    "Network that redraws the photos; repeatable.",
    side=256,
)
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
            options["ways"],
            options["weights"],
            splits,
            options["side"],
            options["workers"],
            interrupt.stop,
        )
    end_drawing(done, interrupt)
