"""Configurations as TOML: what `asr-train --config` reads, and every run folder holds as `config.toml`.

Keys are the fields of the network's configuration (`LoopConfig`, `ClosedFormConfig`), with the tables `options` (of the
network), `augment` and `preprocess`. What a file leaves out has the value of the network's recipe.
"""

from __future__ import annotations

import dataclasses
import inspect
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import tomli_w

from asr_models import InputTransform, ModelsError, option_names
from asr_runtime.errors import ConfigurationError
from asr_runtime.whole_file import write_whole
from asr_train.data.augment import Augment
from asr_train.fitting.config import TrainConfig, config_type, recipe

__all__ = ["CONFIG", "load_config", "read_config", "write_config"]

CONFIG = "config.toml"
"""The configuration in a run folder."""

_TABLES = ("options", "augment", "preprocess")


def write_config(path: Path, config: TrainConfig) -> None:
    """Write a configuration; fields that are None are left out, as TOML has no such value.

    Raises:
        OutputError: the file cannot be written.
    """
    content = {name: value for name, value in config.to_dict().items() if value is not None}
    for table in _TABLES:
        content[table] = {name: value for name, value in content[table].items() if value is not None}
    write_whole(path, f"# asr-train --config {path.name}\n{tomli_w.dumps(content)}")


def load_config(path: Path) -> TrainConfig:
    """Read the whole configuration of a run.

    Raises:
        ConfigurationError: the file cannot be read, is damaged, or has an entry that is unknown or of a wrong type.
        OptionError: no such network.
    """
    content = _toml(path)
    if missing := [name for name in ("model", "data", *_TABLES) if name not in content]:
        raise ConfigurationError(f"{path}: no {missing[0]}: not the configuration of a run, or damaged")
    _refuse_unknown(path, content)
    return _convert(path, content, config_type(content["model"]))


def read_config(path: Path, model: str | None = None) -> dict[str, Any]:
    """Read a configuration that need not be complete.

    Args:
        path: TOML.
        model: network that is trained instead of the file's; its options are those that the file may hold.

    Returns:
        The fields that the file names, as `recipe` takes them; `options`, `augment` and `preprocess` are dicts with the
        entries that the file names.

    Raises:
        ConfigurationError: the file cannot be read or is no TOML; a key is unknown, or a value of a wrong type.
        OptionError: no such network.
    """
    content = _toml(path)
    content["model"] = name = model or content.get("model", "asrnet")
    _refuse_unknown(path, content)
    complete = {**recipe(name).to_dict(), **{k: v for k, v in content.items() if k not in _TABLES}}
    for table in _TABLES:
        complete[table] = {**complete[table], **content.get(table, {})}
    if "mode" in content.get("preprocess", {}) and complete["preprocess"]["mode"] != "resize-crop":
        complete["preprocess"].pop("resize", None)
    config = _convert(path, complete, config_type(name))
    fields = {key: getattr(config, key) for key in content if key not in _TABLES}
    for table in set(_TABLES) & set(content):
        whole = getattr(config, table)
        values = whole if isinstance(whole, Mapping) else dataclasses.asdict(whole)
        fields[table] = {key: values[key] for key in content[table]}
    return fields


def _toml(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"{path}: cannot be read ({error.strerror})") from None
    except (UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError) as error:
        raise ConfigurationError(f"{path}: damaged, not TOML ({error})") from None
    for table in set(_TABLES) & set(content):
        if not isinstance(content[table], dict):
            raise ConfigurationError(f"{path}: {table} {content[table]!r}: expected a table [{table}]")
    return content


def _refuse_unknown(path: Path, content: Mapping[str, Any]) -> None:
    name = content["model"]
    try:
        options = option_names(str(name))
    except ModelsError as error:
        raise ConfigurationError(f"{path}: {error}") from None
    known: dict[str, list[str]] = {
        "options": options,
        "augment": [entry.name for entry in dataclasses.fields(Augment)],
        "preprocess": list(inspect.signature(InputTransform).parameters),
    }
    fields = [entry.name for entry in dataclasses.fields(config_type(name))]
    unknown = [(key, fields) for key in content if key not in fields]
    unknown += [(f"{t}.{key}", known[t]) for t in _TABLES for key in content.get(t, {}) if key not in known[t]]
    if unknown:
        key, expected = unknown[0]
        raise ConfigurationError(f"{path}: unknown key {key!r} for {name}; expected one of {', '.join(expected)}")


def _convert(path: Path, content: Mapping[str, Any], kind: type[TrainConfig]) -> TrainConfig:
    """Check the types of all values, and turn lists into tuples."""
    try:
        return msgspec.convert(content, kind)
    except (msgspec.ValidationError, ConfigurationError, ModelsError, TypeError) as error:
        raise ConfigurationError(f"{path}: {error}") from None
