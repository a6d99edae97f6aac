"""The folder of a run: how it is made, what it contains, and how a stopped run is resumed."""

from __future__ import annotations

import dataclasses
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from asr_models import (
    InputTransform,
    ModelsError,
)
from asr_runtime.errors import ConfigurationError, DatasetError, OutputError
from asr_runtime.machine import package_version
from asr_train.data.json_file import read_json, write_json
from asr_train.data.layouts import DataFolder
from asr_train.data.shards import is_sharded
from asr_train.fitting.config import LoopConfig, TrainConfig
from asr_train.fitting.config_file import CONFIG, load_config, write_config
from asr_train.fitting.launch import note_run
from asr_train.fitting.training_data import warn_of_small_images

__all__ = [
    "FACTS",
    "RESUME",
    "Run",
    "check_weights",
    "epochs_done",
    "how_to_go_on",
    "prepared_folder",
    "resumed_config",
]

RESUME = "resume.ckpt"
"""Lightning's checkpoint in a run folder, written after every epoch."""
FACTS = (CONFIG, "data.json", "environment.json", "summary.json")
"""Files that say what a run was and what came out, beside its checkpoint."""


@dataclass(frozen=True)
class Run:
    """A finished run: its folder, the calibrated checkpoint and the summary that summary.json holds."""

    folder: Path
    checkpoint: Path
    summary: Mapping[str, Any]

    @property
    def best(self) -> str:
        """Name the best validation score and its epoch."""
        monitor = self.summary["config"].get("monitor", "auroc")
        where = f" in epoch {epoch}" if (epoch := self.summary["best_epoch"]) else ""
        return f"{monitor} {self.summary[f'val_{monitor}']:.4f}{where}"


def resumed_config(folder: Path, epochs: int | None, data: Path | None) -> LoopConfig:
    """Return the configuration that a run goes on with; the arguments are those of `fit.resume`.

    Raises:
        ConfigurationError: not a run folder, it is damaged, it never finished an epoch, or has finished more than
            `epochs`.
        DatasetError: the data folder is not where it was.
    """
    if not (folder / CONFIG).is_file() or not (folder / RESUME).is_file():
        raise ConfigurationError(f"{folder}: not a run that can be resumed: expected {CONFIG} and {RESUME} in it")
    try:
        config = load_config(folder / CONFIG)
    except (ConfigurationError, ModelsError) as error:
        raise ConfigurationError(f"{folder}: its configuration is damaged ({error}); start a new run") from None
    if not isinstance(config, LoopConfig):
        raise ConfigurationError(f"{folder}: {config.model} is solved for in one step; start a new run")
    if epochs is not None:
        config = dataclasses.replace(config, epochs=epochs)
    if (done := epochs_done(folder)) > config.epochs:
        raise ConfigurationError(f"{folder}: {done} epochs are done already; expected --epochs {done} or more")
    if data is not None:
        config = dataclasses.replace(config, data=str(data))
    elif not is_sharded(config.data) and not Path(config.data).is_dir():
        raise DatasetError(f"{config.data}: no such folder; if the data of {folder} moved, add --data DIR")
    return config


def epochs_done(folder: Path) -> int:
    """Return how many epochs of a run are finished.

    Raises:
        ConfigurationError: its `RESUME` is damaged.
    """
    try:
        content = torch.load(folder / RESUME, map_location="cpu", weights_only=True)
        return int(content["epoch"]) + 1
    except Exception as error:  # whatever damaged bytes lead to
        why = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigurationError(f"{folder / RESUME}: damaged ({why}); start a new run") from None


def check_weights(folder: Path, network: nn.Module) -> None:
    """Refuse a run whose `RESUME` holds the weights of another network than its configuration names.

    Raises:
        ConfigurationError: it does.
    """
    weights = torch.load(folder / RESUME, map_location="cpu", weights_only=True).get("state_dict", {})
    shapes = {name: value.shape for name, value in network.state_dict(prefix="network.").items()}
    if {name: value.shape for name, value in weights.items() if name in shapes} != shapes:
        raise ConfigurationError(f"{folder}: {CONFIG} and {RESUME} are of different networks; start a new run")


def how_to_go_on(folder: Path) -> str:
    """Return how to continue a run that was stopped, in words."""
    if (folder / RESUME).is_file():
        return f"go on with asr-train --resume {folder}"
    return f"no epoch was finished, so {folder} cannot be resumed; start again"


def prepared_folder(config: TrainConfig, data: DataFolder, runs: Path, resumed: Path | None) -> Path:
    """Make the run folder, or check the one that is resumed, and write what the run is.

    Raises:
        ConfigurationError: there is no free name for a folder in `runs`.
        OutputError: the folder cannot be made or written.
        DatasetError: the data is not what the run was begun with.
    """
    facts = data.summary()
    if resumed is not None:
        _check_same_data(resumed, data.root, facts)
    folder = resumed or _new_folder(runs)
    note_run(folder)
    write_config(folder / CONFIG, config)
    write_json(folder / "environment.json", _environment(), sort_keys=True)
    write_json(folder / "data.json", facts, sort_keys=True)
    if isinstance(config, LoopConfig):
        warn_of_small_images(data, InputTransform(**config.preprocess))
    return folder


def _check_same_data(folder: Path, root: Path, facts: Mapping[str, Any]) -> None:
    before = read_json(folder / "data.json")
    if before.get("fingerprint") != facts["fingerprint"]:
        raise DatasetError(f"{root}: not the data that {folder} was begun with, or changed since; start a new run")


def _new_folder(runs: Path) -> Path:
    stamp = time.strftime("run-%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{n}" for n in range(2, 1000))):
        folder = runs / (stamp + suffix)
        try:
            folder.mkdir(parents=True)
        except FileExistsError:
            continue
        except OSError as error:
            raise OutputError(
                f"{folder}: cannot be made ({error.strerror}); expected a folder with space that may be written"
            ) from None
        return folder
    raise ConfigurationError(f"{runs}: no free name for a run folder")


def _environment() -> dict[str, Any]:
    packages = ("asrnet-edge", "torch", "torchvision", "lightning", "numpy", "opencv-python")
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "threads": torch.get_num_threads(),
        "packages": {name: package_version(name) for name in packages},
    }
