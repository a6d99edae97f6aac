"""The results of the suite as Markdown, with what changed since earlier ones, and as pictures."""

from __future__ import annotations

import io
from pathlib import Path

import matplotlib
import numpy as np

from asr_bench.figures import Figure, compare
from asr_bench.suite_results import PartResult, Suite
from asr_runtime.whole_file import write_whole

matplotlib.use("Agg")
import matplotlib.pyplot as plt

__all__ = ["suite_markdown", "suite_svg", "write_pictures"]

_ENOUGH = 3  # samples on both sides, below which a change is not judged


def suite_markdown(suite: Suite, earlier: Suite | None = None) -> str:
    """Return a table for each part, its command and conditions below it.

    Each part stands between the marks with which MkDocs includes a part of a file by the part's name.
    """
    lines = [f"Machine: {suite.machine}.", ""]
    for name, part in suite.parts.items():
        before = earlier.parts.get(name) if earlier is not None else None
        lines += [f"<!-- --8<-- [start:{name}] -->", *_table(name, part, before), f"<!-- --8<-- [end:{name}] -->", ""]
    return "\n".join(lines)


def _table(name: str, part: PartResult, before: PartResult | None) -> list[str]:
    if part.problem:
        return [f"**{name}** ({part.says}): {part.problem}", "", f"`{part.command}`"]
    head = f"| {name}: {part.says} | median | range | samples |"
    lines = (
        [head, "|---|---|---|---|"] if before is None else [head + " earlier | change |", "|---|---|---|---|---|---|"]
    )
    old = {figure.name: figure for figure in before.figures} if before is not None else {}
    for figure in part.figures:
        low, high = min(figure.samples), max(figure.samples)
        row = f"| {figure.name} | {figure.median:.3g} {figure.unit} | {low:.3g} to {high:.3g} | {len(figure.samples)} |"
        lines.append(row if before is None else f"{row} {_change(figure, old.get(figure.name))} |")
    return [*lines, "", *_conditions(part)]


def _change(figure: Figure, old: Figure | None) -> str:
    if old is None:
        return "none | new"
    earlier = f"{old.median:.3g} |"
    if min(*figure.samples, *old.samples) <= 0:  # no ratio
        return f"{earlier} {figure.median - old.median:+.3g} {figure.unit}"
    change = compare(old.samples, figure.samples)
    shown = f"{earlier} {change.ratio:.2f}x"
    if min(len(figure.samples), len(old.samples)) < _ENOUGH:
        return f"{shown}, too few samples to judge"
    shown += f" ({change.low:.2f} to {change.high:.2f})"
    if change.is_noise:
        return f"{shown}, no change beyond noise"
    return f"{shown}, {'better' if (change.ratio > 1) == figure.more_is_better else 'worse'}"


def _conditions(part: PartResult) -> list[str]:
    energy = "the machine does not measure energy"
    if part.joules is not None:
        energy = f"{np.median(part.joules):.0f} J a round, all cores"
    versions = ", ".join(f"{package} {version}" for package, version in part.versions.items())
    load = f"{min(part.load):g} to {max(part.load):g}"
    return [
        f"`{part.command}`",
        "",
        f"Rounds: {len(part.seconds)}, of {np.median(part.seconds):.0f} s, {part.date} UTC, load {load}; {energy}; "
        f"{versions}",
    ]


def suite_svg(part: PartResult, before: PartResult | None = None) -> str:
    """Draw the figures of one part: a bar for each median, a point for each sample; earlier samples in grey."""
    units = list(dict.fromkeys(figure.unit for figure in part.figures))
    groups = [[figure for figure in part.figures if figure.unit == unit] for unit in units]
    old = {figure.name: figure for figure in before.figures} if before is not None else {}
    with plt.rc_context({"svg.fonttype": "none", "svg.hashsalt": "asr-bench"}):
        figure, rows = plt.subplots(
            len(groups),
            squeeze=False,
            figsize=(9, 0.34 * len(part.figures) + 0.75 * len(groups)),
            height_ratios=[len(group) + 0.6 for group in groups],
            layout="constrained",
        )
        for axes, unit, group in zip(rows[:, 0], units, groups, strict=True):
            for row, shown in enumerate(group):
                axes.barh(row, shown.median, height=0.55, color="#5b7db1", alpha=0.55)
                axes.plot(shown.samples, [row] * len(shown.samples), ".", color="#d1603d", markersize=5)
                if shown.name in old:
                    samples = old[shown.name].samples
                    axes.plot(samples, [row + 0.38] * len(samples), ".", color="#888888", markersize=5)
                axes.annotate(
                    f"{shown.median:.3g}",
                    (max(*shown.samples, shown.median, 0), row),
                    (6, 0),
                    textcoords="offset points",
                    va="center",
                    fontsize=8,
                )
            axes.set_yticks(range(len(group)), [shown.name for shown in group], fontsize=8)
            axes.invert_yaxis()
            axes.margins(x=0.1)
            axes.set_xlabel(f"{unit}, {'more' if group[0].more_is_better else 'less'} is better", fontsize=8)
            axes.tick_params(axis="x", labelsize=8)
            axes.spines[["top", "right"]].set_visible(False)
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        plt.close(figure)
    return buffer.getvalue()


def write_pictures(suite: Suite, folder: Path, earlier: Suite | None = None) -> list[Path]:
    """Write `PART.svg` for every part that has figures.

    Raises:
        OutputError: the folder cannot be written.
    """
    paths = []
    for name, part in suite.parts.items():
        if part.figures:
            before = earlier.parts.get(name) if earlier is not None else None
            paths.append(folder / f"{name}.svg")
            write_whole(paths[-1], suite_svg(part, before), what="a picture")
    return paths
