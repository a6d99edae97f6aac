"""An evaluation for people and programs: text, JSON, CSV and pictures in one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asr_runtime.errors import OutputError
from asr_train.evaluate import Evaluation, Scored
from asr_train.plots import plot_generators, plot_overview

__all__ = ["report_text", "write_report"]

_FIGURES = {
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "auroc": "AUROC",
    "ap": "AP",
    "tpr_at_fpr_1%": "TPR@1%",
    "tpr_at_fpr_5%": "TPR@5%",
    "ece": "ECE",
}
_COLUMNS = ("accuracy", "auroc", "ap", "tpr_at_fpr_1%", "tpr_at_fpr_5%")


def write_report(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write metrics.json, report.txt, result.csv and the plots; return what was written.

    Raises:
        OutputError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        content = {
            "protocol": evaluation.protocol,
            "overall": evaluation.overall,
            "by_source": evaluation.by_source,
        }
        (folder / "metrics.json").write_text(json.dumps(content, indent=2) + "\n")
        (folder / "report.txt").write_text(report_text(evaluation))
        _write_results(evaluation.scored, folder / "result.csv")
        plot_overview(evaluation, folder / "overview.png")
        plot_generators(evaluation, folder / "generators.png")
    except OSError as error:
        raise OutputError(f"{folder}: the report cannot be written ({error.strerror})") from None
    return sorted(folder.iterdir())


def _write_results(scored: Scored, path: Path) -> None:
    """Write one row per image: its verdict at 0.5 in the column `label`, as the published ASRNet writes it."""
    with path.open("w", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "label", "probability", "source", "truth"])
        for sample, probability in zip(scored.samples, scored.probability, strict=True):
            row = [sample.path.name, int(probability >= 0.5), f"{probability:.6f}", sample.source, sample.label]
            writer.writerow(row)


def report_text(evaluation: Evaluation) -> str:
    """Return overall figures, the confusion matrix and a line per source, worst AUROC first."""
    overall = evaluation.overall
    lines = [f"{key}: {value}" for key, value in evaluation.protocol.items() if key != "unreadable"]
    if unreadable := evaluation.protocol["unreadable"]:
        lines.append(f"unreadable, left out: {len(unreadable)}: {', '.join(unreadable[:3])}")
    lines += ["", f"{overall['images']} images: {overall['real']} real, {overall['ai']} AI-generated", ""]
    lines += [f"  {name:<10} {_number(overall[key])}" for key, name in _FIGURES.items()]
    (tn, fp), (fn, tp) = overall["confusion_matrix"]
    width = max(len(str(n)) for n in (tn, fp, fn, tp, 1000)) + 2
    lines += ["", f"  {'':<12}{'called real':>{width + 8}}{'called ai':>{width + 6}}"]
    lines += [
        f"  {'real':<12}{tn:>{width + 8}}{fp:>{width + 6}}",
        f"  {'ai':<12}{fn:>{width + 8}}{tp:>{width + 6}}",
        "",
    ]
    lines += _source_lines(evaluation.by_source)
    return "\n".join(lines) + "\n"


def _source_lines(by_source: Mapping[str, Mapping[str, Any]]) -> list[str]:
    name_width = max([len(name) for name in by_source] + [9])
    titles = "".join(f"{_FIGURES[key]:>10}" for key in _COLUMNS)
    generators = {n: m for n, m in by_source.items() if m["against"]}
    lines = [f"  {'generator':<{name_width}}{'n':>6}{titles}  against"] if generators else []
    for name, m in sorted(generators.items(), key=lambda item: item[1]["auroc"] or 0.0):
        figures = "".join(f"{_number(m[key]):>10}" for key in _COLUMNS)
        lines.append(f"  {name:<{name_width}}{m['ai']:>6}{figures}  {m['against']}")
    photos = {n: m for n, m in by_source.items() if not m["against"]}
    if photos:
        lines += ["", f"  {'photos':<{name_width}}{'n':>6}{'accuracy':>10}{'mean P(ai)':>12}"]
    for name, m in sorted(photos.items(), key=lambda item: float(item[1]["accuracy"])):
        lines.append(
            f"  {name:<{name_width}}{m['images']:>6}{_number(m['accuracy']):>10}{_number(m['mean_probability']):>12}"
        )
    return lines


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"
