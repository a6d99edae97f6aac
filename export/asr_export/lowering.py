"""Fourier transforms as real matrix products, for engines whose DFT operator is slow, inexact or missing.

A DFT along an axis is a product with a constant matrix; real and imaginary part are the cosine and sine halves of it.
With E = [cos | sin] of width W and D = [cos ; sin] of height H, Y = D x E holds four blocks P, Q, R, S (rows cos, sin
x columns cos, sin), and hermitian symmetry on both axes gives all magnitudes without a complex product:

    |Z( k1, k2)|^2 = (P - S)^2 + (Q + R)^2        |Z(-k1, k2)|^2 = (P + S)^2 + (Q - R)^2

Shape legend: ... leading dimensions, H and W transformed axes, Kh = H//2 + 1, Kw = W//2 + 1.
"""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

from asr_models import Deployed
from asr_models.spectrum import FullMagnitude, HalfMagnitude

__all__ = ["MatmulFullMagnitude", "MatmulHalfMagnitude", "lower"]


def lower(deployed: Deployed) -> Deployed:
    """Return a copy in which every Fourier magnitude is a chain of matrix products.

    The network's input size is fixed by its preprocessing, so is the size of every transform: one forward pass on a
    small frame tells it.
    """
    lowered = copy.deepcopy(deployed).eval()
    sizes: dict[str, tuple[int, int]] = {}
    transforms = {
        name: module for name, module in lowered.named_modules() if isinstance(module, HalfMagnitude | FullMagnitude)
    }
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: sizes.update({name: tuple(args[0].shape[-2:])}))
        for name, module in transforms.items()
    ]
    with torch.inference_mode():
        lowered(torch.zeros(1, 8, 8, 3, dtype=torch.uint8))
    for hook in hooks:
        hook.remove()
    for name, module in transforms.items():
        lowered.set_submodule(name, _lowered(module, *sizes[name]))
    return lowered


def _lowered(module: nn.Module, height: int, width: int) -> nn.Module:
    if isinstance(module, FullMagnitude):
        return MatmulFullMagnitude(height, width, shift=module.shift)
    return MatmulHalfMagnitude(height, width)


class _MatmulMagnitude(nn.Module):
    """The magnitudes at frequencies (k1, k2) and (-k1, k2), k1 < Kh, k2 < Kw, as 2 Kh rows.

    Args:
        height: H.
        width: W.
        scale: factor of the transform.
    """

    def __init__(self, height: int, width: int, scale: float = 1.0) -> None:
        super().__init__()
        self.height, self.width = height, width
        self.half_rows, self.half_columns = height // 2 + 1, width // 2 + 1
        self.register_buffer("left", (_basis(height) * scale).float(), persistent=False)  # (2 Kh, H)
        self.register_buffer("right", _basis(width).T.contiguous().float(), persistent=False)  # (W, 2 Kw)
        self.left: Tensor
        self.right: Tensor

    def signed_rows(self, x: Tensor) -> Tensor:
        """(..., H, W) -> (..., 2 Kh, Kw): rows k1 = 0 .. Kh-1, then -k1 = 0 .. -(Kh-1)."""
        y = self.left @ (x @ self.right)  # (..., H, 2 Kw) -> (..., 2 Kh, 2 Kw)
        p, q = y[..., : self.half_rows, : self.half_columns], y[..., : self.half_rows, self.half_columns :]
        r, s = y[..., self.half_rows :, : self.half_columns], y[..., self.half_rows :, self.half_columns :]
        positive = (p - s) * (p - s) + (q + r) * (q + r)
        negative = (p + s) * (p + s) + (q - r) * (q - r)
        return torch.cat([positive, negative], dim=-2).sqrt()

    def row_of(self, k1: int) -> int:
        """Where `signed_rows` holds the frequency k1, any integer."""
        k1 %= self.height
        return k1 if k1 < self.half_rows else self.half_rows + self.height - k1


class MatmulHalfMagnitude(_MatmulMagnitude):
    """`HalfMagnitude` at one size: float32 (..., H, W) -> (..., H, Kw)."""

    def __init__(self, height: int, width: int) -> None:
        super().__init__(height, width, scale=1.0 / (height * width))
        self.register_buffer("rows", torch.tensor([self.row_of(k) for k in range(height)]), persistent=False)
        self.rows: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Magnitudes in the order of `torch.fft.rfft2`."""
        return self.signed_rows(x).index_select(-2, self.rows)


class MatmulFullMagnitude(_MatmulMagnitude):
    """`FullMagnitude` at one size: float32 (..., H, W) -> (..., H, W)."""

    def __init__(self, height: int, width: int, *, shift: bool) -> None:
        super().__init__(height, width)
        first_row, first_column = (-(height // 2), -(width // 2)) if shift else (0, 0)
        rows = range(first_row, first_row + height)
        columns = [k if k <= width // 2 else k - width for k in range(first_column, first_column + width)]
        # A negative column frequency is the mirror image: |Z(k1, -k2)| = |Z(-k1, k2)|.
        self.mirror_first = columns[0] < 0
        stored = {False: [k for k in columns if k >= 0], True: [-k for k in columns if k < 0]}
        for name, value in {
            "rows": [self.row_of(k) for k in rows],
            "mirrored_rows": [self.row_of(-k) for k in rows],
            "columns": stored[False],
            "mirrored_columns": stored[True],
        }.items():
            self.register_buffer(name, torch.tensor(value, dtype=torch.int64), persistent=False)
        self.rows: Tensor
        self.mirrored_rows: Tensor
        self.columns: Tensor
        self.mirrored_columns: Tensor

    def forward(self, x: Tensor) -> Tensor:
        """Magnitudes in the order of `torch.fft.fft2`, shifted if so built."""
        magnitude = self.signed_rows(x)
        plain = magnitude.index_select(-2, self.rows).index_select(-1, self.columns)
        mirrored = magnitude.index_select(-2, self.mirrored_rows).index_select(-1, self.mirrored_columns)
        return torch.cat([mirrored, plain] if self.mirror_first else [plain, mirrored], dim=-1)


def _basis(length: int) -> Tensor:
    """Rows cos(2 pi n k / length), then sin, k = 0 .. length//2: float64 (2 K, length)."""
    k, n = torch.arange(length // 2 + 1), torch.arange(length)
    # The product is reduced as an integer, so large angles lose no digits.
    angle = (k[:, None] * n[None] % length).double() * (2 * torch.pi / length)
    return torch.cat([angle.cos(), angle.sin()])
