"""ASRNet-Lite: asymmetric spectral statistics of a pretrained trunk's maps, and one linear score.

What the published ASRNet does with the last maps only (describe each once in space, once in frequency, low and high
band apart) is done here with the maps after every block of EfficientNet-Lite0: of each map's spectrum the zero
frequency, and the energy of all other frequencies. By Parseval's theorem these are the map's mean and its standard
deviation, so no transform is computed. Rectified responses, and correlations of every two maps, can be added. Low-level
blocks see traces of upsampling and denoising, which generators share; a linear head on frozen maps can be fitted in
closed form from a few thousand pictures, where a network trained from scratch learns subject matter.

Shape legend: N batch, S input side, C channels of a map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_models.efficientnet_lite import (
    ACTIVATION_CHANNELS,
    BLOCK_CHANNELS,
    EfficientNetLite0,
    fold_to_half,
    pretrained_state,
)
from asr_models.errors import OptionError, WeightsError

__all__ = ["ASRNetLite"]

_SMALLEST_VARIANCE = 1e-12  # keeps the square root's derivative finite on a constant map
_CORRELATED_VARIANCE = 1e-3  # added to a variance before correlations: those of (nearly) constant maps are 0, not noise


class ASRNetLite(nn.Module):
    """Spectral statistics of the trunk's maps at one or more magnifications, and a linear head.

    Args:
        blocks: trunk blocks that are used, 1 to 16.
        activations: first and last block, counted from 0, of which the mean of every depthwise filter's rectified
            response is used as well: how often a filter finds what it looks for, which mean and energy of the linear
            maps after a block cannot say. None for none; of the first blocks, with their large maps, they take time.
        correlations: how many of the first blocks have the correlation of every two maps used as well: how the
            responses of two filters go together in space, whatever the subject (Gram matrices, as in Gatys et al.
            2016, "Image style transfer using convolutional neural networks").
        scales: magnifications at which the input is looked at (bilinear): at 2 the trunk's first filters respond to
            structures of half the size. Each costs its square times the trunk.
    """

    def __init__(
        self,
        blocks: int = 15,
        scales: Sequence[int] = (1,),
        activations: Sequence[int] | None = None,
        correlations: int = 0,
    ) -> None:
        super().__init__()
        if not 1 <= blocks <= len(BLOCK_CHANNELS):
            raise OptionError(f"asrnet-lite: blocks {blocks}: expected 1 to {len(BLOCK_CHANNELS)}")
        if not scales or any(scale not in (1, 2, 3, 4) for scale in scales):
            raise OptionError(f"asrnet-lite: scales {list(scales)}: expected one or more of 1, 2, 3, 4")
        first, last = (0, -1) if activations is None else activations
        if activations is not None and not 0 <= first <= last < blocks:
            raise OptionError(f"asrnet-lite: activations {first} {last}: expected first and last of 0 to {blocks - 1}")
        if not 0 <= correlations <= blocks:
            raise OptionError(f"asrnet-lite: correlations {correlations}: expected 0 to {blocks}, a number of blocks")
        self.trunk = EfficientNetLite0(blocks)
        self.blocks, self.scales, self.rectified = blocks, tuple(scales), range(first, last + 1)
        self.correlations = correlations
        per_scale = 2 * sum(BLOCK_CHANNELS[:blocks]) + sum(ACTIVATION_CHANNELS[i] for i in self.rectified)
        per_scale += sum(c * (c - 1) // 2 for c in BLOCK_CHANNELS[:correlations])
        self.features_out = per_scale * len(self.scales)
        for channels in sorted(set(BLOCK_CHANNELS[:correlations])):
            row, column = torch.triu_indices(channels, channels, 1)
            self.register_buffer(_pairs(channels), row * channels + column, persistent=False)
        self.head = nn.Linear(self.features_out, 1)

    def load_pretrained(self, weights: str) -> None:
        """Fill the trunk, its kernels folded and rounded to what 16 bits can hold (`fold_to_half`).

        Args:
            weights: `imagenet` for the packaged weights, or a state-dict file.

        Raises:
            WeightsError: they cannot be obtained, or do not fit.
        """
        state = pretrained_state(None if weights == "imagenet" else Path(weights))
        wanted = self.trunk.state_dict()
        for key, tensor in wanted.items():
            if key not in state or state[key].shape != tensor.shape:
                shape = tuple(state[key].shape) if key in state else "nothing"
                raise WeightsError(f"{weights}: {key}: expected {tuple(tensor.shape)}, found {shape}")
        self.trunk.load_state_dict({key: state[key] for key in wanted})
        fold_to_half(self.trunk)

    def features(self, x: Tensor) -> Tensor:
        """Return mean and standard deviation of every map, the means of rectified responses, and correlations.

        Args:
            x: float32 (N, 3, S, S), normalised as the trunk expects.

        Returns:
            float32 (N, features_out).
        """
        statistics = []
        for scale in self.scales:
            seen = x if scale == 1 else F.interpolate(x, scale_factor=scale, mode="bilinear", align_corners=False)
            for block, (rectified, maps) in enumerate(self.trunk.blocks(seen)):  # (N, E, h, w), (N, C, h, w)
                low = maps.mean(dim=(2, 3))  # (N, C)
                deviations = maps - low[:, :, None, None]
                high = deviations.square().mean(dim=(2, 3))
                statistics += [low, (high + _SMALLEST_VARIANCE).sqrt()]
                if block in self.rectified:
                    statistics.append(rectified.mean(dim=(2, 3)))  # (N, E)
                if block < self.correlations:
                    statistics.append(_correlations(deviations, high, getattr(self, _pairs(maps.shape[1]))))
        return torch.cat(statistics, dim=1)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, 3, S, S), normalised -> logits float32 (N, 2), `[real, ai]`, minus and plus half the margin."""
        half = self.head(self.features(x)) / 2  # (N, 1)
        return torch.cat([-half, half], dim=1)

    def stages(self) -> tuple[str, ...]:
        """Submodules whose outputs show how far two implementations agree, first to last."""
        return (*(f"trunk._blocks.{i}" for i in range(self.blocks)), "head")


def _pairs(channels: int) -> str:
    """Name the buffer with the places of all pairs of two of `channels` maps in a flattened table of them."""
    return f"pairs_of_{channels}"


def _correlations(deviations: Tensor, variance: Tensor, pairs: Tensor) -> Tensor:
    """Correlate every two maps: (N, C, H, W), from their means, and (N, C) -> (N, C (C - 1) / 2), row by row."""
    scaled = (deviations / (variance + _CORRELATED_VARIANCE).sqrt()[:, :, None, None]).flatten(2)  # (N, C, H W)
    every = torch.matmul(scaled, scaled.transpose(1, 2)) / scaled.shape[2]  # (N, C, C)
    return every.flatten(1).index_select(1, pairs)
