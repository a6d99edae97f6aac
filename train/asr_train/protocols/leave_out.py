"""Evaluation protocols that train: they measure a detector on a generator, and on photos, that it has never seen."""

from __future__ import annotations

import dataclasses
import json
import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asr_models import load_checkpoint
from asr_runtime.contract import Decision, OperatingPoint
from asr_runtime.errors import ConfigurationError, DatasetError
from asr_runtime.reports.progress import progress_bar
from asr_train.data.degradations import Degradation
from asr_train.data.json_file import read_json, write_json
from asr_train.data.layouts import DataFolder, find_data
from asr_train.figures.bootstrap import concordance
from asr_train.figures.metrics import (
    CONTENT_BINS,
    balanced_calibration_error,
    binary_metrics,
    calibration_error,
    content_strata,
    reliability,
    verdict_metrics,
)
from asr_train.figures.pairs import content_matched_pairs
from asr_train.figures.scoring import Scored, score_checkpoint, torch_device
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import PROTOCOLS, ClosedFormConfig, TrainConfig
from asr_train.fitting.fit import train
from asr_train.protocols.folds import Fold, FoldContent, folds_of, judged_generators

__all__ = ["leave_out_protocol"]

_GENERATOR, _PHOTOS, _RESYNTHESISER = PROTOCOLS
_DEGRADED = ("ca_auroc", "auroc")  # figures that are reported for every degradation

log = logging.getLogger("asr_train")


def leave_out_protocol(
    protocol: str,
    config: TrainConfig,
    runs: Path,
    at_least: int = 10,
    progress: bool = True,
    degradations: Sequence[Degradation] = (),
) -> Mapping[str, Any]:
    """Train without a source, then judge by that source; once for every generator.

    `leave-one-generator-out`: the validation images of the generator against all validation photos.
    `leave-one-generator-and-photos-out`: for every pair of a generator and a photo source, a training without both;
    all validation images of the one against all of the other. A generator's figures pool its pairs.
    `leave-one-resynthesiser-out`: the validation pairs of a network that redrew photos (asrnet-lite with pairs).

    Neither training, nor the choice of the best epoch, nor the content-only probe sees what is left out, and its own
    margins are no part of calibration. (ASRNet-Lite with photos left out as well: the margins of the other sources come
    from heads without the generator and that source, but with those photos.)

    Results are written to `runs`/PROTOCOL.json after every generator; one that stands there already, under the same
    configuration and data, is not computed again.

    Args:
        protocol: one of `PROTOCOLS`.
        config: of each training; its `seed` is the same for all.
        runs: folder for run folders and extracted features.
        at_least: generators with fewer validation images are never left out: their figures would say little.
        progress: show progress bars.
        degradations: `leave-one-generator-out` is judged under each of them as well.

    Returns:
        Plain JSON data: `generators` (figures per generator), the means `mean_ca_auroc`, `mean_auroc`, `mean_accuracy`,
        `mean_balanced_ece`, ... of the figures that all of them have, `pooled_balanced_ece` of all generators together,
        `mean_degraded` (degradation -> means), and `protocol`.

    Raises:
        DatasetError: no generator has enough validation images, or there are no validation pairs.
        ConfigurationError: the protocol needs pairs that are not configured, or takes no degradations.
    """
    data = config.pictures()
    pairs = config.pairs if isinstance(config, ClosedFormConfig) else None
    if protocol == _RESYNTHESISER and not isinstance(config, ClosedFormConfig):
        raise ConfigurationError(f"{protocol}: {config.model} is not trained with pairs; use asrnet-lite")
    if protocol == _RESYNTHESISER and pairs is None:
        raise ConfigurationError(f"{protocol} needs --pairs, a folder that asr-resynthesise made")
    if degradations and protocol != _GENERATOR:
        raise ConfigurationError(f"--degrade: {protocol} is not judged under degradations; {_GENERATOR} is")
    names = _resynthesisers(str(pairs)) if protocol == _RESYNTHESISER else judged_generators(data, at_least)
    path = runs / f"{protocol}.json"
    facts = {
        "protocol": protocol.replace("-", " "),
        "equalise": config.equalise,
        "config": config.published(),
        "fingerprint": data.summary()["fingerprint"],
    }
    if pairs is not None:
        facts["pairs_fingerprint"] = find_data(pairs, "generators").summary()["fingerprint"]
    if degradations:
        facts["degradations"] = [degradation.name for degradation in degradations]
    facts = json.loads(json.dumps(facts))
    done = read_json(path) if path.is_file() else {}
    results: dict[str, Any] = done.get("generators", {}) if done.get("protocol") == facts else {}
    missing = [name for name in names if name not in results]
    if missing:
        if protocol == _RESYNTHESISER:
            judge = _by_pairs(config, data, runs)
        else:
            judge = _by_folds(protocol, config, data, runs, progress, degradations)
        for name in missing:
            log.info("leaving out %s", name)
            results[name] = judge(name)
            log.info("%s, never seen: AUROC %.4f", name, results[name]["auroc"])
            write_json(path, _summary(facts, results))
    return _summary(facts, results)


