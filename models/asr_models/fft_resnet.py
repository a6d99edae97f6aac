"""Synapse-7's detector: the log-magnitude spectrum of an image, read by an ImageNet backbone."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

from torch import Tensor, nn

from asr_models.errors import OptionError, WeightsError, reason
from asr_models.spectrum import PatchLogSpectrum, ShiftedLogSpectrum
from asr_models.state_file import read_state

__all__ = ["FFTResNet"]


class FFTResNet(nn.Module):
    """Spectrum, then any torchvision classification backbone with two outputs.

    Args:
        backbone: a name of `torchvision.models.list_models` whose classifier ends in a linear layer.
        spectrum: `global`: of the whole image, zero frequency in the centre. `patch`: of each patch, unshifted.
        patch: side of a patch in pixels, for `spectrum="patch"`.
        freeze: keep the stem and the first stage as they are: no gradient, BatchNorm statistics untouched. As
            published; sensible with pretrained weights only.

    Raises:
        OptionError: no such backbone, no final linear layer, or no early layers known to freeze.
    """

    def __init__(
        self,
        backbone: str = "resnet34",
        spectrum: Literal["global", "patch"] = "global",
        patch: int = 32,
        freeze: bool = False,
    ) -> None:
        super().__init__()
        if spectrum not in ("global", "patch"):
            raise OptionError(f"spectrum {spectrum!r}: expected global or patch")
        self.spectrum: nn.Module = ShiftedLogSpectrum() if spectrum == "global" else PatchLogSpectrum(patch)
        self.backbone_name = backbone
        self.backbone = _create_backbone(backbone)
        self.frozen = _early_layers(self.backbone, backbone) if freeze else []
        for layer in self.frozen:
            layer.requires_grad_(False)
        self.train(self.training)

    def forward(self, x: Tensor) -> Tensor:
        """Normalised RGB float32 (N, 3, H, W) -> logits float32 (N, 2), `[real, ai]`."""
        logits: Tensor = self.backbone(self.spectrum(x))
        return logits

    def train(self, mode: bool = True) -> FFTResNet:
        """Set the training mode; frozen layers stay in evaluation mode, so their BatchNorm statistics do not move."""
        super().train(mode)
        for layer in self.frozen:
            layer.eval()
        return self

    def stages(self) -> tuple[str, ...]:
        """Submodules whose outputs show how far two implementations agree, first to last."""
        blocks = ["layer1", "layer2", "layer3", "layer4"] if hasattr(self.backbone, "layer4") else []
        if isinstance(features := getattr(self.backbone, "features", None), nn.Sequential):
            blocks = [f"features.{name}" for name, _ in features.named_children()]
        return ("spectrum", *(f"backbone.{block}" for block in blocks))

    def load_pretrained(self, weights: str | Path) -> None:
        """Fill the backbone, all but its last layer, with ImageNet weights.

        Args:
            weights: `imagenet` for torchvision's own (downloaded into torch's cache), or the path of a state
                dict such as torchvision publishes.

        Raises:
            WeightsError: the download failed, or the file is not a state dict of this backbone.
        """
        state = _download(self.backbone_name) if str(weights) == "imagenet" else read_state(Path(weights))
        head = _last_linear(self.backbone)[0] + "."
        own = {name: value for name, value in self.backbone.state_dict().items() if not name.startswith(head)}
        # Files of old torchvision releases do not count batches; the count has no effect in evaluation.
        own = {name: v for name, v in own.items() if name in state or not name.endswith("num_batches_tracked")}
        for name, value in own.items():
            if name not in state or state[name].shape != value.shape:
                problem = f"has shape {tuple(state[name].shape)}" if name in state else "is missing"
                raise WeightsError(
                    f"{weights}: not weights of {self.backbone_name}: {name} {problem}, expected {tuple(value.shape)}"
                )
        self.backbone.load_state_dict({name: state[name] for name in own}, strict=False)


def _create_backbone(name: str) -> nn.Module:
    import torchvision  # loads as long as PyTorch itself, and only these networks need it

    if name not in torchvision.models.list_models(module=torchvision.models):
        raise OptionError(f"backbone {name!r}: not a classification network of torchvision {torchvision.__version__}")
    # These two have further outputs while training, which published weights and our loss know nothing of.
    options: dict[str, Any] = (
        {"init_weights": True, "aux_logits": False} if name in ("googlenet", "inception_v3") else {}
    )
    network: nn.Module = torchvision.models.get_model(name, weights=None, **options)
    path, layer = _last_linear(network)
    parent = network.get_submodule(path.rpartition(".")[0])
    setattr(parent, path.rpartition(".")[2], nn.Linear(layer.in_features, 2))
    return network


def _last_linear(network: nn.Module) -> tuple[str, nn.Linear]:
    """Path and module of the layer that gives the class scores: the last module, which must be linear."""
    path, layer = list(network.named_modules())[-1]
    if not isinstance(layer, nn.Linear):
        raise OptionError(f"backbone {type(network).__name__}: its last layer is not linear, so it can't be replaced")
    return path, layer


def _early_layers(network: nn.Module, name: str) -> list[nn.Module]:
    """Stem and first stage: conv1, bn1, layer1 of a ResNet; the first two entries of `features` elsewhere."""
    if hasattr(network, "layer1"):
        return [network.get_submodule(part) for part in ("conv1", "bn1", "layer1")]
    features = getattr(network, "features", None)
    if isinstance(features, nn.Sequential):
        return [features[0], features[1]]
    raise OptionError(f"backbone {name}: which layers are early is not known; train with --no-freeze")


def _download(name: str) -> dict[str, Tensor]:
    import torchvision

    try:
        weights = torchvision.models.get_model_weights(name)
        state: dict[str, Tensor] = weights.DEFAULT.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise WeightsError(
            f"ImageNet weights of {name} could not be downloaded ({reason(error)}); without a network, give "
            "torchvision's file with --weights FILE, or train from scratch with --weights none"
        ) from None
    return state
