"""The configuration of a training run, with the recipe of each network as its defaults."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr_models import InputTransform, default_preprocess, option_names
from asr_runtime.contract import Preprocess
from asr_runtime.errors import ConfigurationError
from asr_train.data.augment import Augment
from asr_train.data.layouts import DataFolder, find_data
from asr_train.data.windows import window_places

__all__ = [
    "FAMILY_PROTOCOLS",
    "PROTOCOLS",
    "ClosedFormConfig",
    "LoopConfig",
    "TrainConfig",
    "changed_preprocess",
    "config_type",
    "recipe",
]

PROTOCOLS = ("leave-one-generator-out", "leave-one-generator-and-photos-out", "leave-one-resynthesiser-out")
"""What `asr_train.protocols.leave_out` leaves out of training and judges by."""

FAMILY_PROTOCOLS = (
    "leave-one-family-out",
    "leave-one-photo-kind-out",
    "leave-one-family-and-photo-kind-out",
    "leave-later-generators-out",
)
"""What `asr_train.protocols.leave_families_out` leaves out."""

_LARGEST_SEED = 2**32 - 1  # of NumPy


@dataclass(frozen=True)
class TrainConfig:
    """What every training uses; stored as `config.toml` in the run folder.

    Not built itself: `LoopConfig` adds what gradient descent uses, `ClosedFormConfig` what the closed form uses.
    """

    model: str = "asrnet"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network
    weights: str = "none"  # pretrained backbone: imagenet, a file, or none
    preprocess: Mapping[str, Any] = field(default_factory=lambda: dict(default_preprocess("asrnet")))

    data: str = "dataset"
    layout: str | None = None  # None: recognised from the folders
    labels_by_position: bool = False  # rows of label_test.csv stand in the order of the sorted files
    leave_out: tuple[str, ...] = ()  # sources that are in no split
    per_source: tuple[int, int] | None = None  # most images of a class of a source, training and validation; None: all
    equalise: int | Literal["off"] = 90  # JPEG quality at which validation and calibration images are re-encoded
    augment: Augment = field(default_factory=Augment)

    batch_size: int = 32
    seed: int = 42
    workers: int = 2  # processes that read and augment
    threads: int | None = None  # of the network; None: PyTorch's choice

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ConfigurationError: names the value.
        """
        self._above_zero("batch_size")
        self._zero_or_more("workers")
        if self.equalise != "off" and not 1 <= self.equalise <= 100:
            raise ConfigurationError(f"equalise {self.equalise}: expected a JPEG quality from 1 to 100, or off")
        if self.per_source is not None and min(self.per_source) < 1:
            raise ConfigurationError(f"per_source {self.per_source}: expected two numbers above 0")
        if not 0 <= self.seed <= _LARGEST_SEED:
            raise ConfigurationError(f"seed {self.seed}: expected 0 to {_LARGEST_SEED}")
        InputTransform(**self.preprocess)
        try:
            Preprocess(**self.preprocess)  # what the runtime will take
        except ValueError as error:
            raise ConfigurationError(str(error)) from None

    def _above_zero(self, *names: str) -> None:
        for name in names:
            if not 0 < getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} {getattr(self, name)}: expected a number above 0")

    def _zero_or_more(self, *names: str) -> None:
        for name in names:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigurationError(f"{name} {getattr(self, name)}: expected 0 or more")

    @property
    def quality(self) -> int | None:
        """JPEG quality of `equalise`; None if it is off."""
        return None if self.equalise == "off" else self.equalise

    def pictures(self) -> DataFolder:
        """Read the data folder, without the sources that are left out.

        Raises:
            DatasetError: it is not what its layout says, or has no such source.
        """
        data = find_data(self.data, self.layout, self.labels_by_position).without(self.leave_out)
        return data if self.per_source is None else data.thinned(*self.per_source)

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return dataclasses.asdict(self)

    def published(self) -> dict[str, Any]:
        """Return what may travel with a model: as `to_dict`, without the folders of this machine."""
        weights = self.weights if self.weights in ("none", "imagenet") else Path(self.weights).name
        return {**self.to_dict(), "data": Path(self.data).name, "weights": weights}


