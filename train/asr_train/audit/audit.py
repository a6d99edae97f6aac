"""Finds shortcuts of a data folder: facts other than generator traces that give the label away.

A detector learns whatever separates the classes. If all fakes are lossless, or all photos show food, it learns that,
and its figures say nothing about generators. The audit measures how well such facts alone predict the label.
"""

from __future__ import annotations

import dataclasses
import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from asr_runtime.contract import sigmoid
from asr_runtime.errors import SourceError
from asr_train.audit.duplicates import duplicates
from asr_train.audit.file_facts import FileFacts, file_facts, summary
from asr_train.audit.leaks import (
    ATTRIBUTES,
    Attribute,
    Folds,
    cross_validation_folds,
    difference,
    file_scores,
    measured,
)
from asr_train.data.layouts import SPLITS, DataFolder, Sample, picture_counts
from asr_train.figures.content import content_features, fit_features, too_small

__all__ = ["GIVES_AWAY", "Audit", "audit", "audit_warning"]

log = logging.getLogger("asr_train")

GIVES_AWAY = 0.6
"""AUROC from which on something counts as giving the label away, if that is no accident of few images."""

_LARGEST_READ = 100_000  # files of a split that are read; more are drawn at random
_LARGEST = {"train": 4000, "val": 2000, "test": 2000}  # images whose content is looked at; 30 ms each
_LARGEST_WARNING = {"train": 2000, "val": 1000, "test": 0}
_AT_LEAST = 10  # validation images of a generator that is left out


@dataclass(frozen=True)
class Audit:
    """The results of an audit, all plain JSON data.

    Attributes:
        data: name, layout, notes, counts per split, `unreadable` files.
        measured: how AUROCs came about.
        findings: what predicts the label, highest AUROC first: `what`, `kind` (`file`, `content`), `auroc`, `interval`,
            `images`, `gives_away`, and `says` in words.
        files: AUROC of all file facts together; None where it cannot be measured.
        content: AUROC of the content-only probe; None where it cannot be measured, `content_note` says why.
        content_note: how the probe was fitted.
        leave_one_generator_out: `mean_content`, `mean_files` and, per generator, the AUROC (`content`, `files`) of
            probes that have not seen it against all validation photos.
        duplicates: see `duplicates`; `blank`: pictures of one colour.
        groups: facts per split and class (`source` None) and per split, class and source.
    """

    data: Mapping[str, Any]
    measured: str
    findings: Sequence[Mapping[str, Any]]
    files: Mapping[str, Any] | None
    content: Mapping[str, Any] | None
    content_note: str
    leave_one_generator_out: Mapping[str, Any]
    duplicates: Mapping[str, Any]
    groups: Sequence[Mapping[str, Any]]

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return dataclasses.asdict(self)


@dataclass(frozen=True)
class _Files:
    """Readable files with their facts."""

    samples: list[Sample]
    splits: NDArray[np.str_]
    labels: NDArray[np.int_]
    facts: list[FileFacts]

    def where(self, chosen: NDArray[np.bool_]) -> _Files:
        indices = np.flatnonzero(chosen).tolist()
        samples, facts = [self.samples[i] for i in indices], [self.facts[i] for i in indices]
        return _Files(samples, self.splits[chosen], self.labels[chosen], facts)


def audit(data: DataFolder, progress: bool = True) -> Audit:
    """Find shortcuts: facts other than generator traces that give the label away.

    File facts of every file (of 100,000 of a split with more) are measured one by one and together (boosted trees),
    content by a probe (see `asr_train.figures.content`) on at most 4,000 training and 2,000 validation images, both
    fitted on the training split and measured on the validation split, and once more with one generator left out at a
    time. File size is not among the facts: it depends on how much noise a picture has, which is a trace.

    Args:
        data: the folder.
        progress: show progress bars on stderr.

    Raises:
        WeightsError: the package with the weights of the content-only control is not installed.
    """
    files, unreadable = _read(data, hashes=True, progress=progress, largest=dict.fromkeys(SPLITS, _LARGEST_READ))
    for name, why in unreadable.items():
        log.warning("skipped: %s: %s", name, why)
    folds, how = cross_validation_folds(files.splits, files.labels)
    single = [finding for attribute in ATTRIBUTES if (finding := _finding(attribute, files)) is not None]
    scores = file_scores(files.facts, files.labels, folds)
    features, looked_at, note = _content(files, _LARGEST, progress)
    content_folds, _ = cross_validation_folds(looked_at.splits, looked_at.labels)
    content = measured(looked_at.labels, _content_scores(features, looked_at, content_folds))
    if content is not None:
        single.append({"what": "content", "kind": "content", **content, "says": _content_says(content["auroc"])})
    facts = [{**f, "gives_away": _gives_away(f)} for f in sorted(single, key=lambda f: -float(f["auroc"]))]
    twice = duplicates(files.samples, files.splits.tolist(), files.facts, data.root)
    blank = [
        s.path.relative_to(data.root).as_posix() for s, f in zip(files.samples, files.facts, strict=True) if f.blank
    ]
    return Audit(
        data={
            "name": data.root.name,
            "layout": data.layout,
            "notes": [*data.notes, *_only_some(data)],
            "images": {name: _counts(getattr(data, name)) for name in SPLITS if getattr(data, name)},
            "unreadable": unreadable,
        },
        measured=how,
        findings=facts,
        files=measured(files.labels, scores),
        content=content,
        content_note=note,
        leave_one_generator_out=_leave_one_out(files, looked_at, features),
        duplicates={**twice, "blank": blank},
        groups=_groups(files),
    )


