"""A study as one HTML page without scripts or outside resources: front, importances, comparison, every trial."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from asr_train.figures.html_page import html_page
from asr_train.figures.plots import Row, plot_bars, plot_front
from asr_train.tuning.comparison import front
from asr_train.tuning.study import FIGURE, MACS, STEPS, Search

__all__ = ["importances", "study_page"]

_FEWEST = 8  # finished trials that importances can be computed from
_OBJECTIVES = {"figure": FIGURE, "cost": MACS}


def importances(study: Study) -> dict[str, dict[str, float]]:
    """Return how much each setting explains of the figure's and the cost's variance over finished trials (fANOVA).

    Hutter, Hoos and Leyton-Brown 2014, "An efficient approach for assessing hyperparameter importance". Settings that
    some networks lack are compared among the trials of the network with the most trials.

    Returns:
        `figure` and `cost` -> setting -> share, largest first; an objective that hardly varies is missing.
    """
    done = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    groups: dict[frozenset[str], list[FrozenTrial]] = {}
    for trial in done:
        groups.setdefault(frozenset(trial.params), []).append(trial)
    largest = max(groups.values(), key=len, default=[])
    chosen = done if len(groups) == 1 else largest
    if len(chosen) < _FEWEST:
        return {}
    part = optuna.create_study(directions=study.directions)
    part.add_trials(chosen)
    result = {}
    for name, place in _OBJECTIVES.items():
        if np.ptp([trial.values[place] for trial in chosen]) < 1e-12:
            continue
        evaluator = optuna.importance.FanovaImportanceEvaluator(seed=0)
        target = partial(_value, place)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            result[name] = optuna.importance.get_param_importances(part, evaluator=evaluator, target=target)
    return result


def _value(place: int, trial: FrozenTrial) -> float:
    return float(trial.values[place])


def study_page(study: Study, search: Search, best: FrozenTrial) -> str:
    """Write the page.

    Args:
        study: with at least one finished trial.
        search: that made it.
        best: the trial whose configuration is best.toml.

    Returns:
        HTML, UTF-8, self-contained.
    """
    return html_page(
        "asr_train.tuning",
        "study.html.jinja",
        {"figure": _figure, "macs": _macs, "choice": _choice},
        _context(study, search, best),
    )


def _context(study: Study, search: Search, best: FrozenTrial) -> dict[str, Any]:
    trials = study.get_trials(deepcopy=False)
    done = [trial for trial in trials if trial.state == TrialState.COMPLETE]
    places = {trial.number: place for place, trial in enumerate(done)}
    recipe = next((trial for trial in done if trial.user_attrs.get("recipe")), None)
    leading = front(study)
    return {
        "search": search,
        "best": best,
        "recipe": recipe,
        "front": leading,
        "settings": list(dict.fromkeys(name for trial in trials for name in trial.params)),
        "trials": sorted(trials, key=_order),
        "states": {state.name.lower(): sum(t.state == state for t in trials) for state in TrialState},
        "steps": {trial.number: list(trial.user_attrs.get(STEPS, {}).values()) for trial in trials},
        "front_plot": plot_front(
            [(trial.values[MACS], trial.values[FIGURE]) for trial in done],
            [places[trial.number] for trial in leading],
            places[best.number],
            None if recipe is None else places[recipe.number],
        ),
        "importance_plots": {
            name: plot_bars(name, [Row(key, value) for key, value in shares.items()], "share of the variance", origin=0)
            for name, shares in importances(study).items()
        },
        "comparison": _comparison(study.user_attrs.get("comparison")),
        "facts": study.user_attrs["facts"],
    }


def _order(trial: FrozenTrial) -> tuple[float, int]:
    return (-trial.values[FIGURE] if trial.state == TrialState.COMPLETE else 2.0, trial.number)


def _comparison(comparison: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Add means over seeds: of every family, of those that judged and of those that did not."""
    if comparison is None:
        return None
    names = [*comparison["judged"], *comparison["fresh"]]
    sides = {}
    for side in ("recipe", "best"):
        rows = comparison[side]["seeds"]
        sides[side] = {
            "macs": comparison[side]["macs"],
            "seeds": rows,
            "families": {name: _over([row["figures"][name] for row in rows]) for name in names},
            **{key: _over([row[key] for row in rows if row[key] is not None]) for key in ("judged", "fresh")},
        }
    return {"judged": comparison["judged"], "fresh": comparison["fresh"], "sides": sides}


def _over(values: Sequence[float]) -> dict[str, float] | None:
    return {"mean": float(np.mean(values)), "low": min(values), "high": max(values)} if values else None


def _figure(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"


def _macs(value: float | None) -> str:
    return "-" if value is None else f"{value / 1e9:.3g} G"


def _choice(value: object) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value).strip('"')
