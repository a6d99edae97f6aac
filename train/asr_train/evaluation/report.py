"""An evaluation for people and programs: a page to read and forward, text, JSON and CSV in one folder."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from asr_runtime.whole_file import whole_file, write_whole
from asr_train.evaluation.evaluate import Evaluation
from asr_train.evaluation.html_report import html_report
from asr_train.figures.decisions import decision_lines
from asr_train.figures.scoring import Scored

__all__ = ["report_text", "write_report"]

_FIGURES = {
    "ca_auroc": "ca-AUROC",
    "auroc": "AUROC",
    "ap": "AP",
    "tpr_at_fpr_1%": "TPR@1%",
    "tpr_at_fpr_5%": "TPR@5%",
    "accuracy": "accuracy",
    "precision": "precision",
    "recall": "recall",
    "f1": "F1",
    "ece": "ECE",
}
_COLUMNS = ("ca_auroc", "auroc", "ap", "tpr_at_fpr_1%", "tpr_at_fpr_5%", "accuracy")
_IN_METRICS = (
    "protocol",
    "overall",
    "by_source",
    "verdicts",
    "content_probe",
    "raw",
    "reencoding",
    "pairs",
    "decisions",
)
_NOT_SAID = ("unreadable", "equalise")  # the report says these in other words


def write_report(evaluation: Evaluation, folder: Path) -> list[Path]:
    """Write report.html, metrics.json, report.txt, result.csv and, where measured, robustness.json.

    Returns:
        What was written.

    Raises:
        OutputError: the folder cannot be written.
    """
    figures = {key: value for key in _IN_METRICS if (value := getattr(evaluation, key)) is not None}
    texts = {
        "metrics.json": json.dumps(figures, indent=2) + "\n",
        "report.txt": report_text(evaluation),
        "report.html": html_report(evaluation),
    }
    if evaluation.robustness is not None:  # a separate file: metrics.json travels inside exported models
        texts["robustness.json"] = json.dumps(evaluation.robustness, indent=2) + "\n"
    for name, text in texts.items():
        write_whole(folder / name, text, what="the report")
    with whole_file(folder / "result.csv", what="the report") as part:
        _write_results(evaluation.scored, part)
    return sorted(folder / name for name in (*texts, "result.csv"))


def _write_results(scored: Scored, path: Path) -> None:
    """Write one row per image: its verdict at 0.5 in the column `label`, as the published ASRNet writes it."""
    with path.open("w", newline="", encoding="utf-8", errors="surrogateescape") as file:
        writer = csv.writer(file)
        writer.writerow(["image_id", "label", "probability", "source", "truth"])
        for sample, probability in zip(scored.samples, scored.probability, strict=True):
            row = [sample.path.name, int(probability >= 0.5), f"{probability:.6f}", sample.source, sample.label]
            writer.writerow(row)


def report_text(evaluation: Evaluation) -> str:
    """Return overall figures with intervals, what they stand beside, and a line per source, worst first."""
    overall = evaluation.overall
    lines = [f"{key}: {_plain(value)}" for key, value in evaluation.protocol.items() if key not in _NOT_SAID]
    if unreadable := evaluation.protocol["unreadable"]:
        lines.append(f"unreadable, left out: {len(unreadable)}: {', '.join(unreadable[:3])}")
    lines += ["", f"{overall['images']} images: {overall['real']} real, {overall['ai']} AI-generated", ""]
    lines += _overall_lines(evaluation)
    (tn, fp), (fn, tp) = overall["confusion_matrix"]
    width = max(len(str(n)) for n in (tn, fp, fn, tp, 1000)) + 2
    lines += ["", f"  {'':<12}{'called real':>{width + 8}}{'called ai':>{width + 6}}"]
    lines += [
        f"  {'real':<12}{tn:>{width + 8}}{fp:>{width + 6}}",
        f"  {'ai':<12}{fn:>{width + 8}}{tp:>{width + 6}}",
        "",
    ]
    lines += _verdict_lines(evaluation)
    for look, table in (evaluation.decisions or {}).items():
        lines += [f"  verdicts, {look}", *(f"  {line}" for line in decision_lines(table)), ""]
    lines += _source_lines(evaluation.by_source)
    lines += _pair_lines(evaluation.pairs)
    lines += _robustness_lines(evaluation.robustness)
    return "\n".join(lines) + "\n"


def _overall_lines(evaluation: Evaluation) -> list[str]:
    """Return a line per figure: value and interval, beside the same of the content-only probe and of raw files."""
    overall = evaluation.overall
    beside = {"content only": evaluation.content_probe, "raw files": evaluation.raw}
    shown = {title: figures for title, figures in beside.items() if figures is not None}
    lines = [f"  {'':<10} {'':>7}  {'95% interval':<16}" + "".join(f"{title:>14}" for title in shown)]
    for key, name in _FIGURES.items():
        others = "".join(f"{_number(figures.get(key)):>14}" for figures in shown.values())
        interval = _interval(overall.get("interval", {}).get(key))
        lines.append(f"  {name:<10} {_number(overall.get(key)):>7}  {interval:<16}{others}")
    return [line.rstrip() for line in lines]


def _verdict_lines(evaluation: Evaluation) -> list[str]:
    lines = []
    if verdicts := evaluation.verdicts:
        lines.append(
            f"  unsure about {_percent(verdicts['unsure'])}, wrong in {_percent(verdicts['error'])} of the rest"
        )
        lines += [
            f"  threshold for {_percent(point['false_positive_rate'])} of photos: {_percent(point['found'])} of photos "
            f"and {_percent(point['true_positive_rate'])} of AI-generated images reach it here"
            for point in verdicts["operating_points"]
        ]
    if moved := evaluation.reencoding:
        lines.append(f"  accuracy moves by {100 * moved['shift']:+.1f} points at JPEG {moved['quality']}")
    return [*lines, ""] if lines else []


def _source_lines(by_source: Mapping[str, Mapping[str, Any]]) -> list[str]:
    name_width = max([len(name) for name in by_source] + [9])
    titles = "".join(f"{_FIGURES[key]:>10}" for key in _COLUMNS)
    generators = {n: m for n, m in by_source.items() if m["against"]}
    lines = [f"  {'generator':<{name_width}}{'n':>6}{titles}  against"] if generators else []
    for name, m in generators.items():
        figures = "".join(f"{_number(m.get(key)):>10}" for key in _COLUMNS)
        lines.append(f"  {name:<{name_width}}{m['ai']:>6}{figures}  {m['against']}")
    photos = {n: m for n, m in by_source.items() if not m["against"]}
    if photos:
        lines += ["", f"  {'photos':<{name_width}}{'n':>6}{'accuracy':>10}{'mean P(ai)':>12}"]
    for name, m in photos.items():
        lines.append(
            f"  {name:<{name_width}}{m['images']:>6}{_number(m['accuracy']):>10}{_number(m['mean_probability']):>12}"
        )
    return lines


def _pair_lines(pairs: Mapping[str, Mapping[str, Any]] | None) -> list[str]:
    if pairs is None:
        return []
    width = max(len(name) for name in (*pairs, "photo and twin"))
    titles = f"{'AUROC':>9}  {'95% interval':<16}{'ranked right':>12}  95% interval"
    lines = ["", f"  {'photo and twin':<{width}}{'pairs':>8}{titles}"]
    for name, m in pairs.items():
        auroc, right = (_interval(m["interval"][key]) for key in ("auroc", "ranked_right"))
        figures = f"{_number(m['auroc']):>9}  {auroc:<16}{_percent(m['ranked_right']):>12}  {right}"
        lines.append(f"  {name:<{width}}{m['pairs']:>8}{figures}")
    return lines


def _robustness_lines(robustness: Mapping[str, Any] | None) -> list[str]:
    if robustness is None:
        return []
    columns = ("ca_auroc", "auroc", "accuracy", "tpr_at_fpr_5%")
    called = {"photos_called_ai": "photo: ai", "generated_called_ai": "gen.: ai", "generated_called_real": "gen.: real"}
    rows = [("none", robustness["undegraded"], robustness["undegraded_verdicts"])]
    for family in robustness["families"].values():
        rows += [(f"{family['title']} {p['strength']:g}", p["figures"], p["verdicts"]) for p in family["points"]]
    titles = "".join(f"{_FIGURES[key]:>10}" for key in columns)
    if rows[0][2] is not None:
        titles += "".join(f"{title:>12}" for title in called.values())
    lines = ["", f"  {'degradation':<22}{titles}"]
    for name, figures, verdicts in rows:
        numbers = "".join(f"{_number((figures or {}).get(key)):>10}" for key in columns)
        shares = (
            "".join(f"{_percent((verdicts or {}).get(key)):>12}" for key in called) if rows[0][2] is not None else ""
        )
        lines.append(f"  {name:<22}{numbers}{shares}")
    return lines


def _plain(value: object) -> str:
    return (", ".join(map(str, value)) or "none") if isinstance(value, list) else str(value)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.4f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _interval(ends: list[float] | None) -> str:
    return "" if ends is None else f"{ends[0]:.3f} to {ends[1]:.3f}"
