"""The command asr-collect: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from asr_runtime.command import EXIT_INPUT_FAILED, FILE, FOLDER, command

__all__ = ["collect_command"]


@command("asr-collect")
@click.argument("index", type=FILE)
@click.option("-o", "--output", required=True, type=FOLDER, metavar="DIR")
@click.option(
    "--snapshots",
    type=FOLDER,
    metavar="DIR",
    help="Git repositories on this disk: DIR/owner/name.",
)
@click.option("--clone-from", metavar="PREFIX", help="Clone what is not there from PREFIX/owner/name.")
@click.option("--source", "only", multiple=True, metavar="NAME", help="Only this source of the index; repeatable.")
def collect_command(
    index: Path, output: Path, snapshots: Path | None, clone_from: str | None, only: tuple[str, ...]
) -> None:
    """Build a data folder from an INDEX of pictures in public git repositories.

    Every picture is checked against the SHA-256 in the index. A run that was stopped goes on where it was. Nothing is
    fetched unless --clone-from is given.

    Exit codes: 0 every picture is there; 1 some are missing, with the reasons; 2 usage or index; 3 the data folder
    cannot be written.
    """
    from asr_runtime.errors import ConfigurationError
    from asr_train.collection.collect import collect
    from asr_train.collection.index import read_index

    pictures = read_index(index)
    if only:
        known = {picture.source for picture in pictures}
        if unknown := sorted(set(only) - known):
            raise ConfigurationError(f"--source {unknown[0]}: not in {index}; it has {', '.join(sorted(known))}")
        pictures = [picture for picture in pictures if picture.source in only]
    columns = (TextColumn("collecting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("collecting", total=len(pictures))
        collected = collect(
            pictures,
            output,
            snapshots=snapshots,
            clone_from=clone_from,
            advance=lambda count: progress.advance(task, count),
        )
    for line in collected.lines():
        click.echo(line)
    click.get_current_context().exit(0 if collected.is_complete else EXIT_INPUT_FAILED)