class _Judged(NamedTuple):
    scored: Scored
    decision: Decision
    points: tuple[OperatingPoint, ...]
    run: str | None = None
    degraded: Mapping[str, Scored] = {}


def _resynthesisers(folder: str) -> list[str]:
    pairs = find_data(folder, "generators")
    names = sorted({twin.source for _, twin in content_matched_pairs(pairs.val)})
    if len(names) < 2:
        raise DatasetError(f"{pairs.root}: leaving one resynthesiser out needs validation pairs of two or more")
    return names


def _by_pairs(config: TrainConfig, data: DataFolder, runs: Path) -> Callable[[str], dict[str, Any]]:
    """Judge a resynthesiser by its pairs: never seen, and beside it (`seen_...`) trained with."""
    assert isinstance(config, ClosedFormConfig)
    solved = ClosedForm(pretrained(config), config, data, runs)
    everything = solved.pair_figures(solved.head())

    def judge(name: str) -> dict[str, Any]:
        seen = everything[name]
        unseen = solved.pair_figures(solved.head({name}))[name]
        return {**unseen, "seen_auroc": seen["auroc"], "seen_ranked_right": seen["ranked_right"]}

    return judge


def _by_folds(
    protocol: str,
    config: TrainConfig,
    data: DataFolder,
    runs: Path,
    progress: bool,
    degradations: Sequence[Degradation],
) -> Callable[[str], dict[str, Any]]:
    judge, content = _judge(config, data, runs, progress, degradations), FoldContent(data, progress)

    def figures(name: str) -> dict[str, Any]:
        return _figures(folds_of(data, name, with_photos=protocol == _PHOTOS), judge, content, progress)

    return figures


def _judge(
    config: TrainConfig, data: DataFolder, runs: Path, progress: bool, degradations: Sequence[Degradation]
) -> Callable[[Fold], _Judged]:
    if isinstance(config, ClosedFormConfig):
        solved = ClosedForm(pretrained(config), config, data, runs)

        def solve(fold: Fold) -> _Judged:
            ignored = () if fold.photos is None else (fold.photos,)
            fitted = solved.calibration("leave-one-out", (fold.generator,), ignored)
            head = solved.head(fold.without)
            scored = solved.score(head, fitted, fold.samples)
            degraded = {d.name: solved.score(head, fitted, fold.samples, d) for d in degradations}
            return _Judged(scored, fitted.decision, fitted.operating_points, degraded=degraded)

        return solve

    def fit(fold: Fold) -> _Judged:
        left_out = (*config.leave_out, *fold.without)
        run = train(dataclasses.replace(config, leave_out=left_out), runs, progress=progress)
        loaded = load_checkpoint(run.checkpoint)

        def score(degradation: Degradation | None = None) -> Scored:
            quality = config.quality if degradation is None else degradation.quality_after(config.quality)
            batch, workers, device = config.batch_size, config.workers, torch_device("auto")
            return score_checkpoint(loaded, fold.samples, quality, batch, workers, device, degradation)

        points = tuple(OperatingPoint(**point) for point in loaded.operating_points)
        degraded = {degradation.name: score(degradation) for degradation in degradations}
        return _Judged(score(), Decision(**loaded.decision), points, run.folder.name, degraded)

    return fit


