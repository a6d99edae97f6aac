"""A study: trials that the sampler chooses, in one or several processes, in a storage that outlives them.

Two objectives: the mean content-adjusted AUROC on families of generators left out (higher is better), and the
multiply-adds of the network (lower is better). A trial ends early when a finished one that costs no more is clearly
better on what is known so far: no figure that is left could bring it to the Pareto front.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import torch
from optuna.storages import RDBStorage
from optuna.study import MaxTrialsCallback, Study
from optuna.trial import FrozenTrial, Trial, TrialState
from sqlalchemy.exc import SQLAlchemyError
from threadpoolctl import threadpool_limits

from asr_models import ModelsError
from asr_runtime.errors import ConfigurationError
from asr_train.fitting.config import ClosedFormConfig
from asr_train.tuning.judging import Judge, cost_in_macs
from asr_train.tuning.shared_features import SharedFeatures
from asr_train.tuning.space import Choice, Space, configured, default_choices, suggest

__all__ = ["FIGURE", "MACS", "STEPS", "Search", "finished", "open_study", "run_trials"]

log = logging.getLogger("asr_train")

FIGURE, MACS = 0, 1
"""Places of the objectives in a trial's values."""
STEPS = "steps"
"""Attribute of a trial: name of each step, and the mean figure that was known after it."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
_HEARTBEAT = 60  # seconds; a trial whose process is silent for twice as long counts as failed
_LOCKED = 120  # seconds that a process waits for another to write into an SQLite file


@dataclass(frozen=True)
class Search:
    """What is searched: everything that a process needs to run trials.

    Attributes:
        storage: URL of the database.
        name: of the study in it.
        models: networks, all trained the same way.
        base: fields that every trial has, as `recipe` takes them.
        space: what a trial may change.
        judged: families that judge trials.
        trials: how many trials the study has in the end.
        margin: how much better a finished trial that costs no more must be to end another; None: none is ended early.
        warmup: steps (families or epochs) before a trial may end early.
        seed: of the sampler.
        folder: of the study; extracted features are stored here.
        processes: that run trials.
    """

    storage: str
    name: str
    models: tuple[str, ...]
    base: Mapping[str, Any]
    space: Space
    judged: tuple[str, ...]
    trials: int
    margin: float | None
    warmup: int
    seed: int
    folder: Path
    processes: int = 1

    def facts(self, fingerprint: str) -> dict[str, Any]:
        """Return what all trials of a study share, as plain JSON data."""
        known = {"models": self.models, "base": self.base, "space": {k: vars(v) for k, v in self.space.items()}}
        return dict(json.loads(json.dumps({**known, "judged": self.judged, "fingerprint": fingerprint})))


def open_study(search: Search, fingerprint: str) -> Study:
    """Open the study, or begin it with the recipe of the first network as its first trial.

    Raises:
        ConfigurationError: the storage cannot be opened, or the study was begun with other data, space or families.
    """
    study = _load(search, 0)
    facts = search.facts(fingerprint)
    before = study.user_attrs.get("facts")
    if before is None:
        study.set_user_attr("facts", facts)
        for model in search.models:
            if (chosen := default_choices(model, search.models, search.space, search.base)) is not None:
                study.enqueue_trial(chosen, user_attrs={"recipe": True})
    elif before != facts:
        changed = [key for key in facts if facts[key] != before[key]]
        raise ConfigurationError(
            f"{search.name}: was begun with another {', '.join(changed)}; give --name another name for a new study"
        )
    return study


def _load(search: Search, process: int) -> Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    arguments = {"connect_args": {"timeout": _LOCKED}} if search.storage.startswith("sqlite:") else {}
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            storage = RDBStorage(search.storage, engine_kwargs=arguments, heartbeat_interval=_HEARTBEAT)
            sampler = optuna.samplers.TPESampler(seed=search.seed + process, multivariate=True, group=True,
                                                 constant_liar=search.processes > 1)  # fmt: skip
            return optuna.create_study(
                storage=storage,
                sampler=sampler,
                study_name=search.name,
                directions=["maximize", "minimize"],
                load_if_exists=True,
            )
    except (SQLAlchemyError, ImportError, ValueError, RuntimeError, OSError) as error:
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"{search.storage}: no study can be kept there ({why})") from None


def finished(study: Study) -> int:
    """Count the trials that need no more work."""
    return len(study.get_trials(deepcopy=False, states=_FINISHED))


def run_trials(
    search: Search, study: Study, judge: Judge, shared: SharedFeatures | None, prepare: Callable[[], object]
) -> None:
    """Run trials until the study has as many as the search asks for; what is finished already counts.

    Args:
        search: what is searched.
        study: as `open_study` returns it.
        judge: of its data folder.
        shared: features that trials share; for the closed form.
        prepare: what every process does first; a function of a module.

    Raises:
        ConfigurationError: a process ended; what is finished stays in the storage.
    """
    missing = search.trials - finished(study)
    if missing <= 0:
        return
    if shared is not None:
        _extract_all(search, shared)
    processes = min(search.processes, missing)
    if processes == 1:
        _optimise(search, study, judge, shared)
        return
    context = multiprocessing.get_context("spawn")
    files = shared and SharedFeatures(shared.data, shared.folder, shared.everything)  # without the tables in memory
    workers = [
        context.Process(target=_worker, args=(search, number, judge, files, prepare))
        for number in range(1, processes + 1)
    ]
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        for worker in workers:
            if worker.is_alive():
                worker.terminate()
    if failed := [worker.exitcode for worker in workers if worker.exitcode]:
        raise ConfigurationError(f"{search.name}: a process of the search ended with code {failed[0]}; run it again")


def _extract_all(search: Search, shared: SharedFeatures) -> None:
    """Extract for every strength first: processes would extract the same at the same time."""
    strengths = search.space.get("strength")
    for strength in strengths.values if isinstance(strengths, Choice) else (1.0,):
        config = configured({"model": search.models[0], "strength": strength}, search.base)
        assert isinstance(config, ClosedFormConfig)
        shared.extract(config)


def _worker(
    search: Search, number: int, judge: Judge, shared: SharedFeatures | None, prepare: Callable[[], object]
) -> None:
    prepare()
    threads = max(1, (os.cpu_count() or 1) // search.processes)
    torch.set_num_threads(threads)
    with threadpool_limits(threads):
        _optimise(search, _load(search, number), judge, shared)


def _optimise(search: Search, study: Study, judge: Judge, shared: SharedFeatures | None) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        study.optimize(
            lambda trial: _try(trial, search, judge, shared),
            callbacks=[_stop_at(search.trials), _say],
            catch=(ConfigurationError, ModelsError),
        )


def _stop_at(trials: int) -> MaxTrialsCallback:
    return MaxTrialsCallback(trials, states=_FINISHED)


def _say(study: Study, trial: FrozenTrial) -> None:
    steps = trial.user_attrs.get(STEPS, {})
    figure = f"{list(steps.values())[-1]:.4f} after {len(steps)}" if steps else "-"
    macs = trial.user_attrs.get("macs", 0) / 1e9
    log.info("trial %d %s: %s, %.2f G multiply-adds", trial.number, trial.state.name.lower(), figure, macs)


def _try(trial: Trial, search: Search, judge: Judge, shared: SharedFeatures | None) -> tuple[float, float]:
    chosen = suggest(trial, search.models, search.space)
    config = configured(chosen, search.base)
    macs = cost_in_macs(config)
    trial.set_user_attr("macs", macs)
    steps: dict[str, float] = {}

    def after(step: str, figures: Mapping[str, float]) -> None:
        steps[step] = float(np.mean(list(figures.values())))
        trial.set_user_attr(STEPS, steps)
        done = trial.study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if search.margin is not None and search.warmup <= len(steps) and _hopeless(steps, macs, done, search.margin):
            raise optuna.TrialPruned

    figures = judge.figures(config, search.judged, shared, after)
    trial.set_user_attr("figures", figures)
    return float(np.mean(list(figures.values()))), macs


def _hopeless(steps: Mapping[str, float], macs: float, done: Sequence[FrozenTrial], margin: float) -> bool:
    """Whether a finished trial that costs no more was better by more than `margin` at the same step."""
    last = list(steps)[-1]
    rivals = [trial.user_attrs[STEPS] for trial in done if trial.user_attrs["macs"] <= macs]
    return any(last in rival and rival[last] > steps[last] + margin for rival in rivals)
