"""Antialiased bilinear resizing as small matrix products, for any engine and any frame size.

A resized axis is a linear map whose matrix is a band: each output position sees only the source pixels below its
triangle. The product with the whole matrix would spend nearly all of its time on zeros. Here, 16 neighbouring outputs
at a time take the slice of the source that they see and multiply it by a small dense matrix. Positions are integers,
so engines that compute in 32 bits where others use 64 agree on every weight.

Shape legend: N frames, H and W frame height and width, S output side, K source pixels that a block sees, B blocks.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar, cast

import torch
from torch import Tensor

__all__ = ["Axis", "resample"]

_Position = TypeVar("_Position", int, Tensor)

_BLOCK = 16  # outputs; fewer read more pixels twice, more multiply by more zeros


@dataclass(frozen=True)
class Axis:
    """How one axis is resized and then cropped.

    Every number but `size` is symbolic in an exported graph.

    Attributes:
        length: pixels of the source, at least 1.
        resized: pixels that the whole axis is resized to, at least `size`.
        first: output position that is the first to be computed, 0 to `resized - size`.
        size: number of positions to compute.
    """

    length: int
    resized: int
    first: int
    size: int

    @property
    def outputs(self) -> int:
        """Outputs of one block."""
        return min(_BLOCK, self.size)

    def taps(self) -> int:
        """K: source pixels that one block sees, at most all."""
        seen = ((self.outputs - 1) * self.length + 2 * self._longer) // self.resized + 2
        return _min(seen, self.length)

    def start(self, block: int, taps: int) -> int:
        """First source pixel of a block."""
        return _min(_max(self._left(self.first + block * self.outputs), 0) // (2 * self.resized), self.length - taps)

    def blocks(self, taps: int) -> tuple[Tensor, Tensor]:
        """Return the source pixels of every block, int64 (B, K), and their weights, float32 (B, 16, K)."""
        begin = torch.arange(-(-self.size // self.outputs)) * self.outputs + self.first  # (B,)
        start = torch.clamp(torch.clamp(self._left(begin), min=0) // (2 * self.resized), max=self.length - taps)
        source = start[:, None] + torch.arange(taps)
        # Of the last block, outputs beyond the end repeat the last one; `resample` drops them.
        output = torch.clamp(begin[:, None] + torch.arange(self.outputs), max=self.first + self.size - 1)
        distance = (2 * source + 1)[:, None] * self.resized - (2 * output + 1)[:, :, None] * self.length  # (B, 16, K)
        weight = torch.clamp(1.0 - distance.abs().float() / (2 * self._longer), min=0.0)
        return source, weight / weight.sum(dim=2, keepdim=True)

    # Positions below are integers, in units of 1 / (2 * resized) source pixels.

    @property
    def _longer(self) -> int:
        """Half of the half width of a triangle."""
        return _max(self.length, self.resized)

    def _left(self, output: _Position) -> _Position:
        """Left end of an output's triangle, less half a pixel; below 0 where it lies outside."""
        return (2 * output + 1) * self.length - 2 * self._longer - self.resized


def _max(a: int, b: int) -> int:
    return cast(int, torch.sym_max(a, b))


def _min(a: int, b: int) -> int:
    return cast(int, torch.sym_min(a, b))


def resample(frames: Tensor, rows: Axis, columns: Axis) -> Tensor:
    """Resize and crop frames with the antialiased bilinear filter of Pillow, a triangle as wide as the scale.

    Args:
        frames: uint8 (N, H, W, 3).
        rows: of the axis H.
        columns: of the axis W.

    Returns:
        float32 (N, S, S, 3) in [0, 255].
    """
    n, height, width, channels = frames.shape
    taps = columns.taps()
    first, last = columns.start(0, taps), columns.start((columns.size - 1) // columns.outputs, taps)
    seen = last + taps - first
    pixels = frames.reshape(n, height, width * channels)[:, :, first * channels : (first + seen) * channels]
    source, weight = (part.to(frames.device) for part in rows.blocks(rows.taps()))
    # Block by block: the float32 copy of one block stays in the cache, that of a whole 4K frame is 100 MB.
    parts = [weight[i] @ pixels.index_select(1, source[i]).float() for i in range(len(source))]  # (N, 16, seen * 3)
    resized = torch.cat(parts, dim=1)[:, : rows.size].reshape(n, rows.size, seen, channels)
    # Columns come first, so that each column is contiguous in memory.
    across = resized.permute(0, 2, 3, 1).reshape(n, seen, channels * rows.size)
    source, weight = (part.to(frames.device) for part in columns.blocks(taps))
    blocks = across.index_select(1, source.reshape(-1) - first).reshape(n, len(source), taps, channels * rows.size)
    squares = (weight @ blocks).reshape(n, len(source) * columns.outputs, channels, rows.size)
    return squares[:, : columns.size].permute(0, 3, 1, 2)  # (N, S across, 3, S down) -> (N, S, S, 3)
