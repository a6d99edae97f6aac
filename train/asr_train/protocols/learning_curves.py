"""Learning curves: figures on a generator never seen, as images, generators and photo sources grow in number.

Only for networks whose head is solved in closed form: a point of a curve costs one linear solve.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score

from asr_runtime.errors import ConfigurationError
from asr_runtime.reports.progress import progress_bar
from asr_runtime.whole_file import write_whole
from asr_train.data.json_file import write_json
from asr_train.figures.metrics import content_adjusted_auroc
from asr_train.figures.plots import plot_learning_curves
from asr_train.fitting.closed_form import ClosedForm, pretrained
from asr_train.fitting.config import ClosedFormConfig, TrainConfig
from asr_train.fitting.ridge import RidgeFit
from asr_train.protocols.folds import FoldContent, folds_of, judged_generators

__all__ = ["learning_curves"]

log = logging.getLogger("asr_train")
_SHARES = (0.125, 0.25, 0.5, 1.0)
_COUNTS = (1, 2, 4, 8)


@dataclass(frozen=True)
class _Point:
    """One random choice of training data.

    Attributes:
        curve: what is scarce.
        count: number of images or sources in training.
        rows: rows of the images in training; None for all.
        order: sources that are scarce, in random order: the first `count` that are not judged stay.
    """

    curve: str
    count: int
    rows: NDArray[np.int_] | None = None
    order: tuple[str, ...] = ()

    def without(self, generator: str) -> set[str]:
        """Sources that a head judged by this generator does not see."""
        return {generator, *[source for source in self.order if source != generator][self.count :]}


def learning_curves(
    config: TrainConfig, runs: Path, draws: int = 2, at_least: int = 10, progress: bool = True
) -> Mapping[str, Any]:
    """Leave one generator out with a part of the training data: fewer images, generators, or photo sources.

    `images` keeps a share of every source; `generators` some of the other generators and all photos; `photo sources`
    some of them and all other generators. A generator's content-only probe is the same for all points (it saw
    everything but that generator), so they can be read against each other.

    Results are written to `runs`/learning-curves.json and .svg.

    Args:
        config: of an asrnet-lite; pairs are not used.
        runs: folder for extracted features.
        draws: random choices per point.
        at_least: generators with fewer validation images are not judged by.
        progress: show a progress bar.

    Returns:
        Plain JSON data: `curves`: name -> points, each with `count` (images or sources in training), `ca_auroc` and
        `auroc` (means over generators and draws; None where nothing could be compared) and `draws` (those of each).

    Raises:
        ConfigurationError: another network.
        DatasetError: no generator has enough validation images.
    """
    if not isinstance(config, ClosedFormConfig):
        raise ConfigurationError(f"learning-curves: {config.model} would be trained hundreds of times; use asrnet-lite")
    config = dataclasses.replace(config, pairs=None)
    data = config.pictures()
    names = judged_generators(data, at_least)
    solved, content = ClosedForm(pretrained(config), config, data, runs), FoldContent(data, progress)
    judged = [(fold, content(fold)) for name in names for fold in folds_of(data, name, with_photos=False)]
    points = list(_points(solved.fit, draws, np.random.default_rng(config.seed)))
    curves: dict[str, list[dict[str, Any]]] = {}
    for point in progress_bar(points, "learning curves", visible=progress):
        fit = solved.fit if point.rows is None else solved.fit.subset(point.rows)
        adjusted, plain = [], []
        for fold, content_scores in judged:
            head = fit.head(point.without(fold.generator))
            labels = np.array([sample.label for sample in fold.samples])
            margins = solved.store.margins(head, solved.store.rows(fold.samples))[:, 0]
            adjusted.append(content_adjusted_auroc(labels, margins, content_scores))
            plain.append(float(roc_auc_score(labels, margins)))
        drawn = {"ca_auroc": _mean(adjusted), "auroc": _mean(plain)}
        log.info("%s %d, generators never seen: %s", point.curve, point.count, drawn)
        curve = curves.setdefault(point.curve, [])
        if not curve or curve[-1]["count"] != point.count:
            curve.append({"count": point.count, "draws": []})
        curve[-1]["draws"].append(drawn)
    for curve in curves.values():
        for at in curve:
            at.update({key: _mean([d[key] for d in at["draws"]]) for key in ("ca_auroc", "auroc")})
    facts = {"protocol": "learning curves, leave one generator out", "config": config.published()}
    result = {"protocol": facts, "curves": curves}
    write_json(runs / "learning-curves.json", result)
    write_whole(runs / "learning-curves.svg", plot_learning_curves(curves))
    return result


def _points(whole: RidgeFit, draws: int, rng: np.random.Generator) -> Iterator[_Point]:
    """Yield the points of all curves; what uses everything is drawn once."""
    for share in _SHARES:
        for _ in range(1 if share == 1 else draws):
            rows = None if share == 1 else _share_of_each(whole, share, rng)
            yield _Point("images", len(whole.pictures.group_of) if rows is None else len(rows), rows)
    for label, curve in ((1, "generators"), (0, "photo sources")):
        names = sorted({source for kind, source in whole.pictures.groups if kind == label})
        most = len(names) - label  # one generator is judged
        for count in (*(c for c in _COUNTS if c < most), most):
            for _ in range(1 if count == most else draws):
                yield _Point(curve, count, order=tuple(rng.permutation(names).tolist()))


def _share_of_each(whole: RidgeFit, share: float, rng: np.random.Generator) -> NDArray[np.int_]:
    """Choose rows: this share of every source of every class, at least one image."""
    kept = []
    for label, source in whole.pictures.groups:
        rows = np.flatnonzero(whole.pictures.of({source}, label))
        if len(rows):
            kept.append(rng.choice(rows, max(1, round(share * len(rows))), replace=False))
    return np.sort(np.concatenate(kept))


def _mean(values: list[float] | list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None
