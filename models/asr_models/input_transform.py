"""From raw camera frames to network input, as one module that training's evaluation and the exported graph share.

Every step is index arithmetic, a gather or a matrix product, so that the graph is the same in any engine, for any
frame size, and needs no image operator whose kernels differ between libraries.

Shape legend: N batch, H and W frame height and width, S network input side.
"""

from __future__ import annotations

from typing import Literal, cast

import torch
from torch import Tensor, nn

from asr_models.errors import OptionError
from asr_models.resample import Axis, resample

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
        if self.mode == "squash":
            axes = [Axis(length, self.size, 0, self.size) for length in (height, width)]
        else:
            short = cast(int, torch.sym_min(height, width))
            axes = [self._cropped(length, short) for length in (height, width)]
        return resample(frames, *axes)

    def _cropped(self, length: int, short: int) -> Axis:
        """Resizing one axis by resize/short and keeping the centre S positions."""
        assert self.resize is not None
        resized = length * self.resize // short  # as torchvision rounds the longer side
        return Axis(length, resized, (resized - self.size) // 2, self.size)

    def normalise(self, frames: Tensor) -> Tensor:
        """(N, S, S, 3) BGR in [0, 255], uint8 or float -> float32 (N, 3, S, S), normalised RGB."""
        rgb = frames.permute(0, 3, 1, 2).flip(1).float()  # (N, S, S, 3) -> (N, 3, S, S)
        return rgb * self.scale + self.shift


def _centre_indices(pixels: int, size: int) -> Tensor:
    """Indices (size,) of the centre of an axis; beyond its ends the axis is mirrored, edge pixel repeated."""
    length = torch.scalar_tensor(pixels, dtype=torch.int64)
    # (length + size) // 2 - size is floor((length - size) / 2) without dividing a negative number.
    first = torch.div(length + size, 2, rounding_mode="floor") - size
    position = torch.remainder(torch.arange(size) + first, 2 * length)
    return torch.minimum(position, 2 * length - 1 - position)
