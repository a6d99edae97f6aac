"""Measures a detector on families of generators, and on kinds of photos, of which it has seen no source.

Several sites show pictures of one generator, and its later versions differ little: leaving one site out flatters. These
protocols leave out all sources of one maker's generator, all photo sources of one kind, both together, or all
generators of later years. Only for networks whose head is solved in closed form: each fold costs one linear solve.
"""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.errors import DatasetError
from asr_runtime.reports.progress import progress_bar
from asr_train.data.families import Families
from asr_train.data.json_file import write_json
from asr_train.data.layouts import DataFolder, Sample
from asr_train.figures.bootstrap import bootstrap_intervals, concordance
from asr_train.figures.decisions import decision_table
from asr_train.figures.metrics import CONTENT_BINS, balanced_calibration_error, content_strata
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import FAMILY_PROTOCOLS, ClosedFormConfig
from asr_train.fitting.whole_look import judged
from asr_train.protocols.folds import Fold, FoldContent

__all__ = ["FIRST_LATER_YEAR", "families_protocol", "family_folds"]

_FAMILY, _KIND, _BOTH, _LATER = FAMILY_PROTOCOLS
FIRST_LATER_YEAR = 2024
"""Generators from this year on are what `leave-later-generators-out` judges by."""

_RESAMPLES = 2000
_NESTED = "from training images of other families and kinds, by heads that saw neither these nor what is judged"
_NOT_NESTED = (
    "from training images of other families and kinds, by heads that had not seen these but had seen what is judged"
)
LOOKS = ("centre", "whole")

log = logging.getLogger("asr_train")


@dataclass(frozen=True)
class _Judgement:
    """One fold: its samples with their content-only scores, and probability and verdicts of each look."""

    fold: Fold
    content: NDArray[np.float64]
    probability: Mapping[str, NDArray[np.float64]]
    verdicts: Mapping[str, Sequence[str]]


def families_protocol(
    protocol: str,
    config: ClosedFormConfig,
    families: Families,
    runs: Path,
    at_least: int = 20,
    progress: bool = True,
) -> Mapping[str, Any]:
    """Train without families, judge by them.

    `leave-one-family-out`: a training without all sources of a family of generators (and without the sources that mix
    several generators); its validation images against all validation photos.
    `leave-one-photo-kind-out`: a training without all photo sources of a kind; all generated validation images of known
    families against the photos of that kind.
    `leave-one-family-and-photo-kind-out`: for every pair of a family and a kind, a training without both; the one
    against the other. A family's figures pool its pairs.
    `leave-later-generators-out`: one training without the generators of `FIRST_LATER_YEAR` and later, and of unknown
    year; each family of those years against all validation photos.

    The content-only probe sees what training sees. Where a kind is left out beside a family, it has seen other photos
    of that kind, so it holds content fixed more strictly. Thresholds come from training images of which the head had
    seen neither the family nor the kind (`ClosedForm.calibration`). Those of the judged family and kind are no part of
    them, but the heads that scored the others have seen it. (`leave-later-generators-out`: they have not.)

    Results are written to `runs`/PROTOCOL.json.

    Args:
        protocol: one of `FAMILY_PROTOCOLS`.
        config: of each training.
        families: of the data folder's sources.
        runs: folder for extracted features.
        at_least: families with fewer validation images are left out of no training; kinds with fewer than half of that.
        progress: show progress bars.

    Returns:
        Plain JSON data: `generators` (family or kind -> figures of the default look, `ca_auroc`, `auroc`, ..., worst
        first), their means `mean_ca_auroc`, ... with a 95% `interval` over families, `looks` (means of each look),
        `decisions` (look -> decision table) and `protocol`.

    Raises:
        DatasetError: no family has enough validation images, or nothing is left to train on.
    """
    data = config.pictures()
    groups = family_folds(protocol, data, families, at_least)
    solved = ClosedForm(pretrained(config), config, data, runs, families)
    content = FoldContent(data, progress)
    looks = LOOKS if config.windows > 1 else LOOKS[:1]
    results: dict[str, dict[str, Any]] = {}
    everything: list[_Judgement] = []
    for fold in sorted((fold for folds in groups.values() for fold in folds), key=lambda fold: fold.photos or ""):
        solved.head(fold.without)  # kind by kind: what is left out stays in the cache of moments
    for name, folds in progress_bar(groups.items(), protocol, visible=progress):
        family = frozenset(folds[0].without).intersection(*[fold.without for fold in folds])
        own = [_judge(solved, fold, content(fold, family), nested=protocol == _LATER) for fold in folds]
        results[name] = {look: _figures(own, look) for look in looks}
        everything += own
        log.info("%s, never seen: %s", name, {look: round(results[name][look]["auroc"], 4) for look in looks})
    facts = {
        "protocol": protocol.replace("-", " "),
        "thresholds": _NESTED if protocol == _LATER else _NOT_NESTED,
        "equalise": config.equalise,
        "config": config.published(),
        "fingerprint": data.summary()["fingerprint"],
    }
    summary = json.loads(json.dumps(_summary(facts, results, everything, families, solved.default_look)))
    write_json(runs / f"{protocol}.json", summary)
    return dict(summary)


