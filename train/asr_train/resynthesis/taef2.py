"""FLUX.2's tiny autoencoder (TAEF2, madebyollin/taesd, MIT): a real generator's last stage, small enough for a CPU.

A photo that went through it keeps its content (21 to 40 dB PSNR) and gains the traces of the decoder.

Shape legend: B batch, H and W image sides (multiples of 8), C = 64 channels inside, 32 in the latent.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import cv2
import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from asr_runtime.errors import ConfigurationError, ModelError

__all__ = ["STRIDE", "TAEF2_FILES", "Reconstruction", "Taef2", "load_taef2"]

TAEF2_FILES = ("taef2_encoder.pth", "taef2_decoder.pth")
STRIDE = 8
"""Pixels per latent step; image sides are padded to a multiple of this."""
_CHANNELS, _LATENT, _HIDDEN = 64, 32, 256


class _Block(nn.Module):
    """Three 3x3 convolutions with a skip; `pool` is a 1x1 branch in front, in the blocks at latent resolution."""

    def __init__(self, pool: bool) -> None:
        super().__init__()
        self.conv = nn.Sequential(_conv(), nn.ReLU(), _conv(), nn.ReLU(), _conv())
        self.pool = (
            nn.Sequential(
                nn.Conv2d(_CHANNELS, _HIDDEN, 1, bias=False),
                nn.GroupNorm(4, _HIDDEN),
                nn.ReLU(),
                nn.Conv2d(_HIDDEN, _CHANNELS, 1, bias=False),
            )
            if pool
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        if self.pool is not None:
            x = x + self.pool(x)
        return F.relu(self.conv(x) + x)


class _SoftClamp(nn.Module):
    """3 tanh(x / 3): keeps latents within what the decoder knows."""

    def forward(self, x: Tensor) -> Tensor:
        return 3 * torch.tanh(x / 3)


def _conv(inputs: int = _CHANNELS, outputs: int = _CHANNELS, *, stride: int = 1, bias: bool = True) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=bias)


def _encoder() -> nn.Sequential:
    layers: list[nn.Module] = [_conv(3), _Block(pool=False)]  # (B, C, H, W)
    for stage in range(3):  # (B, C, H/2, W/2), then /4, then /8
        layers += [_conv(stride=2, bias=False), *(_Block(pool=stage == 2) for _ in range(3))]
    return nn.Sequential(*layers, _conv(outputs=_LATENT))  # (B, 32, H/8, W/8)


def _decoder() -> nn.Sequential:
    layers: list[nn.Module] = [_SoftClamp(), _conv(_LATENT), nn.ReLU(), *(_Block(pool=True) for _ in range(3))]
    for blocks in (3, 3, 1):  # (B, C, H/4, W/4), then /2, then (B, C, H, W)
        layers += [nn.Upsample(scale_factor=2), _conv(bias=False), *(_Block(pool=False) for _ in range(blocks))]
    return nn.Sequential(*layers, _conv(outputs=3))


class Taef2(nn.Module):
    """Encoder and decoder in a row."""

    def __init__(self) -> None:
        super().__init__()
        # The published state dicts number the layers of these two sequences.
        self.encoder, self.decoder = _encoder(), _decoder()

    def forward(self, x: Tensor) -> Tensor:
        """Reconstruct RGB images (B, 3, H, W) in [0, 1]; H and W are multiples of 8."""
        reconstruction: Tensor = self.decoder(self.encoder(x)).clamp(0, 1)
        return reconstruction


class Reconstruction:
    """A resynthesiser: what TAEF2 makes of an image. Made by `load_taef2`."""

    name = "taef2"

    def __init__(self, model: Taef2) -> None:
        # channels_last is about twice as fast on a CPU.
        self.model = model.float().eval().to(memory_format=torch.channels_last)

    @torch.inference_mode()
    def apply(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Reconstruct one uint8 BGR image (H, W, 3) of any size, mirrored at its border where 8 does not divide it."""
        height, width = image.shape[:2]
        padded = cv2.copyMakeBorder(image, 0, -height % STRIDE, 0, -width % STRIDE, cv2.BORDER_REFLECT_101)
        rgb = np.ascontiguousarray(padded[..., ::-1])
        x = torch.from_numpy(rgb).permute(2, 0, 1)[None].float() / 255  # (1, 3, H, W)
        y = (self.model(x.contiguous(memory_format=torch.channels_last))[0] * 255).round().to(torch.uint8)
        bgr: NDArray[np.uint8] = y.permute(1, 2, 0).numpy()[:height, :width, ::-1]
        return np.ascontiguousarray(bgr)


def load_taef2(folder: Path | None) -> Reconstruction:
    """Load the published weights.

    Args:
        folder: holds `taef2_encoder.pth` and `taef2_decoder.pth`.

    Raises:
        ConfigurationError: no folder, or a file is not in it.
        ModelError: a file holds other weights.
    """
    advice = f"expected a folder with {' and '.join(TAEF2_FILES)} (MIT, github.com/madebyollin/taesd) as --weights DIR"
    if folder is None:
        raise ConfigurationError(f"taef2: no weights given; {advice}")
    model = Taef2()
    for part, file in zip((model.encoder, model.decoder), TAEF2_FILES, strict=True):
        path = folder / file
        if not path.is_file():
            raise ConfigurationError(f"taef2: {path}: no such file; {advice}")
        try:
            part.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        except (RuntimeError, OSError, EOFError, TypeError, AttributeError, pickle.UnpicklingError) as error:
            reason = next(iter(str(error).splitlines()), type(error).__name__)
            raise ModelError(f"{path}: not the weights of TAEF2 ({reason.rstrip(':')}); {advice}") from None
    return Reconstruction(model)