def _figures(
    folds: Sequence[Fold], judge: Callable[[Fold], _Judged], content: FoldContent, progress: bool
) -> dict[str, Any]:
    """Judge one generator; with several folds, images are compared within a fold only."""
    steps = progress_bar(folds, folds[0].generator, visible=progress and len(folds) > 1)
    judged = [(fold, judge(fold), content(fold)) for fold in steps]
    if len(judged) == 1:
        fold, (scored, decision, points, run, degraded), probed = judged[0]
        of = dict(zip((s.path for s in fold.samples), probed, strict=True))
        content_scores = np.array([of[s.path] for s in scored.samples])
        worse = {}
        for name, under in degraded.items():
            figures_here = binary_metrics(
                under.labels, under.probability, np.array([of[s.path] for s in under.samples])
            )
            worse[name] = {key: figures_here[key] for key in _DEGRADED}
        sources = [s.source for s in scored.samples]
        figures = binary_metrics(scored.labels, scored.probability, content_scores)
        verdicts = verdict_metrics(scored.labels, scored.probability, sources, decision, points)
        content_auroc = float(roc_auc_score(scored.labels, content_scores))
        table = reliability(scored.labels, scored.probability).tolist()
        figures_here = {
            "run": run,
            **figures,
            "content_auroc": content_auroc,
            "verdicts": verdicts,
            "reliability": table,
        }
        return {**figures_here, "degraded": worse} if worse else figures_here
    return _pooled(judged)


def _pooled(judged: Sequence[tuple[Fold, _Judged, NDArray[np.float64]]]) -> dict[str, Any]:
    labels, margins, probability, strata, folds, false_positives = [], [], [], [], [], {}
    for number, (fold, (scored, _, points, *_), probed) in enumerate(judged):
        of = dict(zip((s.path for s in fold.samples), probed, strict=True))
        content_scores = np.array([of[s.path] for s in scored.samples])
        labels.append(scored.labels)
        margins.append(scored.margins)
        probability.append(scored.probability)
        strata.append(content_strata(content_scores) + CONTENT_BINS * number)
        folds.append(np.full(len(content_scores), number))
        photos = scored.probability[scored.labels == 0]
        false_positives[str(fold.photos)] = {
            "photos": len(photos),
            "found": float((photos >= points[-1].threshold).mean()),
        }
    joined = np.concatenate(labels)
    scores = np.concatenate(margins)
    every = sum(source["photos"] for source in false_positives.values())
    return {
        "images": len(joined),
        "ca_auroc": _number(concordance(joined, scores, np.concatenate(strata))[0]),
        "auroc": float(concordance(joined, scores, np.concatenate(folds))[0]),
        "balanced_ece": balanced_calibration_error(joined, np.concatenate(probability)),
        "reliability": reliability(joined, np.concatenate(probability)).tolist(),
        "false_positive_rate_at_5%": sum(s["photos"] * s["found"] for s in false_positives.values()) / every,
        "false_positives": false_positives,
    }


def _number(value: float) -> float | None:
    """Return None for the NaN of a comparison without pairs."""
    return None if np.isnan(value) else float(value)


def _summary(facts: Mapping[str, Any], results: Mapping[str, Any]) -> dict[str, Any]:
    """Put means over generators before the figures of each."""

    def mean(key: str, of: Iterable[Mapping[str, Any]] = results.values()) -> float | None:
        values = [figures[key] for figures in of if figures.get(key) is not None]
        return float(np.mean(values)) if values else None

    keys = (
        "ca_auroc",
        "auroc",
        "content_auroc",
        "accuracy",
        "balanced_ece",
        "false_positive_rate_at_5%",
        "ranked_right",
        "seen_auroc",
        "seen_ranked_right",
    )
    means: dict[str, Any] = {f"mean_{key}": value for key in keys if (value := mean(key)) is not None}
    if tables := [np.array(figures["reliability"]) for figures in results.values() if "reliability" in figures]:
        means["pooled_balanced_ece"] = calibration_error(np.sum(tables, axis=0))
    if "degradations" in facts:
        means["mean_degraded"] = {
            name: {key: mean(key, [figures["degraded"][name] for figures in results.values()]) for key in _DEGRADED}
            for name in facts["degradations"]
        }
    return {"protocol": facts, **means, "generators": dict(results)}
