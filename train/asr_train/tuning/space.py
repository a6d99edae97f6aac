"""What a search may change, and how a trial's choices become a configuration.

A space is a table of names. A name is a field of the network's configuration (`lr`, `ridge`), an entry of one of its
tables (`options.dim`, `augment.blur`), `crop_size`, or `strength`: a factor on the recipe's probabilities of resizing,
editing, blur, noise and masking. Re-encoding is left as it is, because it keeps file history from telling the label.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from asr_models import option_names
from asr_runtime.errors import ConfigurationError
from asr_train.data.augment import Augment
from asr_train.fitting.config import ClosedFormConfig, LoopConfig, changed_preprocess, config_type, recipe

__all__ = ["CLOSED_FORM", "LOOP", "Choice", "Range", "Space", "configured", "default_choices", "read_space", "suggest"]

_STRENGTH = ("resize", "edit", "blur", "noise", "patch_mask")


@dataclass(frozen=True)
class Choice:
    """One of some values; `"none"` leaves the network's own value."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A number between two, both included; whole if both are; `log`: as likely in every decade."""

    low: float
    high: float
    log: bool = False


Space = Mapping[str, Choice | Range]

CLOSED_FORM: Space = {
    "options.scales": Choice(([1], [2])),
    "options.blocks": Range(7, 15),
    "options.activations": Choice(("none", [0, 5], [3, 8], [3, 11], [0, 11])),
    "options.correlations": Choice((0, 5)),
    "strength": Choice((0.5, 1.0)),
    "plain_weight": Range(0.0, 0.9),
    "ridge": Range(1e-3, 1.0, log=True),
}
"""Magnification, trunk, statistics, augmentation and penalty of an ASRNet-Lite."""

LOOP: Space = {
    "options.dim": Choice((8, 16, 32, 64)),
    "options.front_end": Choice(("zero-sum", "official")),
    "options.prototypes": Range(1, 8),
    "options.spectrum": Choice(("global", "patch")),
    "strength": Range(0.0, 2.0),
    "lr": Range(3e-5, 3e-2, log=True),
    "weight_decay": Range(1e-6, 1e-1, log=True),
    "label_smoothing": Range(0.0, 0.2),
}
"""Front end, spectrum, width, augmentation and optimiser of networks that gradient descent trains."""


def read_space(path: Path, models: Sequence[str]) -> Space:
    """Read a space from TOML: a name is a list of values, or a table with `low`, `high` and perhaps `log`.

        "options.scales" = [[1], [2]]
        ridge = { low = 0.001, high = 1.0, log = true }

    Args:
        path: the file.
        models: the networks; each name must be a setting of one of them.

    Raises:
        ConfigurationError: the file cannot be read, no network has a name, or an entry is neither.
    """
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigurationError(f"{path}: damaged, not TOML ({error})") from None
    known = {name for model in models for name in _names(model)}
    if unknown := sorted(set(content) - known):
        raise ConfigurationError(
            f"{path}: {unknown[0]!r} is no setting of {', '.join(models)}; expected some of {', '.join(sorted(known))}"
        )
    return {name: _entry(path, name, value) for name, value in content.items()}


def _entry(path: Path, name: str, value: Any) -> Choice | Range:
    if isinstance(value, list) and value:
        return Choice(tuple(value))
    if isinstance(value, dict) and {"low", "high"} <= set(value) <= {"low", "high", "log"}:
        low, high, log = value["low"], value["high"], value.get("log", False)
        numbers = all(isinstance(end, (int, float)) and not isinstance(end, bool) for end in (low, high))
        if numbers and isinstance(log, bool) and low < high and (low > 0 or not log):
            return Range(low, high, log)
    raise ConfigurationError(
        f"{path}: {name}: expected a list of values, or low, high (above low; low above 0 with log) and perhaps log"
    )


def suggest(trial: optuna.trial.BaseTrial, models: Sequence[str], space: Space) -> dict[str, Any]:
    """Let the sampler choose a network, and what the space has for it; return name -> value.

    Args:
        trial: asks the sampler.
        models: networks, all trained the same way.
        space: entries that a network does not have are left out for it.

    """
    model = trial.suggest_categorical("model", list(models)) if len(models) > 1 else models[0]
    chosen: dict[str, Any] = {"model": model}
    known = _names(model)
    for name, entry in space.items():
        if name in known:
            chosen[name] = _suggest(trial, name, entry)
    return chosen


