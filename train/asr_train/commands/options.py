"""What several commands share: types of their options, and where log lines go."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal

import click
from rich.console import Console
from rich.logging import RichHandler

from asr_runtime.command import EXIT_INPUT_FAILED, FOLDER
from asr_runtime.interrupt import Interrupt

__all__ = [
    "by_position_option",
    "data_option",
    "drawing_options",
    "end_drawing",
    "layout_option",
    "log_to_stderr",
    "number_or_all",
    "quality_or_off",
]

data_option = click.option("--data", type=FOLDER, default="dataset", help="Data folder.")
layout_option = click.option(
    "--layout",
    type=click.Choice(["folders", "generators"]),
    help="Layout of the data folder.  [default: recognised from its folders]",
)
by_position_option = click.option(
    "--labels-by-position",
    is_flag=True,
    help="Rows of label_test.csv stand in the order of the sorted file names; without it image_id names the file.",
)


def quality_or_off(_: click.Context, param: click.Parameter, value: str) -> int | Literal["off"]:
    """Read a JPEG quality from 1 to 100, or `off`."""
    if value == "off":
        return "off"
    if not value.isdigit() or not 1 <= int(value) <= 100:
        raise click.BadParameter(f"{value!r}: expected a JPEG quality from 1 to 100, or off", param=param)
    return int(value)


def number_or_all(_: click.Context, param: click.Parameter, value: str | None) -> int | Literal["all"] | None:
    """Read a number of images of each class, or `all`."""
    if value is None or value == "all":
        return "all" if value else None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r}: expected a number of images of each class, or all", param=param)
    return int(value)


def log_to_stderr() -> Console:
    """Send the project's log lines to stderr; quieten Lightning's."""
    console = Console(stderr=True)
    handler: logging.Handler
    if console.is_terminal:
        handler = RichHandler(console=console, show_path=False, show_level=False, log_time_format="%H:%M:%S")
    else:  # a log file: no wrapping at 80 columns
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(asctime)s %(message)s", "%H:%M:%S"))
    logger = logging.getLogger("asr_train")
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(logging.INFO)
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    return console


def drawing_options(output: str, ways: Sequence[str], what: str, side: int) -> Callable[..., Callable[..., Any]]:
    """Add the options of commands that let networks draw over the photos of a data folder.

    Args:
        output: help of `-o`.
        ways: choices of `--with`.
        what: help of `--with`; each choice may be given.
        side: default of `--side`, in pixels.
    """

    def decorate(function: Callable[..., Any]) -> Callable[..., Any]:
        for option in (
            click.option("--side", type=int, default=side, help="Longest side of a picture; the middle is taken."),
            click.option(
                "--split", type=click.Choice(["train", "val", "test"]), help="[default: every split there is]"
            ),
            click.option("--weights", type=FOLDER, help="Folder of TAEF2's weights."),
            click.option("--with", "ways", type=click.Choice(ways), multiple=True, required=True, help=what),
            click.option("-o", "--output", type=FOLDER, required=True, help=output),
            layout_option,
            click.option("--data", type=FOLDER, default="dataset", help="Data folder whose photos are taken."),
        ):
            function = option(function)
        return function

    return decorate


def end_drawing(made: Any, interrupt: Interrupt) -> None:
    """Print what was made and which photos failed, and end with the exit code that says so.

    Args:
        made: dataclass with `failed`, photo -> error; printed as JSON.
        interrupt: of the run.
    """
    for why in made.failed.values():
        click.echo(why, err=True)
    click.echo(json.dumps(dataclasses.asdict(made)))
    click.get_current_context().exit(interrupt.exit_code or (EXIT_INPUT_FAILED if made.failed else 0))
