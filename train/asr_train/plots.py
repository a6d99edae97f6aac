"""Pictures of an evaluation (PNG)."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import matplotlib
import numpy as np
from numpy.typing import NDArray
from sklearn import metrics as sk

matplotlib.use("Agg")
import matplotlib.pyplot as plt

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from asr_train.evaluate import Evaluation

__all__ = ["plot_generators", "plot_overview"]

_REAL, _AI, _GREY = "#1b7f79", "#c8553d", "#9aa0a6"


def plot_overview(evaluation: Evaluation, path: Path) -> None:
    """Draw ROC curve, reliability, distribution of probabilities and confusion matrix."""
    figure, axes = plt.subplots(2, 2, figsize=(9, 8), layout="constrained")
    labels, probability = evaluation.scored.labels, evaluation.scored.probability
    _roc(axes[0, 0], evaluation)
    _reliability(axes[0, 1], labels, probability)
    bins = np.linspace(0, 1, 26)
    axes[1, 0].hist(
        [probability[labels == 0], probability[labels == 1]], bins, label=["real", "ai"], color=[_REAL, _AI]
    )
    axes[1, 0].set(xlabel="P(AI-generated)", ylabel="images", title="Distribution")
    axes[1, 0].legend(frameon=False)
    _confusion(axes[1, 1], evaluation)
    figure.savefig(path, dpi=110)
    plt.close(figure)


def plot_generators(evaluation: Evaluation, path: Path) -> None:
    """Draw AUROC of each generator, worst first, and the share of each photo source that is called real."""
    scored = {n: m for n, m in evaluation.by_source.items() if m["against"] and m["auroc"] is not None}
    photos = {n: m for n, m in evaluation.by_source.items() if not m["against"]}
    height = 1.6 + 0.3 * max(len(scored), len(photos), 1)
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, height), layout="constrained")
    worst_last = sorted(scored, key=lambda n: -scored[n]["auroc"])
    values = [scored[n]["auroc"] for n in worst_last]
    bars = left.barh([f"{n} ({scored[n]['ai']})" for n in worst_last], values, color=_AI)
    left.bar_label(bars, fmt="%.3f", padding=3)
    left.axvline(0.5, color=_GREY, linestyle="--")
    left.set(xlim=(0, 1.15), title="Generators: AUROC (images)")
    names = sorted(photos, key=lambda n: -photos[n]["accuracy"])
    bars = right.barh(
        [f"{n} ({photos[n]['images']})" for n in names], [photos[n]["accuracy"] for n in names], color=_REAL
    )
    right.bar_label(bars, fmt="%.2f", padding=3)
    right.set(xlim=(0, 1.15), title="Photo sources: share called real at 0.5 (images)")
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _roc(axes: Axes, evaluation: Evaluation) -> None:
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--")
    axes.set(xlabel="false-positive rate", ylabel="true-positive rate", title="ROC: needs both classes")
    if evaluation.overall["auroc"] is not None:
        fpr, tpr, _ = sk.roc_curve(evaluation.scored.labels, evaluation.scored.probability)
        axes.plot(fpr, tpr, color=_AI)
        axes.set_title(f"ROC: AUROC {evaluation.overall['auroc']:.3f}, AP {evaluation.overall['ap']:.3f}")


def _reliability(axes: Axes, labels: NDArray[np.int_], probability: NDArray[np.float64]) -> None:
    """Draw ten groups of equally many images, so that no point stands for a handful."""
    groups = [g for g in np.array_split(np.argsort(probability), 10) if len(g)]
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--")
    axes.plot([probability[g].mean() for g in groups], [labels[g].mean() for g in groups], "o-", color=_REAL)
    axes.set(xlabel="probability said", ylabel="share that is AI-generated", xlim=(0, 1), ylim=(0, 1))
    axes.set_title("Reliability: ten groups of equal size")


def _confusion(axes: Axes, evaluation: Evaluation) -> None:
    matrix = np.asarray(evaluation.overall["confusion_matrix"])
    axes.imshow(matrix, cmap="Greys", vmin=0, vmax=max(1, matrix.max() * 1.6))
    for (row, column), count in np.ndenumerate(matrix):
        axes.text(column, row, str(count), ha="center", va="center", fontsize=16)
    axes.set_xticks([0, 1], ["called real", "called ai"])
    axes.set_yticks([0, 1], ["real", "ai"])
    axes.set_title(f"Confusion at 0.5: accuracy {evaluation.overall['accuracy']:.3f}")
