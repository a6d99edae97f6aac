"""The configuration of a training run, with the recipe of each network as its defaults."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from asr_models import Preprocess, default_preprocess, option_names
from asr_runtime.errors import ConfigurationError
from asr_train.data.augment import Augment

__all__ = ["PROTOCOLS", "TrainConfig", "recipe"]

PROTOCOLS = ("leave-one-generator-out", "leave-one-generator-and-photos-out", "leave-one-resynthesiser-out")
"""What `asr_train.protocols.leave_out` leaves out of training and judges by."""

_CLOSED_FORM_ONLY = ("views", "plain_weight", "ridge", "pairs", "pair_weight")
_LOOP_ONLY = (
    "epochs",
    "epoch_size",
    "lr",
    "weight_decay",
    "label_smoothing",
    "schedule",
    "warmup_epochs",
    "clip",
    "amp",
    "monitor",
    "patience",
    "balance",
)


@dataclass(frozen=True)
class TrainConfig:
    """Everything that decides what a run computes; stored as `config.json` in the run folder.

    The defaults are the published ASRNet recipe; `recipe(name)` gives another network's.
    """

    model: str = "asrnet"
    options: Mapping[str, Any] = field(default_factory=dict)  # of the network
    weights: str = "none"  # pretrained backbone: imagenet, a file, or none
    preprocess: Mapping[str, Any] = field(default_factory=lambda: dict(default_preprocess("asrnet")))

    data: str = "dataset"
    layout: str | None = None  # None: found out
    leave_out: tuple[str, ...] = ()  # sources that no split may hold
    balance: Literal["sources", "classes", "none"] = "sources"
    epoch_size: int | None = None  # draws per epoch; None: as many as there are training images
    equalise: int | Literal["off"] = 90  # JPEG quality that validation and calibration images all pass first
    augment: Augment = field(default_factory=Augment)

    views: int = 2  # closed form: augmented views of every training image, beside the plain one
    plain_weight: float = 0.4  # closed form: of the plain view, relative to all views of an image
    ridge: float = 0.03  # closed form: penalty, relative to each feature's variance
    pairs: str | None = None  # closed form: folder of content-matched pairs (asr-resynthesise)
    pair_weight: float = 0.1  # closed form: of the pairs, relative to all other images

    epochs: int = 50
    batch_size: int = 32
    lr: float = 2e-4
    weight_decay: float = 1e-4
    betas: tuple[float, float] = (0.937, 0.999)
    label_smoothing: float = 0.1
    schedule: Literal["cosine", "plateau"] = "cosine"  # cosine: to `final_lr` of lr; plateau: x 0.1 after 2 flat epochs
    final_lr: float = 0.01
    warmup_epochs: float = 1.0  # linear, from 0; at most a fifth of the run
    clip: float = 1.0  # largest gradient norm; 0 switches clipping off
    amp: Literal["auto", "on", "off"] = "auto"  # 16-bit mixed precision; auto: on CUDA only
    monitor: Literal["auroc", "acc", "f1", "loss"] = "auroc"  # which validation score is best
    patience: int | None = None  # epochs without a better score before stopping; None: never
    min_delta: float = 0.0  # how much better counts as better

    seed: int = 42
    workers: int = 2  # processes that read and augment
    threads: int | None = None  # of the network; None: PyTorch's choice

    def __post_init__(self) -> None:
        """Refuse values that cannot work.

        Raises:
            ConfigurationError: names the value.
        """
        for name in ("epochs", "batch_size", "lr", "views", "ridge"):
            if getattr(self, name) <= 0:
                raise ConfigurationError(f"{name} {getattr(self, name)}: expected a number above 0")
        for name in ("workers", "warmup_epochs", "weight_decay", "clip", "min_delta", "pair_weight"):
            if getattr(self, name) < 0:
                raise ConfigurationError(f"{name} {getattr(self, name)}: expected 0 or more")
        if not 0 <= self.plain_weight < 1:
            raise ConfigurationError(f"plain_weight {self.plain_weight}: expected 0 or more, below 1")
        if self.equalise != "off" and not 1 <= self.equalise <= 100:
            raise ConfigurationError(f"equalise {self.equalise}: expected a JPEG quality from 1 to 100, or off")
        Preprocess(**self.preprocess)

    @property
    def quality(self) -> int | None:
        """JPEG quality of `equalise`; None if it is off."""
        return None if self.equalise == "off" else self.equalise

    def to_dict(self) -> dict[str, Any]:
        """Return plain JSON data."""
        return dataclasses.asdict(self)

    def published(self) -> dict[str, Any]:
        """Return what may travel with a model: as `to_dict`, without the folders of this machine."""
        weights = self.weights if self.weights in ("none", "imagenet") else Path(self.weights).name
        pairs = Path(self.pairs).name if self.pairs else None
        return {**self.to_dict(), "data": Path(self.data).name, "weights": weights, "pairs": pairs}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Rebuild a configuration from `config.json`.

        Raises:
            ConfigurationError: an entry is missing or unknown.
        """
        try:
            known = dict(data)
            augment: dict[str, Any] = {
                k: tuple(v) if isinstance(v, list) else v for k, v in known.pop("augment").items()
            }
            for name in ("betas", "leave_out"):
                known[name] = tuple(known[name])
            return cls(augment=Augment(**augment), **known)
        except (KeyError, TypeError) as error:
            raise ConfigurationError(f"run configuration: {error}") from None


def recipe(model: str, **given: Any) -> TrainConfig:
    """Return the recipe of a network, with the values that were given instead of it.

    Args:
        model: registry name.
        given: fields of `TrainConfig`; None means not given. `options` and `augment` are dicts that may lack entries.

    Raises:
        ConfigurationError: a value was given that this network's training does not use.
        OptionError: no such network or option.
    """
    option_names(model)
    for name in _LOOP_ONLY if model == "asrnet-lite" else _CLOSED_FORM_ONLY:
        if given.get(name) is not None:
            how = "solved for in closed form" if model == "asrnet-lite" else "trained by gradient descent"
            raise ConfigurationError(
                f"--{name.replace('_', '-')}: {model} is {how}, which does not use it; leave it out"
            )
    options = {**(given.pop("options", None) or {})}
    defaults: dict[str, Any] = {"model": model, "options": options, "preprocess": dict(default_preprocess(model))}
    if model == "asrnet-lite":
        # Statistics of whole maps: black patches would only blur them.
        augment = Augment(resize=0.4, patch_mask=0.0)
        # Maps of more images do not fit into a processor's cache.
        defaults |= {"weights": "imagenet", "batch_size": 8, "augment": augment}
    elif model != "asrnet":
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
    if model not in ("asrnet", "asrnet-lite"):
        options.setdefault("freeze", defaults["weights"] != "none")
    return TrainConfig(**defaults)
