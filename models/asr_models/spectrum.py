"""Fourier magnitudes as modules of their own, so that export can replace each by matrix products.

Shape legend: ... any leading dimensions, H and W the transformed axes.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from asr_models.errors import OptionError

__all__ = ["FullMagnitude", "HalfMagnitude", "PatchLogSpectrum", "ShiftedLogSpectrum", "at_least_float32"]


def at_least_float32(x: Tensor) -> Tensor:
    """Return 16-bit values as float32, others as they are: a Fourier transform needs the digits."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class HalfMagnitude(nn.Module):
    """|rfft2(x, norm="forward")|: float (..., H, W) -> (..., H, W//2 + 1)."""

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last two axes; the sum is divided by H * W."""
        magnitude: Tensor = torch.fft.rfft2(x, norm="forward").abs()
        return magnitude


class FullMagnitude(nn.Module):
    """|fft2(x)|: float (..., H, W) -> (..., H, W); with `shift` the zero frequency is in the centre.

    Args:
        shift: order of both frequency axes: `torch.fft.fftshift`'s if True, else starting at zero frequency.
    """

    def __init__(self, *, shift: bool) -> None:
        super().__init__()
        self.shift = shift

    def forward(self, x: Tensor) -> Tensor:
        """Transform the last two axes, unnormalised."""
        z = torch.fft.fft2(x)
        magnitude: Tensor = (torch.fft.fftshift(z, dim=(-2, -1)) if self.shift else z).abs()
        return magnitude


class ShiftedLogSpectrum(nn.Module):
    """Log-magnitude spectrum of the whole image, zero frequency in the centre (Synapse-7, global variant)."""

    def __init__(self) -> None:
        super().__init__()
        self.magnitude = FullMagnitude(shift=True)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) -> float32 (N, C, H, W): log(1 + |fft2|) per channel."""
        return torch.log1p(self.magnitude(at_least_float32(x)))


class PatchLogSpectrum(nn.Module):
    """Log-magnitude spectra of non-overlapping patches, stitched in place (Synapse-7, local variant; no shift).

    Args:
        patch: side of a patch in pixels; the image sides must be multiples of it.
    """

    def __init__(self, patch: int = 32) -> None:
        super().__init__()
        if patch < 1:
            raise OptionError(f"patch {patch}: expected a side of 1 pixel or more")
        self.patch = patch
        self.magnitude = FullMagnitude(shift=False)

    def forward(self, x: Tensor) -> Tensor:
        """float32 (N, C, H, W) -> float32 (N, C, H, W).

        Raises:
            OptionError: H or W is not a multiple of the patch.
        """
        n, c, h, w = x.shape
        p = self.patch
        if h % p or w % p:
            raise OptionError(f"image of {h} x {w} pixels: the patch spectrum needs multiples of {p}")
        patches = at_least_float32(x).reshape(n, c, h // p, p, w // p, p).transpose(3, 4)  # (N, C, H/p, W/p, p, p)
        spectra = torch.log1p(self.magnitude(patches))
        return spectra.transpose(3, 4).reshape(n, c, h, w)
