"""From raw camera frames to network input, as one module that training's evaluation and the exported graph share.

Every step is index arithmetic, a gather or a matrix product, so that the graph is the same in any engine, for any
frame size, and needs no image operator whose kernels differ between libraries.

Shape legend: N batch, H and W frame height and width, S network input side.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from asr_models.errors import OptionError

__all__ = ["IMAGENET_MEAN", "IMAGENET_STD", "InputTransform"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


class InputTransform(nn.Module):
    """uint8 BGR frames of any size -> normalised float32 RGB of one size.

    Args:
        mode: `crop`: the centre `size` x `size` at native resolution; a side shorter than `size` is continued by
            mirroring (edge pixel repeated), so an image of 1 x 1 works too. `resize-crop`: shorter side to `resize`,
            then the centre crop. `squash`: both sides to `size`, the aspect is lost.
        size: S, side of the output in pixels.
        resize: length of the shorter side before the crop, in pixels; only for `resize-crop`.
        mean: of RGB in [0, 1].
        std: of RGB in [0, 1].

    Resizing is the antialiased bilinear filter of Pillow (a triangle as wide as the scale), without its rounding to
    whole levels: equal to Pillow within 1 of 255.
    """

    def __init__(
        self,
        mode: Literal["crop", "resize-crop", "squash"],
        size: int,
        resize: int | None = None,
        mean: tuple[float, float, float] = (0.0, 0.0, 0.0),
        std: tuple[float, float, float] = (1.0, 1.0, 1.0),
    ) -> None:
        super().__init__()
        if mode not in ("crop", "resize-crop", "squash"):
            raise OptionError(f"preprocess mode {mode!r}: expected crop, resize-crop or squash")
        if (mode == "resize-crop") != (resize is not None):
            raise OptionError("preprocess: `resize` belongs to mode resize-crop, and that mode needs it")
        if size < 1 or (resize is not None and resize < size):
            raise OptionError(f"preprocess size {size}, resize {resize}: expected 1 or more, and no resize below size")
        self.mode, self.size, self.resize = mode, size, resize
        # One multiply-add per value: x/255 -> (x - mean)/std.
        scale = 1.0 / (255.0 * torch.tensor(std, dtype=torch.float64))
        shift = -torch.tensor(mean, dtype=torch.float64) / torch.tensor(std, dtype=torch.float64)
        self.register_buffer("scale", scale.float().view(3, 1, 1), persistent=False)
        self.register_buffer("shift", shift.float().view(3, 1, 1), persistent=False)
        self.scale: Tensor
        self.shift: Tensor

    def forward(self, frames: Tensor) -> Tensor:
        """Return the network's input.

        Args:
            frames: uint8 (N, H, W, 3), BGR, H and W at least 1.

        Returns:
            float32 (N, 3, S, S), normalised RGB.

        Raises:
            ValueError: `frames` has another type or shape.
        """
        if frames.dtype != torch.uint8 or frames.dim() != 4 or frames.shape[3] != 3:
            raise ValueError(f"frames: {frames.dtype} {tuple(frames.shape)}, expected uint8 (N, H, W, 3)")
        return self.normalise(self.geometry(frames))

    def geometry(self, frames: Tensor) -> Tensor:
        """Crop or resize. uint8 (N, H, W, 3) -> (N, S, S, 3): uint8 for `crop`, else float32 in [0, 255]."""
        height, width = frames.shape[1], frames.shape[2]
        if self.mode == "crop":
            rows, columns = _centre_indices(height, self.size), _centre_indices(width, self.size)
            return frames.index_select(1, rows.to(frames.device)).index_select(2, columns.to(frames.device))
        h, w = _length(height), _length(width)
        if self.mode == "squash":
            row_filter = _triangle_filter(height, h / self.size, self.size, h * 0)
            column_filter = _triangle_filter(width, w / self.size, self.size, w * 0)
        else:
            assert self.resize is not None
            short = torch.minimum(h, w)
            row_filter = self._crop_filter(height, h, short)
            column_filter = self._crop_filter(width, w, short)
        return _resample(frames, row_filter.to(frames.device), column_filter.to(frames.device))

    def _crop_filter(self, pixels: int, length: Tensor, short: Tensor) -> Tensor:
        """Weights (S, pixels) of resizing one axis by resize/short and keeping the centre S positions."""
        assert self.resize is not None
        resized = torch.floor(length * self.resize / short)  # as torchvision rounds the longer side
        first = torch.floor((resized - self.size) / 2)
        return _triangle_filter(pixels, length / resized, self.size, first)

    def normalise(self, frames: Tensor) -> Tensor:
        """(N, S, S, 3) BGR in [0, 255], uint8 or float -> float32 (N, 3, S, S), normalised RGB."""
        rgb = frames.permute(0, 3, 1, 2).flip(1).float()  # (N, S, S, 3) -> (N, 3, S, S)
        return rgb * self.scale + self.shift


def _length(pixels: int) -> Tensor:
    """Return an axis length, which is symbolic in an exported graph, as a float64 scalar."""
    return torch.scalar_tensor(pixels, dtype=torch.float64)


def _centre_indices(pixels: int, size: int) -> Tensor:
    """Indices (size,) of the centre of an axis; beyond its ends the axis is mirrored, edge pixel repeated."""
    length = torch.scalar_tensor(pixels, dtype=torch.int64)
    # (length + size) // 2 - size is floor((length - size) / 2) without dividing a negative number.
    first = torch.div(length + size, 2, rounding_mode="floor") - size
    position = torch.remainder(torch.arange(size) + first, 2 * length)
    return torch.minimum(position, 2 * length - 1 - position)


def _triangle_filter(pixels: int, step: Tensor, size: int, first: Tensor) -> Tensor:
    """Weights (size, pixels) of antialiased bilinear resampling of one axis.

    Args:
        pixels: length of the axis.
        step: source pixels per output pixel, float64 scalar; above 1 the triangle widens with it.
        size: number of output positions.
        first: index of the first output position, float64 scalar.
    """
    centre = (torch.arange(size, dtype=torch.float64) + first + 0.5) * step  # (size,)
    source = torch.arange(pixels, dtype=torch.float64) + 0.5  # (pixels,)
    support = torch.clamp(step, min=1.0)
    weight = torch.clamp(1.0 - (source[None] - centre[:, None]).abs() / support, min=0.0)
    return (weight / weight.sum(dim=1, keepdim=True)).float()


def _resample(frames: Tensor, row_filter: Tensor, column_filter: Tensor) -> Tensor:
    """(N, H, W, 3) -> float32 (N, S, S, 3) by one matrix product per axis."""
    n, height, width, channels = frames.shape
    size = row_filter.shape[0]
    rows = row_filter @ frames.float().reshape(n, height, width * channels)  # (N, S, W*3)
    return column_filter @ rows.reshape(n, size, width, channels)  # (S, W) x (N, S, W, 3) -> (N, S, S, 3)