def family_folds(protocol: str, data: DataFolder, families: Families, at_least: int) -> dict[str, list[Fold]]:
    """Return the folds of every family, or kind, that is judged.

    Args:
        protocol: one of `FAMILY_PROTOCOLS`.
        data: the pictures.
        families: of their sources.
        at_least: as for `families_protocol`.

    Raises:
        DatasetError: no family has enough validation images.
    """
    train, val = data.train, data.split("val")
    names = families.judged(1, val, at_least)
    kinds = families.judged(0, val, max(1, at_least // 2))
    real = tuple(s for s in val if s.label == 0)
    generated = tuple(s for s in val if s.label == 1 and families.is_known(1, s.source))

    def own(label: int, name: str) -> tuple[Sample, ...]:
        return tuple(s for s in val if s.label == label and families.of(label, s.source) == name)

    def without(label: int, name: str) -> frozenset[str]:
        return families.sources_without(label, name, train)

    if protocol == _FAMILY:
        folds = {f: [Fold(f, None, (*own(1, f), *real), tuple(sorted(without(1, f))))] for f in names}
    elif protocol == _KIND:
        folds = {k: [Fold(k, k, (*generated, *own(0, k)), tuple(sorted(without(0, k))))] for k in kinds}
    elif protocol == _BOTH:
        folds = {
            f: [Fold(f, k, (*own(1, f), *own(0, k)), tuple(sorted(without(1, f) | without(0, k)))) for k in kinds]
            for f in names
        }
        folds = {f: some for f, some in folds.items() if some}
    else:
        later = {
            s.source for s in train if s.label == 1 and families.years.get((1, s.source), 9999) >= FIRST_LATER_YEAR
        }
        judged_by = {f: [s for s in own(1, f) if s.source in later] for f in names}
        folds = {
            f: [Fold(f, None, (*samples, *real), tuple(sorted(later)))]
            for f, samples in judged_by.items()
            if len(samples) >= at_least
        }
    if not folds:
        raise DatasetError(
            f"{data.root}: {protocol}: no family with {at_least} validation images or more is left to judge by"
        )
    return folds


def _judge(solved: ClosedForm, fold: Fold, content: NDArray[np.float64], nested: bool) -> _Judgement:
    head = solved.head(fold.without)
    centre, whole = solved.thresholds("leave-families-out", fold.without if nested else (), ignored=fold.without)
    rows = solved.store.rows(fold.samples)
    samples = solved.store.samples(rows)
    margins = solved.store.margins(head, rows)
    looks = {"centre": judged(margins, centre, None)}
    if whole is not None:
        looks["whole"] = judged(margins, centre, whole)
    of = dict(zip((s.path for s in fold.samples), content, strict=True))
    return _Judgement(
        Fold(fold.generator, fold.photos, samples, fold.without),
        np.array([of[s.path] for s in samples]),
        {look: probability for look, (probability, _) in looks.items()},
        {look: verdicts for look, (_, verdicts) in looks.items()},
    )


def _figures(judgements: Sequence[_Judgement], look: str) -> dict[str, Any]:
    """Return the figures of one family; images are compared within a fold only."""
    labels, scores, strata, folds = [], [], [], []
    for number, one in enumerate(judgements):
        labels.append(np.array([s.label for s in one.fold.samples]))
        scores.append(one.probability[look if look in one.probability else "centre"])
        strata.append(content_strata(one.content) + CONTENT_BINS * number)
        folds.append(np.full(len(labels[-1]), number))
    joined, probability = np.concatenate(labels), np.concatenate(scores)
    figures: dict[str, Any] = {
        "images": len(joined),
        "ai": len({s.path for one in judgements for s in one.fold.samples if s.label == 1}),
        "real": len({s.path for one in judgements for s in one.fold.samples if s.label == 0}),
        "ca_auroc": _number(concordance(joined, probability, np.concatenate(strata))),
        "auroc": _number(concordance(joined, probability, np.concatenate(folds))),
        "balanced_ece": balanced_calibration_error(joined, probability),
    }
    if len(judgements) == 1:
        ends = bootstrap_intervals(joined, probability, np.concatenate(strata), (), 15, figures)
        figures["interval"] = {key: ends[key] for key in ("ca_auroc", "auroc") if key in ends}
    return figures


def _number(values: NDArray[np.float64]) -> float | None:
    """Return None for the NaN of a comparison without pairs."""
    return None if np.isnan(values[0]) else float(values[0])


def _summary(
    facts: Mapping[str, Any],
    results: Mapping[str, Mapping[str, Mapping[str, Any]]],
    everything: Sequence[_Judgement],
    families: Families,
    default: str,
) -> dict[str, Any]:
    looks = list(next(iter(results.values())))
    means = {look: _means([figures[look] for figures in results.values()]) for look in looks}
    ordered = sorted(results.items(), key=lambda item: item[1][default]["ca_auroc"] or 0.0)
    shown = {key: value for key, value in means[default].items() if key != "interval"}
    return {
        "protocol": {**facts, "look": default},
        **{f"mean_{key}": value for key, value in shown.items()},
        "interval": means[default]["interval"],
        "looks": means,
        "decisions": {look: _decisions(everything, families, look) for look in looks},
        "generators": {name: {**figures[default], "looks": dict(figures)} for name, figures in ordered},
    }


def _means(figures: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return means over families with 95% intervals: families are drawn with replacement."""
    rng = np.random.default_rng(0)
    figures_mean: dict[str, Any] = {"interval": {}}
    for key in ("ca_auroc", "auroc", "balanced_ece"):
        values = np.array([one[key] for one in figures if one[key] is not None])
        figures_mean[key] = float(values.mean()) if len(values) else None
        if len(values) > 1:
            means = rng.choice(values, (_RESAMPLES, len(values))).mean(axis=1)
            figures_mean["interval"][key] = np.quantile(means, [0.025, 0.975]).tolist()
    return figures_mean


def _decisions(everything: Sequence[_Judgement], families: Families, look: str) -> dict[str, Any]:
    def rows() -> Iterator[tuple[int, str, str]]:
        for one in everything:
            verdicts = one.verdicts[look if look in one.verdicts else "centre"]
            for sample, verdict in zip(one.fold.samples, verdicts, strict=True):
                yield sample.label, verdict, families.of(sample.label, sample.source)

    labels, verdicts, names = zip(*rows(), strict=True)
    return decision_table(np.array(labels), verdicts, names)
