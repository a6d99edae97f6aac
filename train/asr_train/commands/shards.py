"""asr-shards."""

from __future__ import annotations

from pathlib import Path

import click

from asr_runtime.command import FOLDER, command
from asr_train.commands.options import by_position_option, data_option, layout_option, log_to_stderr

__all__ = ["shards_command"]


@command("asr-shards")
@data_option
@layout_option
@by_position_option
@click.option("--leave-out", multiple=True, metavar="SOURCE", help="Source to leave out; repeatable.")
@click.option("-o", "--output", type=FOLDER, required=True, help="New folder for tar files and index.")
@click.option("--shard-size", type=click.IntRange(min=1), default=256, metavar="MB", help="Pictures of a tar file.")
@click.option("--seed", type=int, default=42, help="Of the order of the pictures.")
def shards_command(
    data: Path,
    layout: str | None,
    labels_by_position: bool,
    leave_out: tuple[str, ...],
    output: Path,
    shard_size: int,
    seed: int,
) -> None:
    """Write a data folder as tar files (WebDataset) with a Parquet index, for asr-train --data.

    Pictures are dealt to the tar files at random and stay as they are, byte for byte.
    """
    from asr_train.data.layouts import find_data
    from asr_train.data.write_shards import write_shards

    log_to_stderr()
    folder = find_data(data, layout, labels_by_position).without(leave_out)
    written = write_shards(folder, output, shard_size * 10**6, seed)
    pictures = len(folder.train) + len(folder.val) + len(folder.test)
    click.echo(f"{output}: {pictures} pictures in {len(written)} tar files")