def _suggest(trial: optuna.trial.BaseTrial, name: str, entry: Choice | Range) -> Any:
    if isinstance(entry, Choice):
        # Optuna stores texts and numbers only.
        return json.loads(trial.suggest_categorical(name, [json.dumps(value) for value in entry.values]))
    if isinstance(entry.low, int) and isinstance(entry.high, int):
        return trial.suggest_int(name, entry.low, entry.high, log=entry.log)
    return trial.suggest_float(name, entry.low, entry.high, log=entry.log)


def _names(model: str) -> set[str]:
    fields = {entry.name for entry in dataclasses.fields(config_type(model))} - {"model", "options", "augment", "data"}
    options = {f"options.{name}" for name in option_names(model)}
    return {*fields, *options, *(f"augment.{entry.name}" for entry in dataclasses.fields(Augment))} | {
        "crop_size",
        "strength",
    }


def configured(chosen: Mapping[str, Any], base: Mapping[str, Any]) -> LoopConfig | ClosedFormConfig:
    """Return the configuration of a trial.

    Args:
        chosen: name -> value, as `suggest` returns it.
        base: fields that every trial has, as `recipe` takes them; options of other networks are left out.

    Raises:
        ConfigurationError: values that cannot work together.
    """
    model = chosen["model"]
    fields: dict[str, Any] = {key: value for key, value in base.items() if key != "model"}
    options = {key: value for key, value in fields.pop("options", {}).items() if key in option_names(model)}
    augment = dict(fields.pop("augment", {}))
    for name, value in chosen.items():
        table, _, key = name.rpartition(".")
        if value == "none":
            (options if table == "options" else fields).pop(key, None)
        elif table:
            (options if table == "options" else augment)[key] = value
        elif name not in ("model", "strength", "crop_size"):
            fields[name] = value
    if "activations" in options and "blocks" in options:
        first, last = options["activations"]
        options["activations"] = [min(first, options["blocks"] - 1), min(last, options["blocks"] - 1)]
    if "correlations" in options and "blocks" in options:
        options["correlations"] = min(options["correlations"], options["blocks"])
    fields["preprocess"] = changed_preprocess(model, fields.get("preprocess", {}), None, chosen.get("crop_size"))
    config = recipe(model, **fields, options=options, augment=augment)
    factor = chosen.get("strength", 1.0)
    scaled = {name: min(1.0, factor * getattr(config.augment, name)) for name in _STRENGTH}
    return dataclasses.replace(config, augment=dataclasses.replace(config.augment, **scaled))


def default_choices(model: str, models: Sequence[str], space: Space, base: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return the parameters of the trial that is the network's recipe, as the storage holds them; None if outside."""
    config = configured({"model": model}, base)
    chosen: dict[str, Any] = {"model": model} if len(models) > 1 else {}
    for name, entry in space.items():
        if name not in _names(model):
            continue
        value = _default(config, name)
        if isinstance(entry, Choice):
            texts = [json.dumps(choice) for choice in entry.values]
            if json.dumps(value) not in texts:
                return None
            chosen[name] = json.dumps(value)
        elif isinstance(value, (int, float)) and entry.low <= value <= entry.high:
            chosen[name] = value
        else:
            return None
    return chosen


def _default(config: LoopConfig | ClosedFormConfig, name: str) -> Any:
    """Return what a recipe has under a name of the space; `none` for what it leaves to the network."""
    if name == "strength":
        return 1.0
    if name == "crop_size":
        return config.preprocess["size"]
    table, _, key = name.rpartition(".")
    if table == "augment":
        return getattr(config.augment, key)
    if table == "options":
        value = {**_NETWORK_DEFAULTS, **config.options}.get(key, "none")
        return list(value) if isinstance(value, tuple) else value
    return getattr(config, key)


_NETWORK_DEFAULTS: Mapping[str, Any] = {
    **{"blocks": 15, "scales": [1], "activations": "none", "correlations": 0},
    **{"dim": 64, "front_end": "zero-sum", "prototypes": 5},
    **{"spectrum": "global", "patch": 32},
}
