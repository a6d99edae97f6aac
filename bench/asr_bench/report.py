"""A benchmark as JSON with every sample, as a Markdown table and as a picture, and the comparison of two benchmarks."""

from __future__ import annotations

import dataclasses
import io
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

from asr_bench.benchmark import Benchmark, figures
from asr_bench.end_to_end import EndToEnd
from asr_bench.engines import OURS
from asr_bench.figures import compare, figures_json
from asr_bench.looks import LookCosts
from asr_bench.quality import Quality
from asr_runtime.errors import ConfigurationError
from asr_runtime.whole_file import write_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.figure import Figure

__all__ = ["changes", "markdown", "quality_svg", "svg", "write_benchmark"]


def markdown(measured: Benchmark, pipeline: EndToEnd | None = None, looks: LookCosts | None = None) -> str:
    """Return the figures as Markdown tables, the conditions below them."""
    lines = [
        "| engine | p50 ms | p95 ms | p99 ms | speed-up | GFLOP/s (of peak) | load s | cold s | peak MB | file MB |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for name, f in figures(measured).items():
        rate = "" if f["gflops"] is None else f"{f['gflops']:.0f} ({f['of_peak']:.0%})"
        lines.append(
            f"| {name} | {f['p50_ms']:.2f} | {f['p95_ms']:.2f} | {f['p99_ms']:.2f} | {f['speedup']:.2f}x | {rate} | "
            f"{f['load_s']:.2f} | {f['cold_s']:.2f} | {f['peak_mb']:.0f} | {f['file_mb']:.1f} |"
        )
    lines += _costs(measured)
    sizes = sorted({size for batches in measured.batches.values() for size in batches})
    if sizes:
        lines += [
            "",
            f"| frames a second | {' | '.join(f'batch {size}' for size in sizes)} |",
            "|---" * (len(sizes) + 1) + "|",
        ]
        for name, batches in measured.batches.items():
            rates = " | ".join(f"{size / np.median(batches[size]):.1f}" for size in sizes)
            lines.append(f"| {name} | {rates} |")
    for table in (pipeline, looks):
        if table is not None:
            lines += ["", *table.to_markdown().splitlines()]
    conditions = {**measured.conditions, "matrix product peak": f"{measured.matmul_gflops:.0f} GFLOP/s"}
    lines += ["", ", ".join(f"{key} {value}" for key, value in conditions.items())]
    return "\n".join(lines) + "\n"


def _costs(measured: Benchmark) -> list[str]:
    """Return the table of quality and energy, as far as they were measured, and where the nodes run."""
    columns: dict[str, list[str]] = {}
    table = figures(measured)
    if measured.quality is not None:
        columns[f"AUROC of {measured.quality.images} images"] = [f"{f['auroc']:.4f}" for f in table.values()]
        columns["verdicts changed"] = [f"{f['verdicts_changed']:.2%}" for f in table.values()]
    if measured.joules is not None:
        columns["J a frame"] = [f"{f['joules']:.3f}" for f in table.values()]
    lines = []
    if columns:
        rows = zip(table, *columns.values(), strict=True)
        lines = ["", f"| engine | {' | '.join(columns)} |", "|---" * (len(columns) + 1) + "|"]
        lines += [f"| {' | '.join(row)} |" for row in rows]
    placed = "; ".join(
        f"{provider} {sum(operators.values())} ({', '.join(f'{n} {op}' for op, n in list(operators.items())[:3])}, ...)"
        for provider, operators in measured.placement.items()
    )
    return [*lines, "", f"nodes of the file in onnxruntime: {placed}"]


def svg(measured: Benchmark) -> str:
    """Draw the distribution of the latencies of every engine."""
    names = list(measured.samples)
    figure, axes = plt.subplots(figsize=(7, 0.55 * len(names) + 1.1), layout="constrained")
    data = [np.array(measured.samples[name]) * 1e3 for name in names]
    axes.boxplot(data, orientation="horizontal", widths=0.5, showfliers=False, medianprops={"color": "#d1603d"})
    for row, values in enumerate(data, 1):
        spread = np.random.default_rng(0).uniform(-0.18, 0.18, len(values))
        axes.plot(values, row + spread, ".", color="#5b7db1", alpha=0.5, markersize=4)
        axes.text(np.median(values), row - 0.3, f"{np.median(values):.1f}", va="bottom", ha="center", fontsize=8)
    axes.set_yticks(range(1, len(names) + 1), names)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("ms from frame to probability, one call a point")
    axes.spines[["top", "right"]].set_visible(False)
    return _drawn(figure)


def quality_svg(measured: Benchmark, quality: Quality) -> str:
    """Draw speed against quality: a point per engine."""
    figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
    points = [(1 / float(np.median(measured.samples[name])), value, name) for name, value in quality.auroc.items()]
    for number, (speed, auroc, name) in enumerate(sorted(points)):
        axes.plot(speed, auroc, "o", color="#d1603d" if name.startswith(OURS) else "#5b7db1")
        offset = (0, 9 if number % 2 else -16)  # exact engines lie at one height
        axes.annotate(name, (speed, auroc), offset, textcoords="offset points", ha="center", fontsize=8)
    middle = float(np.mean([auroc for _, auroc, _ in points]))
    furthest = max(abs(auroc - middle) for _, auroc, _ in points)
    axes.set_ylim(middle - max(1.5 * furthest, 0.005), middle + max(1.5 * furthest, 0.005))
    axes.set_xlim(0, 1.15 * max(speed for speed, _, _ in points))
    axes.set_xlabel("frames a second, batch 1 (median)")
    axes.set_ylabel(f"AUROC, {quality.images} images")
    axes.spines[["top", "right"]].set_visible(False)
    return _drawn(figure)


def _drawn(figure: Figure) -> str:
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None})
    plt.close(figure)
    return buffer.getvalue()


