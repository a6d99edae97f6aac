"""Networks by name, with the options and the preprocessing each was published with."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from torch import nn

from asr_models.asrnet import ASRNet
from asr_models.asrnet_lite import ASRNetLite
from asr_models.errors import OptionError
from asr_models.fft_resnet import FFTResNet
from asr_models.input_transform import IMAGENET_MEAN, IMAGENET_STD

__all__ = ["create_model", "default_preprocess", "option_names"]

_FFT = "fft-"
_NETWORKS: Mapping[str, type[nn.Module]] = {"asrnet": ASRNet, "asrnet-lite": ASRNetLite}
_LITE_MEAN, _LITE_STD = (127 / 255,) * 3, (128 / 255,) * 3  # (value - 127) / 128, as the trunk was trained


def create_model(name: str, **options: Any) -> nn.Module:
    """Build an untrained network: normalised RGB float32 (N, 3, S, S) -> logits float32 (N, 2).

    Args:
        name: `asrnet`, `asrnet-lite`, or `fft-` and a torchvision backbone: `fft-resnet34`, `fft-convnext_tiny`,
            `fft-swin_t`.
        options: constructor options of `ASRNet`, `ASRNetLite` or `FFTResNet`, as JSON values.

    Raises:
        OptionError: no such network or option, or a value that cannot work.
    """
    unknown = sorted(set(options) - set(option_names(name)))
    if unknown:
        raise OptionError(f"{name}: no option {unknown[0]!r}; it has {', '.join(option_names(name))}")
    if name in _NETWORKS:
        return _NETWORKS[name](**options)
    return FFTResNet(backbone=_backbone(name), **options)


def option_names(name: str) -> list[str]:
    """Options that `create_model(name)` takes."""
    kind = _NETWORKS.get(name, FFTResNet)
    if kind is FFTResNet:
        _backbone(name)
    return [p for p in inspect.signature(kind).parameters if p != "backbone"]


def default_preprocess(name: str) -> Mapping[str, Any]:
    """Arguments of `InputTransform` that the network was published with."""
    if name == "asrnet":
        return {"mode": "crop", "size": 192}
    if name == "asrnet-lite":
        return {"mode": "crop", "size": 224, "mean": _LITE_MEAN, "std": _LITE_STD}
    _backbone(name)
    return {"mode": "resize-crop", "size": 224, "resize": 256, "mean": IMAGENET_MEAN, "std": IMAGENET_STD}


def _backbone(name: str) -> str:
    if not name.startswith(_FFT):
        raise OptionError(
            f"model {name!r}: expected {', '.join(_NETWORKS)}, or fft- and a torchvision backbone such as fft-resnet34"
        )
    return name.removeprefix(_FFT).replace("-", "_")
