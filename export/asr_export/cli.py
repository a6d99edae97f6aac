"""The commands asr-export and asr-parity: parse, call one function, print."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import click
from rich.console import Console

from asr_runtime.command import FILE, FOLDER, command, require_extra
from asr_runtime.errors import ConfigurationError
from asr_runtime.whole_file import write_whole

require_extra("export", "torch", "torchvision", "onnx", "onnxscript", "matplotlib")

from asr_export.engines import ENGINES  # noqa: E402 - needs the extra
from asr_models import ModelsError  # noqa: E402

if TYPE_CHECKING:
    from asr_export.lower_precision import Precision
    from asr_runtime.contract import ModelCard

__all__ = ["export_command", "parity_command"]

_IMAGES = click.Path(exists=True, file_okay=False, path_type=Path)


def _published_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options that say what a published Lightning checkpoint does not: `--model` and `--spectrum`."""
    for option in (
        click.option("--spectrum", type=click.Choice(["global", "patch"]), help="Of a published Lightning checkpoint."),
        click.option("--model", help="Network of a published Lightning checkpoint: fft-resnet34."),
    ):
        function = option(function)
    return function


@command("asr-export", refusals=(ModelsError,))
@click.argument("checkpoint", type=FILE, metavar="X.pth")
@click.option("-o", "--output", type=FILE, help="The ONNX file to write.")
@click.option(
    "--triton",
    type=FOLDER,
    metavar="DIR",
    help="Write a model repository for Triton Inference Server, too; also of an exported X.onnx instead of X.pth.",
)
@click.option(
    "--quick-look",
    "pictures",
    type=_IMAGES,
    metavar="DIR",
    help="Learn on labelled pictures when a look at the whole picture may stop early; also of an exported X.onnx.",
)
@click.option("--fft", type=click.Choice(["matmul", "dft"]), default="matmul", help="How transforms are written.")
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "int8"]),
    default="fp32",
    help="int8: convolutions in 8 bits. bf16: a float32 file that OpenVINO may compute in bf16. A file whose verdicts "
    "change too often is not written; also of an exported X.onnx.",
)
@click.option("--calibration-images", type=_IMAGES, help="Labelled images (folders nature and ai) to judge it by.")
@click.option("--images", type=_IMAGES, help="Images of the parity check.  [default: those in the package]")
@click.option(
    "--metrics",
    multiple=True,
    metavar="NAME=FILE",
    help="Results for the card, JSON of asr-evaluate or asr-train; NAME says what was tested. Repeatable.",
)
@click.option("--card", "page", type=FILE, help="Write the model card as Markdown, too; also of an exported X.onnx.")
@_published_options
def export_command(
    checkpoint: Path,
    output: Path | None,
    triton: Path | None,
    pictures: Path | None,
    fft: Literal["matmul", "dft"],
    precision: Precision,
    calibration_images: Path | None,
    images: Path | None,
    metrics: tuple[str, ...],
    page: Path | None,
    model: str | None,
    spectrum: str | None,
) -> None:
    """Export a checkpoint to one ONNX file that takes raw frames and returns a calibrated probability.

    Ends with a parity check against PyTorch; a file that fails it is not written (exit code 1).
    """
    from asr_export.onnx_file import export
    from asr_export.triton import write_triton
    from asr_models import load_checkpoint

    if checkpoint.suffix == ".onnx":
        _exported_command(checkpoint, output, triton, pictures, precision, calibration_images, page)
        return
    if output is None:
        raise ConfigurationError("-o: expected the ONNX file to write, -o X.onnx")
    if output.exists() and output.samefile(checkpoint):
        raise ConfigurationError(
            f"-o {output}: is the checkpoint, and would be replaced; expected another file, -o X.onnx"
        )
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    loaded = load_checkpoint(checkpoint, model, {"spectrum": spectrum} if spectrum else None)
    results = dict(_named_results(given) for given in metrics)
    console = Console(stderr=True)
    with console.status("exporting") if console.is_terminal and precision == "fp32" else contextlib.nullcontext():
        card = export(
            loaded,
            output,
            fft=fft,
            precision=precision,
            labelled_images=calibration_images,
            images=images,
            metrics=results,
        )
    if pictures is not None:
        _quick_look(output, pictures, output)
    if triton is not None:
        write_triton(output, triton)
    if page is not None:
        _write_page(page, output, card)
    click.echo(f"{output}: {output.stat().st_size / 1e6:.1f} MB, {card.name}, parity {_figures(card.parity)}")


