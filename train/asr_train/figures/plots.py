"""Plots of an evaluation as SVG text that stands inside an HTML page: its font, its colour of ink, nothing external."""

from __future__ import annotations

import functools
import io
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ParamSpec

import matplotlib
import matplotlib.ticker
import numpy as np
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn import metrics as sk

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = [
    "Row",
    "plot_bars",
    "plot_front",
    "plot_histogram",
    "plot_learning_curves",
    "plot_reliability",
    "plot_robustness",
    "plot_roc",
    "share_interval",
]

Labels = NDArray[np.int_]
Floats = NDArray[np.floating[Any]]
P = ParamSpec("P")

_REAL, _AI, _PLAIN, _CHANCE = "#2a9d8f", "#d1603d", "#5b7db1", "#8a9099"
_COLOURS = {"ai": _AI, "real": _REAL, "plain": _CHANCE}
_POINTS = 800
_INK = "#010203"  # stands for the page's own colour of text, so that one picture serves light and dark pages
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "font.size": 9,
    "axes.titlesize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.6,
    "xtick.major.width": 0.6,
    "ytick.major.width": 0.6,
    "lines.linewidth": 1.6,
    "legend.frameon": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), _INK),
}


def _styled(draw: Callable[P, str]) -> Callable[P, str]:
    @functools.wraps(draw)
    def styled(*args: P.args, **kwargs: P.kwargs) -> str:
        with plt.rc_context(_STYLE):
            return draw(*args, **kwargs)

    return styled


@dataclass(frozen=True)
class Row:
    """One bar: its name, value, 95% interval (None: unknown) and what its colour says: ai, real or plain."""

    name: str
    value: float
    interval: Sequence[float] | None = None
    kind: str = "ai"


@_styled
def plot_roc(labels: Labels, probability: Floats) -> str:
    """Draw the ROC curve; needs both classes."""
    figure, axes = _axes(3.9, 3.3)
    fpr, tpr, _ = sk.roc_curve(labels, probability)
    if len(fpr) > _POINTS:  # tens of thousands of steps would make the page heavy and look the same
        points = np.unique(np.linspace(0, len(fpr) - 1, _POINTS).round().astype(int))
        fpr, tpr = fpr[points], tpr[points]
    axes.plot([0, 1], [0, 1], color=_CHANCE, linestyle="--", linewidth=1)
    axes.fill_between(fpr, tpr, color=_AI, alpha=0.1, linewidth=0)
    axes.plot(fpr, tpr, color=_AI)
    axes.set(xlabel="photos called generated", ylabel="generated pictures detected", xlim=(0, 1), ylim=(0, 1))
    axes.text(0.97, 0.04, f"AUROC {sk.roc_auc_score(labels, probability):.3f}", ha="right")
    return _svg(figure, "ROC curve", "roc")


@_styled
def plot_reliability(labels: Labels, probability: Floats) -> str:
    """Draw ten groups of equally many images with their 95% intervals, so that no point stands for a handful."""
    figure, axes = _axes(3.9, 3.3)
    groups = [g for g in np.array_split(np.argsort(probability, kind="stable"), 10) if len(g)]
    mean_probability = [float(probability[g].mean()) for g in groups]
    share = np.array([labels[g].mean() for g in groups])
    ends = np.array([share_interval(int(labels[g].sum()), len(g)) for g in groups])
    axes.plot([0, 1], [0, 1], color=_CHANCE, linestyle="--", linewidth=1)
    axes.errorbar(
        mean_probability, share, np.abs(ends.T - share), color=_PLAIN, marker="o", markersize=4, elinewidth=0.9
    )
    axes.set(xlabel="predicted probability", ylabel="share that is generated", xlim=(0, 1), ylim=(0, 1))
    return _svg(figure, "Reliability diagram", "reliability")


@_styled
def plot_histogram(labels: Labels, probability: Floats, band: tuple[float, float] | None = None) -> str:
    """Draw how probabilities spread in each class; `band` is where the verdict is unsure."""
    figure, axes = _axes(3.9, 3.3)
    bins = np.linspace(0, 1, 26).tolist()
    if band is not None and band[0] < band[1]:
        axes.axvspan(*band, color=_CHANCE, alpha=0.16, linewidth=0)
        axes.text(sum(band) / 2, 0.985, "unsure", ha="center", va="top", transform=axes.get_xaxis_transform())
    for label, name, colour in ((0, "photos", _REAL), (1, "generated", _AI)):
        own = probability[labels == label]
        if len(own):
            weights = np.full(len(own), 100 / len(own))
            axes.hist(own, bins, weights=weights, histtype="stepfilled", color=colour, alpha=0.35)
            axes.hist(own, bins, weights=weights, histtype="step", color=colour, linewidth=1.4, label=name)
    axes.set(xlabel="P(generated)", ylabel="% of the class", xlim=(0, 1))
    axes.margins(y=0.16)
    axes.legend(loc="upper left", bbox_to_anchor=(0, 1.13), ncols=2, borderaxespad=0)
    return _svg(figure, "Histogram of probabilities", "histogram")


