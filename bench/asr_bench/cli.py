"""The command asr-bench: parse, call one function, print."""

from __future__ import annotations

from pathlib import Path

import click

from asr_runtime.command import command, require_extra

require_extra("bench", "torch", "torchvision", "onnx", "onnxscript")

from asr_models import ModelsError  # noqa: E402 - needs the extra

__all__ = ["bench_command"]


@command("asr-bench", refusals=(ModelsError,))
@click.argument("exported", type=click.Path(dir_okay=False, path_type=Path), metavar="X.onnx")
@click.option("--checkpoint", type=click.Path(dir_okay=False, path_type=Path), help="Compare with eager PyTorch.")
@click.option("--threads", type=click.IntRange(min=1), default=1, help="Threads of every engine.")
@click.option("--rounds", type=click.IntRange(min=2), default=50, help="Samples per engine.")
@click.option("-o", "--output", type=click.Path(file_okay=False, path_type=Path), help="Folder for JSON and Markdown.")
def bench_command(exported: Path, checkpoint: Path | None, threads: int, rounds: int, output: Path | None) -> None:
    """Time an exported file at batch 1, next to the PyTorch it was made from."""
    from asr_bench.latency import measure_latency, write_latency
    from asr_models import load_checkpoint

    loaded = load_checkpoint(checkpoint) if checkpoint else None
    latency = measure_latency(exported, loaded, threads=threads, rounds=rounds)
    if output is not None:
        write_latency(latency, output)
    click.echo(latency.to_markdown(), nl=False)