def _only_some(data: DataFolder) -> list[str]:
    """Say where not all files are read."""
    return [
        f"of {len(samples)} images of the split {name}, {_LARGEST_READ} drawn at random were read"
        for name in SPLITS
        if len(samples := getattr(data, name)) > _LARGEST_READ
    ]


def audit_warning(data: DataFolder, progress: bool = False) -> str | None:
    """Return one line of warning if file facts or content alone predict the label with an AUROC above 0.6, else None.

    Looks at no more than 2,000 training and 1,000 validation images. Their content is read from the cache, or looked
    at once (30 ms each).
    """
    files, _ = _read(data, hashes=False, progress=progress, largest=_LARGEST_WARNING)
    folds, _ = cross_validation_folds(files.splits, files.labels)
    features, looked_at, _ = _content(files, _LARGEST_WARNING, progress)
    content_folds, _ = cross_validation_folds(looked_at.splits, looked_at.labels)
    measured_leaks = {
        "container, size and compression of the files": measured(
            files.labels, file_scores(files.facts, files.labels, folds)
        ),
        "subject matter": measured(looked_at.labels, _content_scores(features, looked_at, content_folds)),
    }
    leaks = [
        f"{name} (AUROC {f['auroc']:.2f})" for name, f in measured_leaks.items() if f is not None and _gives_away(f)
    ]
    if not leaks:
        return None
    return (
        f"{data.root.name}: facts other than generator traces give the label away: {' and '.join(leaks)}; "
        f"asr-audit --data {data.root} shows them all, and ca-AUROC is the figure to trust"
    )


def _read(data: DataFolder, hashes: bool, progress: bool, largest: Mapping[str, int]) -> tuple[_Files, dict[str, str]]:
    samples: list[Sample] = []
    splits: list[str] = []
    for name in SPLITS:
        own = _drawn(getattr(data, name), largest[name])
        samples += own
        splits += [name] * len(own)
    facts, unreadable = file_facts(samples, data.root, hashes, progress)
    readable = [i for i, fact in enumerate(facts) if fact is not None]
    files = _Files(
        [samples[i] for i in readable],
        np.array([splits[i] for i in readable], dtype=np.str_),
        np.array([samples[i].label for i in readable], dtype=np.int64),
        [fact for fact in facts if fact is not None],
    )
    return files, {path.removeprefix(f"{data.root}/"): why for path, why in unreadable.items()}


def _drawn(samples: Sequence[Sample], largest: int) -> list[Sample]:
    """Return the pictures, or so many of them drawn at random; a damaged row of an index is left out by its reason."""
    chosen = np.arange(len(samples))
    if len(samples) > largest:
        chosen = np.sort(np.random.default_rng(0).choice(len(samples), largest, replace=False))
    drawn = []
    for row in chosen.tolist():
        try:
            drawn.append(samples[row])
        except SourceError as error:
            log.warning("skipped: %s", error)
    return drawn


def _content(files: _Files, largest: Mapping[str, int], progress: bool) -> tuple[NDArray[np.float32], _Files, str]:
    """Return features of a sample of the files, these files, and a note on the sample."""
    chosen = np.zeros(len(files.samples), bool)
    for name, most in largest.items():
        own = np.flatnonzero(files.splits == name)
        chosen[np.random.default_rng(0).permutation(own)[:most]] = True
    none = files.where(np.zeros(len(files.samples), bool))
    if (side := too_small(files.samples)) is not None:
        return np.empty((0, 0), np.float32), none, f"not measured: images of {side} px show traces even in a thumbnail"
    looked_at = files.where(chosen)
    features = content_features(looked_at.samples, progress)
    readable: NDArray[np.bool_] = np.asarray(~np.isnan(features).any(1))
    return features[readable], looked_at.where(readable), f"ImageNet features of thumbnails, {readable.sum()} images"