@_styled
def plot_bars(
    name: str,
    rows: Sequence[Row],
    label: str,
    origin: float = 0.5,
    limits: tuple[float, float] = (0, 1),
    width: float = 7.6,
    row_height: float = 0.27,
) -> str:
    """Draw one bar per row, first row on top, with its interval.

    Args:
        name: of the picture.
        rows: at least one.
        label: of the axis.
        origin: where bars begin: chance, or nothing.
        limits: of the axis; widened to the intervals.
        width: in inches; the narrower, the larger the letters on the page.
        row_height: in inches.
    """
    figure, axes = _axes(width, 0.55 + row_height * len(rows))
    ends = [end for row in rows for end in (*(row.interval or ()), row.value)]
    low, high = min(limits[0], *ends), max(limits[1], *ends)
    for place, row in enumerate(rows):
        colour = _COLOURS[row.kind]
        axes.barh(place, row.value - origin, left=origin, height=0.62, color=colour, alpha=0.8, linewidth=0)
        if row.interval is not None:
            axes.plot(row.interval, [place, place], color=_INK, linewidth=1)
    axes.axvline(origin, color=_INK, linewidth=0.6)
    axes.set(xlim=(low, high), ylim=(len(rows) - 0.4, -0.6), xlabel=label)
    axes.set_yticks(range(len(rows)), [row.name for row in rows])
    right = axes.secondary_yaxis("right")
    right.set_yticks(range(len(rows)), [_said(row) for row in rows])
    for side in (axes, right):
        side.tick_params(axis="y", length=0)
    right.spines["right"].set_visible(False)
    axes.spines["left"].set_visible(False)
    axes.grid(axis="x", color=_CHANCE, alpha=0.25, linewidth=0.5)
    axes.set_axisbelow(True)
    return _svg(figure, name, name)


