"""Minibatch standard deviation: a discriminator sees whether images are all alike."""

import torch
from torch import Tensor, nn

GROUP = 4  # rows that are compared with one another


class MinibatchStd(nn.Module):
    """Features [N, C, H, W] -> [N, C + 1, H, W]: behind them how far a group's are apart.

    The standard deviation over GROUP neighbouring rows, averaged over features and pixels (section
    3, Karras et al. 2018; in groups as in its authors' code). N is a multiple of GROUP.
    """

    def forward(self, features: Tensor) -> Tensor:
        groups = features.float().unflatten(0, (-1, GROUP))
        deviation = (groups.var(dim=1, correction=0) + 1e-8).sqrt().mean(dim=(1, 2, 3))
        told = deviation.repeat_interleave(GROUP, output_size=len(features)).to(features.dtype)
        height, width = features.shape[2:]
        return torch.cat([features, told[:, None, None, None].expand(-1, 1, height, width)], dim=1)
