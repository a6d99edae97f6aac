"""asr-train."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from asr_models import ModelsError
from asr_runtime.command import FILE, FOLDER, command
from asr_runtime.errors import ConfigurationError
from asr_train.commands.network_help import ARGUMENTS, AUGMENTATION, NETWORK, HelpOfTheNetwork
from asr_train.commands.options import (
    by_position_option,
    data_option,
    layout_option,
    log_to_stderr,
    quality_or_off,
)
from asr_train.fitting.config import (
    FAMILY_PROTOCOLS,
    PROTOCOLS,
    ClosedFormConfig,
    LoopConfig,
    TrainConfig,
    changed_preprocess,
    recipe,
)
from asr_train.fitting.config_file import read_config

if TYPE_CHECKING:
    from asr_train.fitting.ranks import Ranks
    from asr_train.fitting.run_folder import Run

__all__ = ["train_command"]


@command("asr-train", refusals=(ModelsError,), kind=HelpOfTheNetwork)
@click.option(
    "--model", default="asrnet", help="asrnet, asrnet-lite, or fft- and a torchvision backbone: fft-resnet34."
)
@click.option(
    "--config",
    type=FILE,
    metavar="FILE.toml",
    help="Configuration, for example config.toml of a run folder; options given beside it win.",
)
@data_option
@layout_option
@by_position_option
@click.option("--leave-out", multiple=True, metavar="SOURCE", help="Source to leave out of every split; repeatable.")
@click.option(
    "--per-source",
    type=(int, int),
    metavar="TRAIN VAL",
    help="Use at most so many training and validation images of each class of every source.  [default: all]",
)
@click.option(
    "--protocol",
    type=click.Choice(["seen", *PROTOCOLS, *FAMILY_PROTOCOLS, "learning-curves"]),
    default="seen",
    help="What is judged: sources seen in training, or sources left out, one training for each.",
)
@click.option(
    "--degrade",
    type=(str, float),
    multiple=True,
    metavar="FAMILY STRENGTH",
    help="leave-one-generator-out: judge degraded pictures as well, for example `jpeg 75`; repeatable.",
)
@click.option(
    "--resume",
    type=FOLDER,
    metavar="RUN",
    help="Continue a run folder; only --epochs, --data and --devices may change.",
)
@click.option("--tracker", type=click.Choice(["mlflow"]), help="Log the run there as well; TensorBoard always.")
@click.option(
    "--tracking-uri",
    metavar="URL",
    help="MLflow server, or sqlite:///FILE.  [default: mlflow.db in the folder of runs]",
)
@click.option("--runs", type=FOLDER, default="runs", help="Folder in which run folders are made.")
@click.option(
    "--equalise",
    callback=quality_or_off,
    metavar="QUALITY|off",
    default="90",
    help="JPEG quality at which validation and calibration images are re-encoded first.",
)
@click.option("--batch-size", type=int, help="[default: the network's recipe]")
@click.option("--seed", type=int, default=42)
@click.option("--workers", type=int, default=2, help="Processes that read and augment images.")
@click.option("--devices", type=click.IntRange(min=1), default=1, help="Processes on this machine, each with its GPU.")
@click.option("--nodes", type=click.IntRange(min=1), default=1, help="Machines that train together.")
@click.option(
    "--strategy", type=click.Choice(["ddp"]), default="ddp", help="How processes share the work: each has all weights."
)
@click.option("--threads", type=int, help="Threads of the network.  [default: PyTorch's choice]")
@click.option("--dim", type=int, help="Width.  [default: 64]")
@click.option("--prototypes", type=int, help="Centres of the AI class.  [default: 5]")
@click.option(
    "--front-end",
    type=click.Choice(["zero-sum", "official"]),
    help="Residual kernels: exactly zero-sum, or as published.  [default: zero-sum]",
)
@click.option("--spectrum", type=click.Choice(["global", "patch"]), help="Transform of the image.  [default: global]")
@click.option("--patch", type=int, help="Side of a patch in pixels.  [default: 32]")
@click.option("--freeze/--no-freeze", default=None, help="Freeze the early layers.  [default: if pretrained]")
@click.option("--blocks", type=int, help="Blocks of the trunk that are used.  [default: 15]")
@click.option(
    "--activations",
    type=(int, int),
    help="First and last block whose rectified responses are used as well.  [default: none]",
)
@click.option(
    "--correlations",
    type=int,
    help="How many of the first blocks have the correlations of every two maps used as well.  [default: 0]",
)
@click.option("--scales", type=int, multiple=True, help="Magnification of the input; repeatable.  [default: 1]")
@click.option("--weights", help="Pretrained weights: imagenet, none, or a state-dict file.  [default: imagenet]")
@click.option(
    "--preprocess",
    type=click.Choice(["crop", "resize-crop", "squash"]),
    help="How an image becomes the input.  [default: the network's]",
)
@click.option("--crop-size", type=int, help="Side of the network's input in pixels.  [default: the network's]")
@click.option("--epochs", type=int, help="[default: the network's published recipe]")
@click.option("--epoch-size", type=int, help="Images drawn per epoch.  [default: as many as there are]")
@click.option(
    "--balance",
    type=click.Choice(["sources", "classes", "none"]),
    help="What is drawn equally often.  [default: sources]",
)
@click.option("--lr", type=float, help="Learning rate.  [default: recipe]")
@click.option("--weight-decay", type=float, help="[default: recipe]")
@click.option("--label-smoothing", type=float, help="[default: recipe]")
@click.option("--warmup-epochs", type=float, help="Linear warm-up.  [default: recipe]")
@click.option("--clip", type=float, help="Largest gradient norm; 0 for no limit.  [default: 1]")
@click.option("--schedule", type=click.Choice(["cosine", "plateau"]), help="[default: recipe]")
@click.option(
    "--monitor",
    type=click.Choice(["auroc", "acc", "f1", "loss"]),
    help="Validation score that chooses the best epoch.  [default: recipe]",
)
@click.option("--patience", type=int, help="Epochs without a better score before stopping.  [default: recipe]")
@click.option(
    "--amp",
    type=click.Choice(["auto", "on", "off", "bf16"]),
    help="16-bit mixed precision.  [default: auto, on CUDA and on processors with bfloat16 instructions]",
)
@click.option("--accumulate", type=int, help="Parts in which a batch is computed one after the other.  [default: 1]")
@click.option(
    "--save-every",
    type=int,
    metavar="BATCHES",
    help="Batches after which an unfinished epoch can be resumed.  [default: whole epochs only]",
)
@click.option(
    "--windows", type=int, help="Windows of every image: 1 (the centre), 5 or 9 (over all of it).  [default: 1]"
)
@click.option("--top", type=int, help="Average only so many of the windows' largest margins.  [default: all]")
@click.option(
    "--families",
    metavar="FILE",
    help="CSV with source, label, family, year.  [default: families.csv in or beside the data folder]",
)
@click.option("--views", type=int, help="Augmented views of every training image.  [default: 2]")
@click.option("--plain-weight", type=float, help="Weight of the windows without augmentation, 0 to 1.  [default: 0.4]")
@click.option("--ridge", type=float, help="Penalty, relative to each feature's variance.  [default: 0.03]")
@click.option("--pairs", metavar="DIR", help="Content-matched pairs that asr-resynthesise made.")
@click.option("--pair-weight", type=float, help="Weight of all pairs against all images.  [default: 0.1]")
@click.option("--flip/--no-flip", default=None, help="Mirror.  [default: on]")
@click.option("--rotation", type=click.Choice(["quarter", "free", "none"]), help="[default: quarter; published: free]")
@click.option("--reencode", type=float, help="Probability of JPEG or WebP.  [published: 0]")
@click.option("--quality", type=(int, int), help="Lowest and highest quality of the re-encoding.")
@click.option("--resize", type=float, help="Probability of another resolution.  [published: 0]")
@click.option("--history", type=float, help="Probability of one more re-encoding before that.  [default: 0]")
@click.option("--blur", type=float, help="Probability of blur.  [published: 0]")
@click.option("--noise", type=float, help="Probability of noise.  [published: 0]")
@click.option("--edit", type=float, help="Probability of an edit that people make: colours, filters, captions.")
@click.option("--patch-mask", type=float, help="Probability of masked patches.  [published: 0.5]")
def train_command(**options: Any) -> None:
    """Train a detector.

    Writes a run folder with checkpoint_MODEL.pth: the best epoch, calibrated on the validation split (asrnet-lite: the
    solved head, calibrated on training images of sources that it had not seen).
    """
    from asr_train.fitting.launch import launch
    from asr_train.fitting.ranks import is_rank, joined_ranks
    from asr_train.fitting.run_folder import how_to_go_on

    options.pop("strategy")
    devices, nodes = options.pop("devices"), options.pop("nodes")
    progress = log_to_stderr().is_terminal
    if devices * nodes > 1 and not is_rank():
        if options["protocol"] != "seen":
            raise ConfigurationError(f"--protocol {options['protocol']}: trains in one process; leave out --devices")
        launch(click.get_current_context().meta[ARGUMENTS], devices, nodes, how_to_go_on)
        return
    with joined_ranks() as ranks:
        if not ranks.is_first:
            logging.getLogger("asr_train").setLevel(logging.WARNING)
        _run(options, progress and ranks.is_first, ranks)


def _run(options: dict[str, Any], progress: bool, ranks: Ranks) -> None:
    """Train, or judge by a protocol, in one of the processes that train together."""
    from asr_train.data.degradations import degradation
    from asr_train.fitting.fit import resume, train
    from asr_train.protocols.learning_curves import learning_curves
    from asr_train.protocols.leave_out import leave_out_protocol

    folder, runs, protocol = options.pop("resume"), options.pop("runs"), options.pop("protocol")
    tracker, address = options.pop("tracker"), options.pop("tracking_uri")
    degraded = [degradation(*given) for given in options.pop("degrade")]
    if degraded and protocol not in PROTOCOLS:
        raise ConfigurationError("--degrade: give it with --protocol leave-one-generator-out")
    if address is not None and tracker is None:
        raise ConfigurationError("--tracking-uri: give it with --tracker mlflow")
    if tracker is not None and protocol != "seen":
        raise ConfigurationError(f"--tracker: a protocol ({protocol}) has no run folder; leave it out")
    if folder is not None:
        context = click.get_current_context()
        _refuse_beside_resume(context)
        moved = context.get_parameter_source("data") is ParameterSource.COMMANDLINE
        moved_to = options["data"] if moved else None
        run = resume(folder, options["epochs"], moved_to, progress=progress, ranks=ranks)
        _say_where(run, ranks)
        return
    config = _configuration(options)
    ranks.from_first(lambda: _look_at_data(config, progress))
    if protocol == "learning-curves":
        click.echo(json.dumps(learning_curves(config, runs, progress=progress), indent=2))
        return
    if protocol in FAMILY_PROTOCOLS:
        click.echo(json.dumps(_by_families(protocol, config, runs, progress), indent=2))
        return
    if protocol != "seen":
        figures = leave_out_protocol(protocol, config, runs, progress=progress, degradations=degraded)
        click.echo(json.dumps(figures, indent=2))
        return
    mlflow = (address or f"sqlite:///{(runs / 'mlflow.db').absolute()}") if tracker else None
    _say_where(train(config, runs, progress=progress, ranks=ranks, mlflow=mlflow), ranks)


def _say_where(run: Run, ranks: Ranks) -> None:
    if ranks.is_first:
        click.echo(f"{run.checkpoint}: best validation {run.best}")


def _look_at_data(config: TrainConfig, progress: bool) -> None:
    """Say what the data folder holds, and what gives its labels away."""
    from asr_train.audit.audit import audit_warning
    from asr_train.data.layouts import find_data
    from asr_train.data.shards import location

    data = find_data(config.data, config.layout, config.labels_by_position)
    log = logging.getLogger("asr_train")
    for line in data.lines():
        log.info("%s: %s", data.root.name, line)
    if "://" in location(data.root):  # 3,000 pictures, here and there, of files that are fetched in large blocks
        log.info("%s: not audited, because it is far away; asr-audit does", data.root.name)
    elif warning := audit_warning(data, progress):
        log.warning(warning)


def _by_families(protocol: str, config: TrainConfig, runs: Path, progress: bool) -> Mapping[str, Any]:
    from asr_train.data.families import FAMILIES_FILE, find_families
    from asr_train.data.layouts import find_data
    from asr_train.protocols.leave_families_out import families_protocol

    if not isinstance(config, ClosedFormConfig):
        raise ConfigurationError(f"{protocol}: {config.model} would be trained many times; use asrnet-lite")
    families = find_families(
        find_data(config.data, config.layout, config.labels_by_position),
        Path(config.families) if config.families else None,
    )
    if families is None:
        raise ConfigurationError(f"{protocol} needs --families FILE, or {FAMILIES_FILE} in or beside {config.data}")
    return families_protocol(protocol, config, families, runs, progress=progress)


def _refuse_beside_resume(context: click.Context) -> None:
    """A resumed run has its configuration already; an option that would be ignored is a mistake."""
    for name in context.params:
        given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if given and name not in ("resume", "epochs", "data", "devices", "nodes", "strategy"):
            flag = "--" + name.replace("_", "-")
            raise ConfigurationError(
                f"{flag}: a resumed run keeps its own configuration; only --epochs, --data and --devices may change"
            )


def _configuration(options: dict[str, Any]) -> LoopConfig | ClosedFormConfig:
    """Sort the flat options into the fields of a configuration; they win over the file of `--config`."""
    file: Path | None = options.pop("config")
    context = click.get_current_context()
    given = {k: v for k, v in options.items() if context.get_parameter_source(k) is ParameterSource.COMMANDLINE}
    fields = read_config(file, given.get("model")) if file else {}
    fields.setdefault("model", options["model"])
    mode, size = given.pop("preprocess", None), given.pop("crop_size", None)
    for table, names in (("options", NETWORK), ("augment", AUGMENTATION)):
        fields[table] = {**fields.get(table, {}), **{k: given.pop(k) for k in names if k in given}}
    fields["preprocess"] = changed_preprocess(fields["model"], fields.get("preprocess", {}), mode, size)
    return recipe(**{**fields, **given, "data": str(given.get("data", fields.get("data", options["data"])))})