def changes(measured: Benchmark, earlier: Path) -> str:
    """Say how the median of every engine has changed since an earlier run, beyond noise or within it.

    The noise is the 95% interval of the ratio of medians over resampled rounds.

    Raises:
        ConfigurationError: not a file of asr-bench.
    """
    try:
        before: Mapping[str, Any] = json.loads(earlier.read_text())["samples"]
    except (OSError, ValueError, KeyError, TypeError):
        raise ConfigurationError(f"{earlier}: expected the benchmark.json of an earlier run") from None
    lines = []
    for name, seconds in measured.samples.items():
        if name not in before:
            lines.append(f"{name}: not in the earlier run")
            continue
        change = compare(before[name], seconds)
        verdict = "no change beyond noise" if change.is_noise else "slower" if change.ratio > 1 else "faster"
        lines.append(
            f"{name}: {change.ratio:.2f} times the earlier median ({change.low:.2f} to {change.high:.2f}), {verdict}"
        )
    return "\n".join(lines) + "\n"


def write_benchmark(
    measured: Benchmark, folder: Path, pipeline: EndToEnd | None = None, looks: LookCosts | None = None
) -> list[Path]:
    """Write benchmark.json (every sample), its figures in figures.json, a table, and pictures.

    Raises:
        OutputError: the folder cannot be written.
    """
    content = {**dataclasses.asdict(measured), "figures": figures(measured)}
    if pipeline is not None:
        content["end_to_end"] = {**dataclasses.asdict(pipeline), "efficiency": pipeline.efficiency}
    if looks is not None:
        content["looks"] = dataclasses.asdict(looks)
    texts = {
        "benchmark.json": json.dumps(content, indent=2) + "\n",
        "figures.json": figures_json([measured]),
        "benchmark.md": markdown(measured, pipeline, looks),
        "benchmark.svg": svg(measured),
    }
    if measured.quality is not None:
        texts["quality.svg"] = quality_svg(measured, measured.quality)
    for name, text in texts.items():
        write_whole(folder / name, text, what="the report")
    return [folder / name for name in texts]
