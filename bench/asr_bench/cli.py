"""The command asr-bench: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path

import click

from asr_runtime.command import EXIT_INPUT_FAILED, FILE, FOLDER, command, require_extra

require_extra("bench", "torch", "torchvision", "onnx", "onnxscript", "matplotlib", "PIL")

from asr_bench.engines import ENGINES  # noqa: E402 - needs the extra
from asr_bench.suite import run_suite  # noqa: E402
from asr_bench.suite_parts import PARTS  # noqa: E402
from asr_bench.suite_results import earlier_suite, read_suite  # noqa: E402
from asr_models import ModelsError  # noqa: E402
from asr_runtime.whole_file import write_whole  # noqa: E402

__all__ = ["bench_command"]


@command("asr-bench", refusals=(ModelsError,))
@click.argument("exported", type=FILE, nargs=-1, metavar="[X.onnx [LOWER.onnx]...]")
@click.option("--checkpoint", type=FILE, help="What the file was made from: adds PyTorch and what users write first.")
@click.option(
    "--engine", "engines", type=click.Choice(ENGINES), multiple=True, help="Repeatable.  [default: all there are]"
)
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Threads of every engine.")
@click.option(
    "--rounds", type=click.IntRange(min=1), help="Samples per engine.  [default: 50; --suite: 3, of every part]"
)
@click.option("--batch", "batches", type=click.IntRange(min=2), multiple=True, help="Batch size to time; repeatable.")
@click.option(
    "--end-to-end",
    "source",
    type=click.Path(exists=True, path_type=Path),
    metavar="SOURCE",
    help="Time decoding, inference and both on these files, too.",
)
@click.option("--looks", is_flag=True, help="Time looks at the centre, at the whole picture, and evidence maps, too.")
@click.option(
    "--quality",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    metavar="DIR",
    help="Labelled images (folders real or nature, and ai): AUROC and changed verdicts of every engine, too.",
)
@click.option(
    "--loader",
    metavar="DIR",
    help="Time how fast pictures of a data folder reach a training of ASRNet; needs no X.onnx.",
)
@click.option(
    "--workers", type=click.IntRange(min=1), help="--loader: reading processes.  [default: one for each processor]"
)
@click.option(
    "--suite",
    is_flag=True,
    help="Run all benchmarks of speed in turn: folders, starts, cameras, training and more; needs no X.onnx.",
)
@click.option("--part", "parts", type=click.Choice(list(PARTS)), multiple=True, help="--suite: this part; repeatable.")
@click.option("--quick", is_flag=True, help="--suite: as little work as possible; shows that it runs.")
@click.option(
    "--against",
    type=click.Path(path_type=Path),
    metavar="FILE.json",
    help="Compare with an earlier benchmark.json; with --suite, with the file of an earlier run, or with the one in a "
    "folder that was measured on this kind of machine.",
)
@click.option("-o", "--output", type=FOLDER, help="Folder for JSON, table, picture.")
def bench_command(
    exported: tuple[Path, ...],
    checkpoint: Path | None,
    engines: tuple[str, ...],
    threads: int,
    rounds: int | None,
    batches: tuple[int, ...],
    source: Path | None,
    looks: bool,
    quality: Path | None,
    loader: str | None,
    workers: int | None,
    suite: bool,
    parts: tuple[str, ...],
    quick: bool,
    against: Path | None,
    output: Path | None,
) -> None:
    """Time an exported file beside what it replaces: every engine in its own process, in turns.

    Further files, X.onnx in a lower precision for one, run beside it.

    Engines that do not give the same probability are not timed (exit code 1).
    """
    if (parts or quick) and not suite:
        raise click.UsageError("--part and --quick belong to --suite.")
    if not exported and loader is None and not suite:
        raise click.UsageError("Missing argument 'X.onnx'; --loader DIR and --suite need none.")
    if suite:
        if exported or loader is not None:
            raise click.UsageError("--suite runs alone: without X.onnx and --loader.")
        _run_suite(parts, rounds or 3, quick, against, output)
        return
    if loader is not None:
        _time_loader(loader, workers, output)
    if not exported:
        return
    from asr_bench.benchmark import benchmark
    from asr_bench.end_to_end import end_to_end
    from asr_bench.engines import available
    from asr_bench.looks import look_costs
    from asr_bench.report import changes, markdown, write_benchmark
    from asr_export.precision_gate import labelled_halves
    from asr_models import load_checkpoint

    loaded = load_checkpoint(checkpoint) if checkpoint else None
    chosen = engines or tuple(available(loaded is not None))
    images = labelled_halves(quality)[1] if quality else None
    measured = benchmark(exported, checkpoint, loaded, chosen, threads, rounds or 50, batches, images)
    pipeline = end_to_end(exported[0], source, threads) if source else None
    costs = look_costs(exported[0], threads) if looks else None
    if output is not None:
        write_benchmark(measured, output, pipeline, costs)
    click.echo(markdown(measured, pipeline, costs), nl=False)
    if against is not None:
        click.echo("\n" + changes(measured, against), nl=False)


def _time_loader(root: str, workers: int | None, output: Path | None) -> None:
    require_extra("train", "lightning", "pyarrow", "fsspec", "webdataset")
    from asr_bench.loader import loader_figures

    figures = loader_figures(root, workers)
    if output is not None:
        figures.write(output)
    click.echo(figures.to_markdown(), nl=False)


def _run_suite(parts: tuple[str, ...], rounds: int, quick: bool, against: Path | None, output: Path | None) -> None:
    from asr_bench.suite_report import suite_markdown, write_pictures

    earlier = earlier_suite(against) if against is not None else None
    suite = run_suite(parts, rounds, quick=quick, keep=None if output is None else lambda done: done.write(output))
    click.echo(suite_markdown(suite, earlier), nl=False)
    if output is not None:
        written = suite.write(output)
        whole = read_suite(written)
        write_whole(written.with_suffix(".md"), suite_markdown(whole), what="results")
        write_pictures(suite, written.with_suffix(""), earlier)
    if any(part.problem.startswith("failed") for part in suite.parts.values()):
        raise SystemExit(EXIT_INPUT_FAILED)
