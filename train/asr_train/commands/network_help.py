"""The help of asr-train: the options of the network that --model names, and those of no other."""

from __future__ import annotations

import contextlib
import dataclasses

import click

from asr_models import ModelsError, option_names
from asr_runtime.command import Command
from asr_train.fitting.config import (
    ClosedFormConfig,
    LoopConfig,
    TrainConfig,
    config_type,
)

__all__ = ["ARGUMENTS", "AUGMENTATION", "NETWORK", "HelpOfTheNetwork"]

NETWORK = (
    *("dim", "prototypes", "front_end", "spectrum", "patch", "freeze"),
    *("blocks", "activations", "correlations", "scales"),
)
"""Options of the networks themselves."""


AUGMENTATION = ("flip", "rotation", "reencode", "quality", "resize", "history", "blur", "noise", "edit", "patch_mask")
"""Options of the augmentation."""


ARGUMENTS = f"{__name__}.arguments"
"""Where the context keeps the command line, for the processes that train together."""


class HelpOfTheNetwork(Command):
    """A command whose help shows the options of the network that `--model` names, and those of no other."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Read the network first, because `--help` may come before `--model` and ends the command."""
        with contextlib.suppress(click.UsageError):  # click reports it below
            ctx.meta[ARGUMENTS] = list(args)
            ctx.meta[__name__] = self.make_parser(ctx).parse_args(list(args))[0].get("model")
        return super().parse_args(ctx, args)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in sections: of every training, of the network, of its training, of augmentation."""
        model = ctx.meta.get(__name__) or "asrnet"
        sections: dict[str, list[tuple[str, str]]] = {}
        try:
            section_of = _sections(model)
        except ModelsError as error:
            raise click.UsageError(str(error)) from None
        for param in self.get_params(ctx):
            title = section_of.get(str(param.name), "Options")
            if title is not None and (record := param.get_help_record(ctx)) is not None:
                sections.setdefault(title, []).append(record)
        for title, records in sections.items():
            with formatter.section(title):
                formatter.write_dl(records)
        if model == "asrnet":
            formatter.write_paragraph()
            formatter.write_text("Other networks have other options: asr-train --model asrnet-lite --help")


def _sections(model: str) -> dict[str, str | None]:
    """Return the section of the help in which an option stands; None if this network does not use it."""

    def own_fields(kind: type[TrainConfig]) -> set[str]:
        return {f.name for f in dataclasses.fields(kind)} - {f.name for f in dataclasses.fields(TrainConfig)}

    used = config_type(model)
    how = "closed form" if used is ClosedFormConfig else "gradient descent"
    sections: dict[str, str | None] = dict.fromkeys({*own_fields(LoopConfig), *own_fields(ClosedFormConfig), *NETWORK})
    sections |= dict.fromkeys(own_fields(used), f"Training, {how}")
    sections |= dict.fromkeys([*option_names(model), "weights", "preprocess", "crop_size"], f"Network {model}")
    sections |= dict.fromkeys(AUGMENTATION, "Augmentation")
    if model == "asrnet":
        sections["weights"] = None
    return sections
