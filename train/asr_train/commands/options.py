"""What several commands share: types of their options, and where log lines go."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Literal

import click
from rich.console import Console
from rich.logging import RichHandler

__all__ = [
    "FILE",
    "FOLDER",
    "by_position_option",
    "data_option",
    "layout_option",
    "log_to_stderr",
    "number_or_all",
    "quality_or_off",
]

FOLDER = click.Path(file_okay=False, path_type=Path)
FILE = click.Path(dir_okay=False, path_type=Path)

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
