"""Batch normalisation over the batch of all ranks together: `torch.nn.SyncBatchNorm`, and the same on processors."""

from __future__ import annotations

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

__all__ = ["synchronised"]


class _Total(torch.autograd.Function):
    """Sum over all ranks; so is its gradient."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        total = values.clone()
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        total = gradients[0].contiguous().clone()
        dist.all_reduce(total)
        return total


class _RanksBatchNorm2d(nn.BatchNorm2d):
    """What `torch.nn.SyncBatchNorm` computes, which runs on GPUs only."""

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W)."""
        if not self.training:
            return super().forward(x)
        assert self.running_mean is not None
        assert self.running_var is not None
        assert self.num_batches_tracked is not None
        assert self.momentum is not None
        wide = x.double()  # as PyTorch accumulates on a processor
        axes = (0, 2, 3)
        own = wide.new_tensor([x.numel() / x.shape[1]])
        sums = _Total.apply(torch.cat([wide.sum(axes), own]))
        count = sums[-1].detach()
        mean = sums[:-1] / count
        centred = wide - mean[None, :, None, None]
        variance = _Total.apply(centred.square().sum(axes)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * count / (count - 1)).to(self.running_var), self.momentum)
        scale = (variance + self.eps).rsqrt()
        scaled: Tensor = (centred * scale[None, :, None, None]).to(x.dtype)
        result: Tensor = scaled * self.weight[None, :, None, None] + self.bias[None, :, None, None]
        return result


def synchronised(network: nn.Module) -> nn.Module:
    """Replace every 2-d batch normalisation by one over all ranks; parameters, buffers and their names stay."""
    if torch.cuda.is_available():
        converted: nn.Module = nn.SyncBatchNorm.convert_sync_batchnorm(network)  # type: ignore[no-untyped-call]
        return converted
    for name, child in network.named_children():
        if isinstance(child, nn.BatchNorm2d):
            norm = _RanksBatchNorm2d(child.num_features, child.eps, child.momentum, child.affine)
            norm.weight, norm.bias = child.weight, child.bias
            norm.running_mean, norm.running_var = child.running_mean, child.running_var
            norm.num_batches_tracked, norm.training = child.num_batches_tracked, child.training
            setattr(network, name, norm)
        else:
            synchronised(child)
    return network
