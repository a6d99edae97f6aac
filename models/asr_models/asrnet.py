"""ASRNet: Asymmetric Spectral Residual Network.

A learnable high-pass filter bank looks at what is left when the image content is removed; a small convolutional trunk
follows; its last maps are described once in space (average pool) and once in frequency, where low and high bands are
treated differently (the asymmetric bottleneck); the distance to learnt prototypes gives the logits.

Shape legend: N batch, H and W input height and width (any size), D = `dim`, h and w the last stage's height and width.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from asr_models.errors import OptionError
from asr_models.spectrum import HalfMagnitude, at_least_float32

__all__ = ["ASRNet", "ConstrainedConv2d", "PrototypeHead", "SpectralBottleneck"]

FrontEnd = Literal["zero-sum", "official"]
_LOW = 2  # the low band is the 2 x 2 corner of the spectrum


class ASRNet(nn.Module):
    """The published network, with a front end that is exactly high-pass.

    Args:
        dim: D, width of the first stage; the next two have 2 D and 4 D channels.
        prototypes: number of centres of the AI-generated class.
        front_end: `zero-sum`: every residual kernel sums to zero. `official`: the published arithmetic, whose
            kernels keep about 4% of the mean; needed to load published weights.

    The state-dict names are the published ones.
    """

    def __init__(self, dim: int = 64, prototypes: int = 5, front_end: FrontEnd = "zero-sum") -> None:
        super().__init__()
        if dim < 1 or prototypes < 1:
            raise OptionError(f"asrnet: dim {dim}, prototypes {prototypes}: both must be at least 1")
        self.res_extractor = nn.Sequential(
            ConstrainedConv2d(3, 32, 5, front_end),
            nn.BatchNorm2d(32),
            nn.ReLU(inplace=True),
        )
        self.stage1 = _stage(32, dim)
        self.stage2 = _stage(dim, 2 * dim)
        self.stage3 = _stage(2 * dim, 4 * dim)
        self.spec_stat = SpectralBottleneck(4 * dim)
        self.classifier = PrototypeHead(8 * dim + _LOW * _LOW, prototypes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2, mode="fan_out", nonlinearity="leaky_relu")

    def forward(self, x: Tensor) -> Tensor:
        """Return the logits.

        Args:
            x: float32 (N, 3, H, W), RGB in [0, 1], H and W at least 1.

        Returns:
            float32 (N, 2), `[real, ai]`: minus the distance to the class's nearest prototype.
        """
        residual = self.res_extractor(x)  # (N, 3, H, W) -> (N, 32, H, W)
        maps = self.stage3(self.stage2(self.stage1(residual)))  # -> (N, 4D, h, w), h = ceil(H/8)
        spatial = maps.mean(dim=(2, 3))  # (N, 4D)
        low, high = self.spec_stat(maps)  # (N, 4), (N, 4D)
        logits: Tensor = self.classifier(torch.cat([spatial, low, high], dim=1))
        return logits

    def stages(self) -> tuple[str, ...]:
        """Submodules whose outputs show how far two implementations agree, first to last."""
        return ("res_extractor", "stage1", "stage2", "stage3", "spec_stat.magnitude")


class ConstrainedConv2d(nn.Module):
    """Convolution whose kernels are a negative centre and a positive surround of equal weight (a high-pass).

    Per (output, input) slice: centre = -softplus(c), surround = softplus(w) scaled to sum to softplus(c).

    Args:
        channels_in: input channels.
        channels_out: output channels.
        kernel: odd kernel side; padding keeps the image size.
        front_end: `zero-sum` scales the surround alone; `official` counts softplus(0) of the emptied centre in the
            surround's sum, as the published code does, and so leaves part of the mean in.
    """

    def __init__(self, channels_in: int, channels_out: int, kernel: int, front_end: FrontEnd) -> None:
        super().__init__()
        if front_end not in ("zero-sum", "official"):
            raise OptionError(f"front_end {front_end!r}: expected zero-sum or official")
        self.front_end = front_end
        self.weight_raw = nn.Parameter(torch.empty(channels_out, channels_in, kernel, kernel))
        centre = torch.zeros(kernel, kernel)
        centre[kernel // 2, kernel // 2] = 1.0
        self.register_buffer("centre", centre, persistent=False)
        self.centre: Tensor
        if front_end == "official":
            nn.init.kaiming_uniform_(self.weight_raw)
        else:
            self._init_diverse()

    @torch.no_grad()
    def _init_diverse(self) -> None:
        """Start from kernels that differ (mean pairwise cosine 0.5; published 0.999): alike, they would stay alike.

        A wide spread makes softplus pick a few neighbours per kernel; a sparse share of each input channel makes
        kernels look at different colours.
        """
        channels_out, channels_in, kernel, _ = self.weight_raw.shape
        nn.init.normal_(self.weight_raw, std=4.0)
        share = torch.distributions.Dirichlet(torch.full((channels_in,), 0.5)).sample((channels_out,))
        magnitude = (share * channels_in).clamp(min=0.01)
        self.weight_raw[:, :, kernel // 2, kernel // 2] = torch.log(torch.expm1(magnitude))  # softplus's inverse

    def kernel(self) -> Tensor:
        """Return the constrained kernels, float32 (out, in, k, k)."""
        magnitude = F.softplus(self.weight_raw * self.centre).mul(self.centre).sum((2, 3), keepdim=True)  # softplus(c)
        surround = F.softplus(self.weight_raw * (1 - self.centre))
        if self.front_end == "official":
            surround = surround * (magnitude / (surround.sum((2, 3), keepdim=True) + 1e-6))
            return surround * (1 - self.centre) - magnitude * self.centre
        surround = surround * (1 - self.centre)
        surround = surround * (magnitude / surround.sum((2, 3), keepdim=True))
        return surround - magnitude * self.centre

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, in, H, W) -> (N, out, H, W)."""
        return F.conv2d(x, self.kernel(), padding=self.weight_raw.shape[2] // 2)


class SpectralBottleneck(nn.Module):
    """Describe maps in frequency: the low corner bin by bin, the rest as one mean per channel.

    Args:
        channels: C, number of maps.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.magnitude = HalfMagnitude()

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, C, h, w) -> low (N, 4), mean over channels of 4 bins; high (N, C), mean over all bins."""
        magnitude = self.magnitude(at_least_float32(self.bn(maps)))  # (N, C, h, w//2 + 1)
        rows, columns = magnitude.shape[2:]
        low = magnitude[:, :, :_LOW, :_LOW].mean(dim=1)  # (N, 2, 2), less where the maps are smaller
        low = F.pad(low, (0, _LOW - low.shape[2], 0, _LOW - low.shape[1]))
        is_high = torch.ones(rows, columns, dtype=magnitude.dtype, device=magnitude.device)
        is_high[:_LOW, :_LOW] = 0.0
        high = (magnitude * is_high).mean(dim=(2, 3))
        return low.flatten(1), high


class PrototypeHead(nn.Module):
    """Logits as minus the Euclidean distance to the nearest prototype of each class.

    Args:
        features: length of a feature vector.
        prototypes: K, number of centres of the AI-generated class; the real class has one.
    """

    def __init__(self, features: int, prototypes: int) -> None:
        super().__init__()
        self.real_center = nn.Parameter(torch.randn(1, features))
        self.fake_centers = nn.Parameter(torch.randn(prototypes, features))

    def forward(self, feature: Tensor) -> Tensor:
        """float32 (N, features) -> logits float32 (N, 2)."""
        centres = torch.cat([self.real_center, self.fake_centers])  # (1 + K, features)
        # Not torch.cdist: it has no ONNX form.
        distance = torch.linalg.vector_norm(feature[:, None] - centres[None], dim=-1)  # (N, 1 + K)
        return torch.cat([-distance[:, :1], -distance[:, 1:].amin(dim=1, keepdim=True)], dim=1)


def _stage(channels_in: int, channels_out: int) -> nn.Sequential:
    """Two 3 x 3 convolutions, the first halving the resolution."""

    def block(a: int, b: int, stride: int) -> list[nn.Module]:
        conv = nn.Conv2d(a, b, 3, stride=stride, padding=1, bias=False)
        return [conv, nn.BatchNorm2d(b), nn.LeakyReLU(0.2, inplace=True)]

    return nn.Sequential(*block(channels_in, channels_out, 2), *block(channels_out, channels_out, 1))
