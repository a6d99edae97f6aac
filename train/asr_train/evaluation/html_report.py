"""An evaluation as one HTML page without scripts or outside resources, for readers who did not run it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from asr_train.data.layouts import Sample
from asr_train.evaluation.report_pictures import thumbnail, traces
from asr_train.figures.html_page import html_page
from asr_train.figures.plots import (
    Row,
    plot_bars,
    plot_histogram,
    plot_reliability,
    plot_robustness,
    plot_roc,
    share_interval,
)

if TYPE_CHECKING:
    from asr_train.evaluation.evaluate import Evaluation

__all__ = ["Finding", "finding", "html_report"]

_EXAMPLES = 3  # of each class
_MISTAKES = 6  # of each class
_HEADLINE = "ca_auroc"
_NAMES = {"ca_auroc": "ca-AUROC", "auroc": "AUROC"}


@dataclass(frozen=True)
class Finding:
    """The headline figure, its 95% interval and what it amounts to in words."""

    value: float | None
    interval: Sequence[float] | None
    verdict: str


def html_report(evaluation: Evaluation) -> str:
    """Write the page.

    It holds thumbnails of a few of the pictures that were scored; those that can no longer be read are left out.

    Returns:
        HTML, UTF-8, self-contained, under about 1 MB.
    """
    return html_page(
        "asr_train.evaluation",
        "report.html.jinja",
        {"figure": _figure, "percent": _percent, "interval": _interval, "signed": _signed},
        _context(evaluation),
    )


def _context(evaluation: Evaluation) -> dict[str, Any]:
    scored, overall = evaluation.scored, evaluation.overall
    key = _HEADLINE if overall.get(_HEADLINE) is not None else "auroc"
    generators = {n: m for n, m in evaluation.by_source.items() if m["against"]}
    return {
        "evaluation": evaluation,
        "overall": overall,
        "intervals": overall.get("interval") or {},
        "key": key,
        "key_name": _NAMES[key],
        "finding": finding(evaluation, key),
        "generators": generators,
        "photos": _photos(evaluation),
        "plots": _plots(evaluation, key, generators),
        "examples": _examples(evaluation),
        "mistakes": _mistakes(scored.samples, scored.labels, scored.probability),
        "protocol": {k: v for k, v in evaluation.protocol.items() if k not in ("unreadable", "equalise")},
    }


def finding(evaluation: Evaluation, key: str) -> Finding:
    """Say what the headline figure `key` amounts to, beside chance and beside what coarse bins leave to content."""
    overall, left = evaluation.overall, (evaluation.content_probe or {}).get("ca_auroc") or 0.5
    value, interval = overall.get(key), (overall.get("interval") or {}).get(key)
    if value is None:
        return Finding(None, None, "Both classes are needed for a figure; here is one only.")
    low, high = interval or (value, value)
    if key == "ca_auroc" and 0.5 < low <= left:
        verdict = f"Subject matter alone still gets {100 * left:.1f}% there, so this proves no trace of a generator."
    elif low > 0.5:
        verdict = "That is better than guessing."
    elif high < 0.5:
        verdict = "That is worse than guessing: what it relies on points the wrong way here."
    else:
        verdict = "That cannot be distinguished from guessing."
    return Finding(value, interval, verdict)


def _photos(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return each source's photos: how many are called generated at 0.5, and at the model's thresholds; worst first."""
    scored = evaluation.scored
    sources = np.array([s.source for s in scored.samples])
    points = (evaluation.verdicts or {}).get("operating_points", ())
    rows = []
    for name in sorted(set(sources[scored.labels == 0].tolist())):
        own = (sources == name) & (scored.labels == 0)
        wrong, total = int((scored.probability[own] >= 0.5).sum()), int(own.sum())
        at = [point["found_by_source"].get(name) for point in points]
        row = {"name": name, "images": total, "share": wrong / total, "interval": share_interval(wrong, total)}
        rows.append({**row, "mean": float(scored.probability[own].mean()), "at": at})
    return sorted(rows, key=lambda row: -float(row["share"]))