@dataclass(frozen=True)
class LoopConfig(TrainConfig):
    """Training by gradient descent. The defaults are the published ASRNet recipe; `recipe` gives another network's."""

    balance: Literal["sources", "classes", "none"] = "sources"  # what is drawn equally often
    epochs: int = 50
    epoch_size: int | None = None  # draws per epoch; None: as many as there are training images
    lr: float = 2e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.937, 0.999)
    label_smoothing: float = 0.1
    schedule: Literal["cosine", "plateau"] = "cosine"  # cosine: to `final_lr` of lr; plateau: x 0.1 after 2 flat epochs
    final_lr: float = 0.01
    warmup_epochs: float = 1.0  # linear, from 0; at most a fifth of the run
    clip: float = 1.0  # largest gradient norm; 0 switches clipping off
    amp: Literal["auto", "on", "off", "bf16"] = "auto"  # 16 bits; auto: CUDA, or a processor with bfloat16
    accumulate: int = 1  # parts in which a batch is computed, one after the other
    save_every: int | None = None  # parts of batches after which an unfinished epoch can be resumed; None: no
    monitor: Literal["auroc", "acc", "f1", "loss"] = "auroc"  # which validation score is best
    patience: int | None = None  # epochs without a better score before stopping; None: never
    min_delta: float = 0.0  # how much better counts as better

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ConfigurationError: names the value.
        """
        super().__post_init__()
        self._above_zero("epochs", "lr", "accumulate")
        if self.save_every is not None:
            self._above_zero("save_every")
        if self.batch_size % self.accumulate:
            raise ConfigurationError(
                f"batch_size {self.batch_size}: expected a multiple of accumulate {self.accumulate}"
            )
        self._zero_or_more("warmup_epochs", "weight_decay", "clip", "min_delta")


@dataclass(frozen=True)
class ClosedFormConfig(TrainConfig):
    """Solving for a linear head on frozen features."""

    windows: int = 1  # of every image as evaluation sees it; 1: the centre, 5 or 9: over all of the image
    top: int | None = None  # how many of the windows' largest margins are averaged; None: all
    families: str | None = None  # CSV file; None: families.csv in or beside the data folder, if there is one
    views: int = 2  # augmented views of every training image, beside its windows
    plain_weight: float = 0.4  # of all windows, relative to all windows and views of an image
    ridge: float = 0.03  # penalty, relative to each feature's variance
    pairs: str | None = None  # folder of content-matched pairs (asr-resynthesise)
    pair_weight: float = 0.1  # of the pairs, relative to all other images

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ConfigurationError: names the value.
        """
        super().__post_init__()
        window_places(self.windows)
        if self.top is not None and not 1 <= self.top <= self.windows:
            raise ConfigurationError(f"top {self.top}: expected 1 to {self.windows}, the number of windows")
        self._above_zero("views", "ridge")
        self._zero_or_more("pair_weight")
        if not 0 <= self.plain_weight < 1:
            raise ConfigurationError(f"plain_weight {self.plain_weight}: expected 0 or more, below 1")

    def published(self) -> dict[str, Any]:
        """Return what may travel with a model: as `to_dict`, without the folders of this machine."""
        names = {name: Path(file).name if (file := getattr(self, name)) else None for name in ("pairs", "families")}
        return {**super().published(), **names}


def config_type(model: str) -> type[LoopConfig] | type[ClosedFormConfig]:
    """Return how a network is trained: ASRNet-Lite in closed form, every other by gradient descent."""
    return ClosedFormConfig if model == "asrnet-lite" else LoopConfig


def recipe(model: str, **given: Any) -> LoopConfig | ClosedFormConfig:
    """Return the recipe of a network, with the values that were given instead of it.

    Args:
        model: registry name.
        given: fields of the network's configuration; None means not given. `options` and `augment` are dicts that may
            lack entries.

    Raises:
        ConfigurationError: a value was given that this network's training does not use.
        OptionError: no such network or option.
    """
    option_names(model)
    used = {entry.name for entry in dataclasses.fields(config_type(model))}
    for name in [name for name, value in given.items() if name not in used]:
        if given.pop(name) is not None:
            how = "solved for in closed form" if model == "asrnet-lite" else "trained by gradient descent"
            raise ConfigurationError(
                f"--{name.replace('_', '-')}: {model} is {how}, which does not use it; leave it out"
            )
    options = {**(given.pop("options", None) or {})}
    defaults: dict[str, Any] = {"model": model, "options": options, "preprocess": dict(default_preprocess(model))}
    if model == "asrnet-lite":
        # Statistics of whole maps: black patches would only blur them.
        augment = Augment(resize=0.5, resize_range=(0.5, 2.0), edit=0.35, patch_mask=0.0)
        # Maps of more images do not fit into a processor's cache.
        defaults |= {"weights": "imagenet", "batch_size": 8, "augment": augment}
    elif model.startswith("fft-"):
        local = options.get("spectrum") == "patch"
        defaults |= {
            "weights": "imagenet",
            "epochs": 50 if local else 12,
            "batch_size": 96 if local else 64,
            "lr": 1e-3,
            "weight_decay": 1e-2,
            "betas": (0.9, 0.999),
            "label_smoothing": 0.0,
            "schedule": "plateau",
            "warmup_epochs": 0.0,
            "monitor": "f1",
            "patience": 4,
            "min_delta": 0.003,
        }
    given["augment"] = dataclasses.replace(defaults.get("augment", Augment()), **(given.get("augment") or {}))
    defaults |= {name: value for name, value in given.items() if value is not None}
    if model.startswith("fft-"):
        options.setdefault("freeze", defaults["weights"] != "none")
    return config_type(model)(**defaults)


def changed_preprocess(model: str, given: Mapping[str, Any], mode: str | None, size: int | None) -> dict[str, Any]:
    """Return a network's preprocessing with some entries changed.

    Args:
        model: registry name.
        given: entries that replace the network's own.
        mode: replaces them all; None: not given.
        size: side of the crop in pixels, likewise. A resize keeps its ratio to the crop.
    """
    chosen = {**default_preprocess(model), **given}
    new_mode, new_size = mode or chosen["mode"], chosen["size"] if size is None else size
    if new_mode != "resize-crop":
        chosen.pop("resize", None)
    elif "resize" not in given or (new_mode, new_size) != (chosen["mode"], chosen["size"]):
        chosen["resize"] = round(new_size * 256 / 224)
    return {**chosen, "mode": new_mode, "size": new_size}
