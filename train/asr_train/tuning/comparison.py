"""The best configuration of a study beside the recipe, over several seeds and over families that judged no trial."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from asr_runtime.errors import ConfigurationError
from asr_train.fitting.config import ClosedFormConfig, LoopConfig
from asr_train.tuning.judging import Judge, cost_in_macs
from asr_train.tuning.shared_features import SharedFeatures
from asr_train.tuning.space import configured, suggest
from asr_train.tuning.study import FIGURE, MACS, Search

__all__ = ["best_trial", "compared", "configuration_of", "front"]


def front(study: Study) -> list[FrozenTrial]:
    """Return the trials that no other beats in both objectives, cheapest first."""
    return sorted(study.best_trials, key=lambda trial: (trial.values[MACS], -trial.values[FIGURE]))


def best_trial(study: Study, most_macs: float | None) -> FrozenTrial:
    """Return the trial with the highest figure whose network costs at most so many multiply-adds.

    Raises:
        ConfigurationError: there is none.
    """
    allowed = [trial for trial in front(study) if most_macs is None or trial.values[MACS] <= most_macs]
    if not allowed:
        count = len(study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)))
        limit = "" if most_macs is None else f" that costs at most {most_macs:g} multiply-adds"
        raise ConfigurationError(f"{study.study_name}: none of {count} finished trials has a network{limit}")
    return max(allowed, key=lambda trial: trial.values[FIGURE])


def configuration_of(trial: FrozenTrial, search: Search) -> LoopConfig | ClosedFormConfig:
    """Return the configuration that a finished trial trained."""
    return configured(suggest(trial, search.models, search.space), search.base)


def compared(
    search: Search, best: FrozenTrial, seeds: Sequence[int], judge: Judge, shared: SharedFeatures | None
) -> dict[str, Any]:
    """Train the recipe of the best trial's network, and the best trial, with several seeds.

    Families that judged no trial judge here too: the search has chosen nothing by them. By gradient descent the
    two groups are left out of one training each.

    Args:
        search: that is finished.
        best: its best trial.
        seeds: of the trainings.
        judge: of its data folder.
        shared: features that trials share; for the closed form.

    Returns:
        Plain JSON data: `judged` and `fresh` (names of families), and for `recipe` and `best` their `macs` and
        `seeds`, one entry each with `seed`, `figures` (family -> ca-AUROC) and the means `judged` and `fresh` (None
        without any such family).
    """
    chosen = configuration_of(best, search)
    recipe = configured({"model": chosen.model}, search.base)
    fresh = tuple(name for name in judge.names if name not in search.judged)
    result: dict[str, Any] = {"judged": list(search.judged), "fresh": list(fresh)}
    for name, config in (("recipe", recipe), ("best", chosen)):
        rows = []
        for seed in seeds:
            figures = _figures(
                dataclasses.replace(config, seed=seed), search.judged, fresh, judge, shared, seed == config.seed
            )
            means = {key: _mean(figures, names) for key, names in (("judged", search.judged), ("fresh", fresh))}
            rows.append({"seed": seed, "figures": figures, **means})
        result[name] = {"macs": cost_in_macs(config), "seeds": rows}
    return result


def _figures(
    config: LoopConfig | ClosedFormConfig,
    judged: Sequence[str],
    fresh: Sequence[str],
    judge: Judge,
    shared: SharedFeatures | None,
    is_of_trials: bool,
) -> dict[str, float]:
    """Judge a configuration by both groups of families; `is_of_trials`: trials had its seed, so features are there."""
    if isinstance(config, ClosedFormConfig):
        assert shared is not None
        features = shared if is_of_trials else shared.alone(config)
        return judge.figures(config, (*judged, *fresh), features)
    figures = judge.figures(config, judged, None)
    return figures | judge.figures(config, fresh, None) if fresh else figures


def _mean(figures: dict[str, float], names: Sequence[str]) -> float | None:
    return float(np.mean([figures[name] for name in names])) if names else None
