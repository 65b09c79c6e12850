"""Blur: of a lens (Gaussian), or of a camera that moved; a kernel for each image."""

import math
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genimg.degradations.degradation import Damage, Damaged
from genimg.ranges import Range, draw, word
from genimg.rng import fold, integers

_REACH = 3  # standard deviations that a Gaussian kernel reaches
_LEAST = 1e-9  # of a Gaussian's peak

Sigma = Annotated[float, Field(gt=0, le=20)]
Ratio = Annotated[float, Field(gt=0, le=1)]
Length = Annotated[float, Field(ge=1, le=99)]


class Blur(Damage):
    """Convolution with a kernel that is drawn for each image; borders are mirrored."""

    kind: Literal["blur"] = "blur"
    """blurred by a kernel that is the same all over an image"""
    of: tuple[Literal["gaussian", "motion"], ...] = Field(("gaussian",), min_length=1)
    """kinds of kernels, all equally likely"""
    sigma: Range[Sigma] = (0.2, 3.0)
    """standard deviation of a Gaussian kernel along its longer axis, pixels"""
    ratio: Range[Ratio] = (1.0, 1.0)
    """that along its shorter axis, as a share of the longer; the angle is any"""
    length: Range[Length] = (1.0, 15.0)
    """of a motion, pixels; the angle is any"""

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        return Damaged(convolve(images, self.kernels(keys)))

    @property
    def radius(self) -> int:
        """Pixels that kernels reach from their centres: what the longest needs."""
        lens, motion = math.ceil(_REACH * self.sigma[1]), math.ceil((self.length[1] + 1) / 2)
        return max({"gaussian": lens, "motion": motion}[kind] for kind in self.of)

    def kernels(self, keys: Tensor) -> Tensor:
        """float32 [N, K, K], each of sum 1, for keys int64 [N]."""
        angle = draw(keys, "angle", 0, math.pi)
        made = []
        for kind in self.of:
            if kind == "gaussian":
                longer = draw(keys, "blur", *self.sigma)
                shorter = longer * draw(keys, "ratio", *self.ratio)
                made.append(gaussian_kernels(longer, shorter, angle, self.radius))
            else:
                made.append(motion_kernels(draw(keys, "length", *self.length), angle, self.radius))
        choice = integers(fold(keys, word("kernel")), len(self.of))
        return torch.stack(made, dim=1)[torch.arange(len(keys), device=keys.device), choice]


def gaussian_kernels(longer: Tensor, shorter: Tensor, angle: Tensor, radius: int) -> Tensor:
    """float32 [N, K, K], K = 2 radius + 1, of sum 1.

    Standard deviations along and across an axis that is turned by `angle` from the horizontal,
    each float32 [N], pixels and radians.
    """
    along, across = _turned(angle, radius)
    exponent = (along / longer[:, None, None]).square_()
    exponent += (across / shorter[:, None, None]).square_()
    weights = exponent.mul_(-0.5).exp_()
    # what adds nothing is nothing: processors take many times longer for the smallest of floats
    return _of_sum_one(weights.masked_fill_(weights < _LEAST, 0))


def motion_kernels(length: Tensor, angle: Tensor, radius: int) -> Tensor:
    """float32 [N, K, K], K = 2 radius + 1, of sum 1: a line through the centre, anti-aliased.

    length: float32 [N], pixels that the line covers: of 1 it is a point, which blurs nothing.
    A pixel weighs 1 less its distance from the line, of one less pixel, through pixels' centres.
    """
    along, across = _turned(angle, radius)
    beyond = (along.abs() - (length[:, None, None] - 1) / 2).clamp_(min=0)
    return _of_sum_one((1 - torch.hypot(beyond, across)).clamp_(min=0))


def convolve(images: Tensor, kernels: Tensor) -> Tensor:
    """Images [N, C, H, W], each convolved with its kernel [N, K, K]; as large as they were.

    Borders are mirrored; where an image is no larger than a kernel reaches, its border is repeated.
    """
    radius = kernels.shape[-1] // 2
    mode = "reflect" if min(images.shape[-2:]) > radius else "replicate"
    padded = F.pad(images, (radius,) * 4, mode=mode)
    # a convolution in PyTorch is a correlation: the kernel is turned by half a turn
    turned = kernels.flip(1, 2).repeat_interleave(images.shape[1], dim=0)[:, None]
    made = F.conv2d(padded.flatten(0, 1)[None], turned, groups=len(turned))
    return made.view_as(images)


def _turned(angle: Tensor, radius: int) -> tuple[Tensor, Tensor]:
    """Coordinates [N, K, K] from the centre, along and across an axis at an angle [N]."""
    steps = torch.arange(-radius, radius + 1, device=angle.device, dtype=torch.float32)
    x, y = steps[None, None], steps[None, :, None]
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    return x * cos + y * sin, y * cos - x * sin


def _of_sum_one(kernels: Tensor) -> Tensor:
    return kernels / kernels.sum(dim=(1, 2), keepdim=True)
