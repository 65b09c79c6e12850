"""Batch normalisation (Ioffe & Szegedy 2015) over the global batch, however it is divided."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from genimg.contracts import Division

_AXES = (0, 2, 3)


class BatchNorm2d(nn.BatchNorm2d):
    """torch's own, with the same state; in training its statistics are those of all workers.

    PyTorch's SyncBatchNorm refuses CPUs, and knows the process group. This one is told, step by
    step, how the batch is divided, and is torch's own where it is not.
    """

    division: Division | None = None
    running_mean: Tensor
    running_var: Tensor
    num_batches_tracked: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        if self.division is None or not self.training:
            return super().forward(input)
        return self.divided(input, self.division)

    # The collectives are no part of a graph. As torch.compiler.disable, which would import the
    # compiler at once (2 s of each command's start); torch's optimisers do likewise.
    @_disable_dynamo
    def divided(self, input: Tensor, division: Division) -> Tensor:
        """As forward in training, for this worker's share [N, C, H, W] of the batch."""
        normalise: Any = _Normalise.apply
        output, mean, variance = normalise(input, self.weight, self.bias, self.eps, division)
        count = round(input.numel() / input.shape[1] / division.share)  # of the global batch
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / max(count - 1, 1)), self.momentum)
        return output


class _Normalise(torch.autograd.Function):
    """(x, weight, bias) -> (normalised x, mean [C], variance [C]); one collective each way."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float, division: Division
    ) -> tuple[Tensor, Tensor, Tensor]:
        own_variance, own_mean = torch.var_mean(x.float(), dim=_AXES, correction=0)
        # of the mean and the mean square, in float64 because their difference is taken
        own_mean, own_variance = own_mean.double(), own_variance.double()
        moments = torch.stack([own_mean, own_variance + own_mean.square()])
        mean, square = division.mean(moments).unbind()
        variance = (square - mean.square()).clamp_min(0).float()
        mean = mean.float()
        ctx.save_for_backward(x, weight, mean, variance)
        ctx.eps, ctx.division = eps, division
        ctx.mark_non_differentiable(mean, variance)
        return F.batch_norm(x, mean, variance, weight, bias, False, 0.0, eps), mean, variance

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor, *unused: Tensor) -> tuple[Tensor | None, ...]:
        """Section 3 of the paper, with its sums over the global batch.

        Losses are means over a worker's share, and gradients of weights are averaged with the
        shares as weights. So are, here, the sums through which a share moves the others'
        statistics.
        """
        x, weight, mean, variance = ctx.saved_tensors
        inverse = (variance + ctx.eps).rsqrt()
        through, scale, shift = torch.ops.aten.native_batch_norm_backward(  # mean, variance fixed
            gradient, x, weight, mean, variance, mean, inverse, False, ctx.eps, [True, True, True]
        )
        of_scale, of_shift = ctx.division.mean(torch.stack([scale, shift])).unbind()
        factor = -weight * inverse / (x.numel() / x.shape[1])
        slope = factor * inverse * of_scale
        level = factor * of_shift - slope * mean
        moved = torch.addcmul(through + level[:, None, None], x, slope[:, None, None])
        return moved.to(x.dtype), scale, shift, None, None