@_styled
def plot_front(trials: Sequence[tuple[float, float]], front: Sequence[int], best: int, recipe: int | None) -> str:
    """Draw what trials of a search cost and what they are worth, and the front that no trial beats in both.

    Args:
        trials: multiply-adds and figure of each, at least one.
        front: places of the trials on the front, cheapest first.
        best: place of the one that was chosen.
        recipe: place of the network's recipe, if it was tried.
    """
    figure, axes = _axes(7.6, 3.4)
    macs, values = np.array(trials).T
    axes.plot(macs / 1e9, values, "o", color=_CHANCE, alpha=0.55, markersize=4, linewidth=0, label="trials")
    costs, worth = np.array([trials[place] for place in front]).T
    axes.step(costs / 1e9, worth, where="post", color=_PLAIN, linewidth=1)
    axes.plot(costs / 1e9, worth, "o", color=_PLAIN, markersize=5, linewidth=0, label="Pareto front")
    for place, name, colour, marker in ((recipe, "recipe", _REAL, "s"), (best, "best", _AI, "D")):
        if place is not None:
            axes.plot(macs[place] / 1e9, values[place], marker, color=colour, markersize=7, linewidth=0, label=name)
    axes.set_xscale("log")
    axes.set_xlim(macs.min() / 1.6e9, macs.max() * 1.6 / 1e9)  # a factor of 2.56, so that one of 1, 2 and 5 is inside
    axes.xaxis.set_major_locator(matplotlib.ticker.LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(matplotlib.ticker.FormatStrFormatter("%g"))
    axes.xaxis.set_minor_formatter(matplotlib.ticker.NullFormatter())
    axes.set(xlabel="multiply-adds of one crop, in thousand millions", ylabel="content-adjusted AUROC")
    axes.grid(color=_CHANCE, alpha=0.25, linewidth=0.5)
    axes.legend(loc="lower left", bbox_to_anchor=(0, 1), ncols=4)  # above: below it would hide trials
    return _svg(figure, "Figure and cost of the trials", "front")


@_styled
def plot_robustness(family: Mapping[str, Any], key: str, undegraded: float, limits: tuple[float, float]) -> str:
    """Draw one figure over the strength of one degradation, mildest first.

    Args:
        family: as `robustness` returns it.
        key: the figure.
        undegraded: its value without the degradation.
        limits: of the vertical axis, the same for all families of a page.
    """
    figure, axes = _axes(2.7, 2.1)
    points = [p for p in family["points"] if p["figures"] and p["figures"].get(key) is not None]
    values = [p["figures"][key] for p in points]
    places = range(len(points))
    intervals = [p["figures"].get("interval", {}).get(key) for p in points]
    if points and all(intervals):
        low, high = np.array(intervals).T
        if len(points) > 1:
            axes.fill_between(places, low, high, color=_AI, alpha=0.15, linewidth=0)
        else:
            axes.plot([0, 0], intervals[0], color=_AI, linewidth=1)
    axes.axhline(undegraded, color=_INK, linewidth=0.7, linestyle=":")
    axes.axhline(0.5, color=_CHANCE, linewidth=0.8, linestyle="--")
    axes.plot(places, values, color=_AI, marker="o", markersize=3.5)
    axes.set_xticks(places, [f"{p['strength']:g}" for p in points])
    axes.set(ylim=limits, xlabel=family["axis"], title=family["title"])
    axes.margins(x=0.12)
    return _svg(figure, f"{family['title']}: figure by strength", family["title"])


@_styled
def plot_learning_curves(curves: Mapping[str, Sequence[Mapping[str, Any]]]) -> str:
    """Draw the content-adjusted AUROC over the number of images or sources in training, one panel each.

    Args:
        curves: as `learning_curves` returns them.
    """
    figure, panels = plt.subplots(1, len(curves), figsize=(2.7 * len(curves), 2.4), sharey=True, layout="constrained")
    for axes, (name, points) in zip(np.atleast_1d(panels), curves.items(), strict=True):
        counts = [point["count"] for point in points]
        key = "ca_auroc"
        axes.plot(counts, np.array([point[key] for point in points], float), color=_AI, marker="o", markersize=3.5)
        for point in points:
            draws = np.array([draw[key] for draw in point["draws"]], float)
            axes.plot([point["count"]] * len(draws), draws, ".", color=_AI, alpha=0.4, markersize=4)
        axes.set_xscale("log", base=2)
        axes.set_xticks(counts, [str(c) for c in counts])
        axes.minorticks_off()
        axes.set_xlabel(f"{name} in training")
        axes.grid(axis="y", color=_CHANCE, alpha=0.25, linewidth=0.6)
    np.atleast_1d(panels)[0].set_ylabel("content-adjusted AUROC,\ngenerators never seen")
    return _svg(figure, "content-adjusted AUROC on generators never seen, by amount of training data", "learning")


def share_interval(hits: int, total: int) -> tuple[float, float]:
    """Return the 95% Wilson interval of a share."""
    interval = binomtest(hits, total).proportion_ci(method="wilson")
    return float(interval.low), float(interval.high)


def _said(row: Row) -> str:
    text = f"{row.value:.3f}"
    return text if row.interval is None else f"{text}  ({row.interval[0]:.2f} to {row.interval[1]:.2f})"


def _axes(width: float, height: float) -> tuple[Figure, Axes]:
    return plt.subplots(figsize=(width, height), layout="constrained")


def _svg(figure: Figure, label: str, salt: str) -> str:
    """Return the bare <svg> element, its ink the page's colour, without ids and metadata that others would repeat."""
    buffer = io.StringIO()
    metadata = dict.fromkeys(("Creator", "Date", "Format", "Type"))
    with plt.rc_context({"svg.hashsalt": salt}):
        figure.savefig(buffer, format="svg", transparent=True, metadata=metadata)
    plt.close(figure)
    text = buffer.getvalue()
    text = text[text.index("<svg") :].replace(_INK, "currentColor")
    text = re.sub(r"<metadata>.*?</metadata>|<!--.*?-->|<style.*?</style>", "", text, flags=re.DOTALL)
    text = re.sub(r' id="[A-Za-z0-9]+_\d+"', "", text)
    text = re.sub(r'<svg ([^>]*?)width="[\d.]+pt" height="[\d.]+pt"', r"<svg \1", text, count=1)
    return text.replace("<svg ", f'<svg role="img" aria-label="{label}" ', 1).strip()