def _plots(evaluation: Evaluation, key: str, generators: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    labels, probability = evaluation.scored.labels, evaluation.scored.probability
    verdicts = evaluation.verdicts
    band = (verdicts["real_below"], verdicts["ai_from"]) if verdicts else None
    plots: dict[str, Any] = {
        "histogram": plot_histogram(labels, probability, band),
        "reliability": plot_reliability(labels, probability),
    }
    if evaluation.overall["auroc"] is not None:
        plots["roc"] = plot_roc(labels, probability)
        plots["headline"] = plot_bars(
            "Beside content", _headline_rows(evaluation), "AUROC", limits=(0.4, 1), width=5.9, row_height=0.34
        )
    rows = [
        Row(f"{name} ({m['ai']})", m[key], (m.get("interval") or {}).get(key))
        for name, m in generators.items()
        if m.get(key) is not None
    ]
    if rows:
        plots["generators"] = plot_bars("Generators", rows, "by generator (pictures); 0.5 is chance", limits=(0.3, 1))
    photos = [Row(f"{p['name']} ({p['images']})", p["share"], p["interval"], "real") for p in _photos(evaluation)]
    if photos:
        label = "share of photos called generated at 0.5, by source (photos)"
        plots["photos"] = plot_bars("Photo sources", photos, label, origin=0)
    if evaluation.robustness is not None:
        plots["robustness"], plots["robustness_key"] = _robustness_plots(evaluation.robustness, key)
    return plots


def _headline_rows(evaluation: Evaluation) -> list[Row]:
    """Return AUROCs of the model and of subject matter alone, content-adjusted and plain."""
    names = {"ca_auroc": "content-adjusted", "auroc": "plain"}
    groups = (
        ("this model", evaluation.overall, "ai"),
        ("subject alone", evaluation.content_probe or {}, "plain"),
    )
    return [
        Row(f"{title}: {name}", figures[key], (figures.get("interval") or {}).get(key), kind)
        for key, title in names.items()
        for name, figures, kind in groups
        if figures.get(key) is not None
    ]


def _robustness_plots(robustness: Mapping[str, Any], key: str) -> tuple[list[str], str]:
    """Return a curve per family, and the name of the figure that they show."""
    undegraded = robustness["undegraded"]
    key = key if undegraded[key] is not None else "auroc"
    points = [p["figures"] for family in robustness["families"].values() for p in family["points"] if p["figures"]]
    ends = [end for m in (undegraded, *points) if m[key] is not None for end in (*m["interval"].get(key, ()), m[key])]
    limits = (min(0.45, *ends), min(1.0, max(0.75, *ends)))
    curves = [plot_robustness(family, key, undegraded[key], limits) for family in robustness["families"].values()]
    return curves, _NAMES[key]


def _examples(evaluation: Evaluation) -> list[dict[str, Any]]:
    """Return the picture of middling probability of each of the largest sources of both classes."""
    scored, quality = evaluation.scored, evaluation.protocol.get("equalise")
    examples = []
    for label in (0, 1):
        groups: dict[str, list[int]] = {}
        for index in np.flatnonzero(scored.labels == label).tolist():
            groups.setdefault(scored.samples[index].source, []).append(index)
        largest = sorted(groups.items(), key=lambda item: (-len(item[1]), item[0]))[:_EXAMPLES]
        for _, members in largest:
            middle = sorted(members, key=lambda i: float(scored.probability[i]))[len(members) // 2]
            shown = traces(scored.samples[middle], quality)
            if shown is not None:
                examples.append({**_named(scored.samples[middle], scored.probability[middle]), "traces": shown})
    return examples


def _mistakes(
    samples: Sequence[Sample], labels: NDArray[np.int64], probability: NDArray[np.float64]
) -> dict[str, list[dict[str, Any]]]:
    """Return the photos most surely called generated, and the generated pictures most surely called photos."""
    order = np.argsort(probability, kind="stable")
    wrong = {
        "photos": [i for i in order[::-1] if labels[i] == 0 and probability[i] >= 0.5],
        "generated": [i for i in order if labels[i] == 1 and probability[i] < 0.5],
    }
    return {
        kind: [{**_named(samples[i], probability[i]), "picture": thumbnail(samples[i])} for i in places[:_MISTAKES]]
        for kind, places in wrong.items()
    }


def _named(sample: Sample, probability: float) -> dict[str, Any]:
    return {
        "name": sample.path.name,
        "source": sample.source,
        "truth": "generated" if sample.label else "photo",
        "probability": float(probability),
    }


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"


def _interval(ends: Sequence[float] | None) -> str:
    return "" if not ends else f"{ends[0]:.3f} to {ends[1]:.3f}"


def _signed(value: float | None) -> str:
    return "-" if value is None else f"{value:+.3f}"
