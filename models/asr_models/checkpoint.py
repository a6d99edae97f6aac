"""Checkpoint files: ours, and those that the two published systems write.

A checkpoint of ours is a dict of plain data and tensors. Nothing is ever unpickled beyond that (`weights_only=True`).
"""

from __future__ import annotations

import argparse
import hashlib
import io
import pickle
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from asr_models.deployed import Deployed
from asr_models.errors import CheckpointError, reason
from asr_models.fft_resnet import FFTResNet
from asr_models.input_transform import IMAGENET_MEAN, IMAGENET_STD, InputTransform
from asr_models.registry import create_model, default_preprocess

__all__ = ["CHECKPOINT_FORMAT", "Checkpoint", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_FORMAT = "asrnet-edge/1"
_CLASSES = ["real", "ai"]


@dataclass(frozen=True)
class Checkpoint:
    """A trained network and the facts that travel with it, as plain data.

    Attributes:
        name: registry name.
        options: constructor options.
        preprocess: arguments of `InputTransform`.
        network: the network with its weights, in evaluation mode.
        calibration: `temperature`, `shift`, `fitted_on`; empty if never calibrated.
        decision: `real_below`, `ai_from`, `rule`; empty if never calibrated.
        operating_points: dicts of `false_positive_rate`, `threshold`, `true_positive_rate`.
        video: `calibration` and `decision` of whole videos, as above; empty if never calibrated.
        whole: fields of `asr_runtime.contract.WholeLook`, as JSON holds them: how several windows of a picture become
            its verdict; empty if never calibrated.
        training: summary of data, recipe and best epoch.
        sha256: of the file it was read from, hexadecimal; empty when built in memory.
    """

    name: str
    options: Mapping[str, Any]
    preprocess: Mapping[str, Any]
    network: nn.Module
    calibration: Mapping[str, Any] = field(default_factory=dict)
    decision: Mapping[str, Any] = field(default_factory=dict)
    operating_points: tuple[Mapping[str, Any], ...] = ()
    video: Mapping[str, Any] = field(default_factory=dict)
    whole: Mapping[str, Any] = field(default_factory=dict)
    training: Mapping[str, Any] = field(default_factory=dict)
    sha256: str = ""

    def deployed(self) -> Deployed:
        """Return the whole chain from frames to probability, in evaluation mode."""
        return Deployed(
            InputTransform(**self.preprocess),
            self.network,
            temperature=float(self.calibration.get("temperature", 1.0)),
            shift=float(self.calibration.get("shift", 0.0)),
        ).eval()


def save_checkpoint(path: Path, checkpoint: Checkpoint) -> None:
    """Write a checkpoint to `path`, which is replaced if it exists."""
    content = {
        "format": CHECKPOINT_FORMAT,
        "classes": _CLASSES,
        "name": checkpoint.name,
        "options": dict(checkpoint.options),
        "preprocess": dict(checkpoint.preprocess),
        "calibration": dict(checkpoint.calibration),
        "decision": dict(checkpoint.decision),
        "operating_points": [dict(p) for p in checkpoint.operating_points],
        "video": dict(checkpoint.video),
        "whole": dict(checkpoint.whole),
        "training": dict(checkpoint.training),
        "model_state": checkpoint.network.state_dict(),
    }
    torch.save(content, path)


def load_checkpoint(path: str | Path, name: str | None = None, options: Mapping[str, Any] | None = None) -> Checkpoint:
    """Read a checkpoint of this project, of the published ASRNet, or of Synapse-7 (Lightning).

    Args:
        path: the file.
        name: registry name; needed for a Lightning file, which lacks it; otherwise it must agree with the file.
        options: constructor options that are not in the file (`spectrum` of a Lightning file).

    Raises:
        CheckpointError: no such file, damaged, foreign, or its weights do not fit; the message names the first
            missing and the first unexpected key.
    """
    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        # Training scripts like to store their parsed arguments: plain data, safe to rebuild.
        with torch.serialization.safe_globals([argparse.Namespace]):
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        raise CheckpointError(
            f"{path}: not a checkpoint, or damaged: it holds something else than tensors and plain data"
        ) from None
    except Exception as error:  # whatever damaged or foreign bytes lead to
        raise CheckpointError(f"{path}: not a checkpoint, or damaged ({reason(error)})") from None
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: holds a {type(content).__name__}, expected a checkpoint")
    made = _interpret(path, content, name, dict(options or {}))
    return Checkpoint(**{**made, "sha256": hashlib.sha256(data).hexdigest()})


def _interpret(path: Path, content: dict[str, Any], name: str | None, options: dict[str, Any]) -> dict[str, Any]:
    if str(content.get("format", "")).startswith("asrnet-edge/"):
        made = _read_own(path, content, name)
    elif "model_state" in content:
        made = _read_published_asrnet(path, content, name, options)
    elif "state_dict" in content:
        made = _read_lightning(path, content, name, options)
    else:
        keys = ", ".join(sorted(map(str, content))[:4])
        raise CheckpointError(
            f"{path}: not a checkpoint: expected the keys of this project, of the published ASRNet (model_state) or "
            f"of a Lightning file (state_dict), found {keys or 'nothing'}"
        )
    try:
        network = create_model(made["name"], **made["options"])
        InputTransform(**made["preprocess"])
    except (TypeError, RuntimeError, ValueError) as error:
        raise CheckpointError(f"{path}: its options or preprocessing cannot be used ({reason(error)})") from None
    _fill(path, network, made.pop("state"))
    made["network"] = network.eval()
    return made


def _read_own(path: Path, content: dict[str, Any], name: str | None) -> dict[str, Any]:
    if content["format"] != CHECKPOINT_FORMAT:
        raise CheckpointError(f"{path}: format {content['format']}, this version reads {CHECKPOINT_FORMAT}")
    keys = ("name", "options", "preprocess", "calibration", "decision", "operating_points", "training", "model_state")
    if missing := [k for k in (*keys, "classes") if k not in content]:
        raise CheckpointError(f"{path}: the entry {missing[0]!r} is missing")
    if content["classes"] != _CLASSES:
        raise CheckpointError(f"{path}: classes {content['classes']}, expected {_CLASSES}")
    if name is not None and name != content["name"]:
        raise CheckpointError(f"{path}: holds {content['name']}, not {name}")
    made = {key: content[key] for key in keys}
    made["state"] = made.pop("model_state")
    made["operating_points"] = tuple(made["operating_points"])
    made["video"], made["whole"] = content.get("video", {}), content.get("whole", {})
    return made


def _read_published_asrnet(
    path: Path, content: dict[str, Any], name: str | None, options: dict[str, Any]
) -> dict[str, Any]:
    if name not in (None, "asrnet"):
        raise CheckpointError(f"{path}: holds the published asrnet, not {name}")
    state = content["model_state"]
    try:
        dim, prototypes = state["stage1.0.weight"].shape[0], state["classifier.fake_centers"].shape[0]
    except (KeyError, AttributeError, IndexError, TypeError) as error:
        raise CheckpointError(f"{path}: model_state is not an ASRNet's: {error} is missing") from None
    stored = {"dim": dim, "prototypes": prototypes, "front_end": "official", **options}
    training = {"origin": "published ASRNet", "epoch": content.get("epoch"), "val_acc": content.get("val_acc")}
    training = {key: value for key, value in training.items() if isinstance(value, int | float | str)}
    return {
        "name": "asrnet",
        "options": stored,
        "preprocess": default_preprocess("asrnet"),
        "state": state,
        "training": training,
    }


def _read_lightning(path: Path, content: dict[str, Any], name: str | None, options: dict[str, Any]) -> dict[str, Any]:
    """Read a Synapse-7 file: its notebooks squash images to 224 x 224 before the spectrum."""
    if name is None or "spectrum" not in options:
        raise CheckpointError(
            f"{path}: a Lightning file does not tell its network: say which with "
            "--model fft-resnet34 --spectrum global (or patch)"
        )
    state = {k.removeprefix("model."): v for k, v in content["state_dict"].items() if k.startswith("model.")}
    if not state:
        first = next(iter(content["state_dict"]), "nothing")
        raise CheckpointError(f"{path}: expected keys with the prefix 'model.', found {first!r}")
    return {
        "name": name,
        "options": options,
        "preprocess": {"mode": "squash", "size": 224, "mean": IMAGENET_MEAN, "std": IMAGENET_STD},
        "state": {f"backbone.{key}": value for key, value in state.items()},
        "training": {"origin": "published Synapse-7"},
    }


def _fill(path: Path, network: nn.Module, state: Any) -> None:
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise CheckpointError(f"{path}: its weights are not a mapping of names to tensors")
    own = network.state_dict()
    missing = [key for key in own if key not in state]
    unexpected = [key for key in state if key not in own]
    if missing or unexpected:
        parts = [f"missing {missing[0]}"] if missing else []
        parts += [f"unexpected {_shown(unexpected[0], network)}"] if unexpected else []
        counts = f"{len(missing)} missing, {len(unexpected)} unexpected in all"
        raise CheckpointError(f"{path}: does not fit {type(network).__name__}: {'; '.join(parts)} ({counts})")
    for key, value in own.items():
        if state[key].shape != value.shape:
            raise CheckpointError(
                f"{path}: {key} has shape {tuple(state[key].shape)}, the network needs {tuple(value.shape)}"
            )
    network.load_state_dict(dict(state))


def _shown(key: Any, network: nn.Module) -> str:
    """Name a key as it stands in the file, on one line."""
    text = key.removeprefix("backbone.") if isinstance(network, FFTResNet) and isinstance(key, str) else key
    return re.sub(r"\s+", " ", str(text))[:120]