@command("asr-parity", refusals=(ModelsError,))
@click.argument("checkpoint", type=FILE, metavar="X.pth")
@click.argument("exported", type=FILE, metavar="X.onnx")
@click.option("--images", type=_IMAGES, help="Images and videos to compare on.  [default: images in the package]")
@click.option(
    "--engine",
    "engines",
    type=click.Choice(ENGINES),
    multiple=True,
    help="What computes the file; repeatable. onnx-reference takes seconds a frame.  [default: all others installed]",
)
@click.option("--report", type=FILE, metavar="FILE.json", help="Write all figures there, and FILE.md and FILE.svg.")
@_published_options
def parity_command(
    checkpoint: Path,
    exported: Path,
    images: Path | None,
    engines: tuple[str, ...],
    report: Path | None,
    model: str | None,
    spectrum: str | None,
) -> None:
    """Compare an exported file with its checkpoint, in every engine; exit code 1 beyond the tolerance.

    On real images, video frames and awkward frames; against PyTorch in float32 and float64. A failure names the first
    stage of the network whose error is beyond its budget.
    """
    from asr_export.engines import installed_engines
    from asr_export.parity_inputs import packaged_images
    from asr_export.parity_report import parity_report, write_parity
    from asr_models import load_checkpoint

    loaded = load_checkpoint(checkpoint, model, {"spectrum": spectrum} if spectrum else None)
    result = parity_report(loaded, exported, images or packaged_images(), engines or tuple(installed_engines()))
    if report is not None:
        write_parity(result, report)
    for name, parity in result.verdicts.items():
        click.echo(f"{'passed' if parity.passed else 'FAILED'}: {name}, {parity}")
    if not result.passed:
        where = result.culprit
        click.echo(
            f"first stage beyond its budget of {where.budget:.1e}: {where.name}, {where.relative:.1e}"
            if where
            else "no stage of the file in onnxruntime is beyond its budget: the difference is in another engine, or in "
            "the last step from logits to probability"
        )
        raise SystemExit(1)


def _exported_command(
    exported: Path,
    output: Path | None,
    triton: Path | None,
    pictures: Path | None,
    precision: Precision,
    labelled_images: Path | None,
    page: Path | None,
) -> None:
    """Do what asr-export does for a file that is exported already."""
    from asr_export.lower_precision import gate_of, lower_exported
    from asr_export.triton import write_triton
    from asr_runtime import Detector

    if triton is None and pictures is None and page is None and precision == "fp32":
        raise ConfigurationError(
            f"{exported}: is exported already; expected --triton DIR, --quick-look DIR, --card FILE or --precision "
            "with it"
        )
    if output is None and (pictures is not None or precision != "fp32"):
        raise ConfigurationError("-o: expected the ONNX file to write, -o X.onnx")
    if output is not None and precision != "fp32":
        if labelled_images is None:
            raise ConfigurationError(f"precision {precision}: expected --calibration-images DIR to judge it by")
        card = lower_exported(exported, output, precision, labelled_images)
        click.echo(f"{output}: {precision}, {gate_of(card, precision)}")
        exported = output
    if output is not None and pictures is not None:
        _quick_look(exported, pictures, output)
        exported = output
    if triton is not None:
        click.echo(f"{write_triton(exported, triton)}: model repository of {exported}, the file as it was")
    if page is not None:
        _write_page(page, exported, Detector(exported, device="cpu").card)


def _write_page(page: Path, exported: Path, card: ModelCard) -> None:
    from asr_export.card_text import card_text
    from asr_models import Checkpoint, create_model, multiply_adds

    network = create_model(card.name, **card.options)
    macs = multiply_adds(Checkpoint(card.name, card.options, asdict(card.preprocess), network))
    write_whole(page, card_text(card, exported.stem, exported.stat().st_size, macs), what="the card")


def _quick_look(exported: Path, pictures: Path, output: Path) -> None:
    from asr_export.quick_look import add_quick_look

    result = add_quick_look(exported, pictures, output)
    click.echo(
        f"{output}: quick looks take {result.windows:.0%} of the windows on {result.pictures} other pictures and "
        f"change {result.changed:.1%} of the verdicts, JPEG 96 changes {result.changed_by_jpeg96:.1%}"
    )


def _figures(parity: Any) -> str:
    return f"{parity['logits_relative']:.1e} of the logits' scale on {parity['frames']} frames"


def _named_results(given: str) -> tuple[str, Any]:
    """Read one NAME=FILE of `--metrics`."""
    name, _, path = given.partition("=")
    if not name or not path:
        raise ConfigurationError(f"--metrics {given}: expected NAME=FILE")
    try:
        return name, json.loads(Path(path).read_text())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"--metrics {given}: not a JSON file of results ({error})") from None