def _content_scores(features: NDArray[np.float32], files: _Files, folds: Folds) -> NDArray[np.float64]:
    """Return the probability of AI-generated (n,) by content alone; NaN for images that no fold measures."""
    scores = np.full(len(files.samples), np.nan)
    for fit, test in folds:
        probe = fit_features(features[fit], [files.samples[i] for i in fit.tolist()])
        scores[test] = sigmoid(probe.score_features(features[test]))
    return scores


def _leave_one_out(files: _Files, looked_at: _Files, features: NDArray[np.float32]) -> dict[str, Any]:
    """Fit on the training split without a generator, measure it on its validation images against all photos."""
    counts = Counter(
        s.source for s, split in zip(files.samples, files.splits, strict=True) if split == "val" and s.label
    )
    generators: dict[str, dict[str, float]] = {}
    for name in sorted(name for name, count in counts.items() if count >= _AT_LEAST):
        aurocs: dict[str, float] = {}
        for kind, own in (("content", looked_at), ("files", files)):
            fold = _without(own, name)
            if fold is None:
                continue
            by_content = kind == "content"
            scores = (
                _content_scores(features, own, [fold]) if by_content else file_scores(own.facts, own.labels, [fold])
            )
            if (figures := measured(own.labels, scores)) is not None:
                aurocs[kind] = figures["auroc"]
        if aurocs:
            generators[name] = aurocs
    means = {
        f"mean_{kind}": float(np.mean(values))
        for kind in ("content", "files")
        if (values := [g[kind] for g in generators.values() if kind in g])
    }
    return {**means, "generators": generators}


def _without(files: _Files, name: str) -> tuple[NDArray[np.int_], NDArray[np.int_]] | None:
    sources = np.array([s.source for s in files.samples])
    fit = np.flatnonzero((files.splits == "train") & (sources != name))
    test = np.flatnonzero((files.splits == "val") & ((files.labels == 0) | (sources == name)))
    both = all(len(set(files.labels[own].tolist())) == 2 for own in (fit, test))
    return (fit, test) if both else None


def _finding(attribute: Attribute, files: _Files) -> dict[str, Any] | None:
    """Measure one attribute alone; None where it cannot be measured or is the same everywhere."""
    own = files
    if attribute.jpeg_only:
        own = files.where(np.array([fact.container == "JPEG" for fact in files.facts], dtype=bool))
    values = [attribute.value(fact) for fact in own.facts]
    if len(set(values)) < 2:
        return None
    folds, _ = cross_validation_folds(own.splits, own.labels)
    figures = measured(own.labels, file_scores(own.facts, own.labels, folds, [attribute]))
    if figures is None:
        return None
    what = f"{attribute.name} (of JPEG files)" if attribute.jpeg_only else attribute.name
    return {"what": what, "kind": "file", **figures, "says": difference(values, own.labels)}


def _content_says(auroc: float) -> str:
    return (
        "subjects differ: 48 px thumbnails tell the classes apart" if auroc > GIVES_AWAY else "subjects hardly differ"
    )


def _gives_away(figures: Mapping[str, Any]) -> bool:
    """Whether an AUROC is three standard errors above chance: of so many attributes, some exceed two by chance."""
    low, high = figures["interval"]
    error = (high - low) / (2 * 1.96)
    return bool(figures["auroc"] > max(GIVES_AWAY, 0.5 + 3 * error))


def _counts(samples: Sequence[Sample]) -> dict[str, int]:
    counts = picture_counts(samples)
    return {kind: sum(n for (k, _), n in counts.items() if k == label) for label, kind in ((0, "real"), (1, "ai"))}


def _groups(files: _Files) -> list[dict[str, Any]]:
    groups = []
    sources = np.array([s.source for s in files.samples])
    for split in SPLITS:
        for label, kind in ((0, "real"), (1, "ai")):
            own = (files.splits == split) & (files.labels == label)
            names = sorted(set(sources[own].tolist()))
            for source in (None, *names) if names else ():
                chosen = own if source is None else own & (sources == source)
                group = {"split": split, "class": kind, "source": source}
                groups.append({**group, **summary(files.where(chosen).facts)})
    return groups
