"""Divergences and likelihoods of autoencoders, in nats an image."""

import math

import torch
from torch import Tensor


def gaussian_kl(mean: Tensor, log_variance: Tensor) -> Tensor:
    """KL(N(mean, exp(log_variance)) || N(0, 1)) in nats, [N] (appendix B, Kingma & Welling 2014).

    mean, log_variance: [N, D].
    """
    return 0.5 * (mean.square() + log_variance.exp() - 1 - log_variance).sum(dim=1)


def gaussian_nll(images: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """-log N(images; mean, sigma) in nats, [N], summed over pixels; scalar log_sigma."""
    squared = (images - mean).square().flatten(1).sum(dim=1)
    count = images[0].numel()
    return 0.5 * squared * (-2 * log_sigma).exp() + count * (
        log_sigma + 0.5 * math.log(2 * math.pi)
    )


def discretised_gaussian_nll(images: Tensor, mean: Tensor, log_sigma: Tensor) -> Tensor:
    """-log P(bytes) in nats, [N]: the Gaussian's mass in each of the 256 levels of [-1, 1].

    A probability and not a density, so it cannot be improved by shrinking sigma below a level
    (the discretisation of eq. 13, Ho et al. 2020). Computed in float64.
    """
    centred = (images - mean).double()
    scale = torch.exp(-log_sigma.double()) / math.sqrt(2)
    # the outermost levels reach to infinity, which 40 is to erfc; inf has no gradient
    upper = torch.where(images > 1 - 1e-3, 40.0, (centred + 1 / 255) * scale)
    lower = torch.where(images < -1 + 1e-3, -40.0, (centred - 1 / 255) * scale)
    # erfc on the side of the tail keeps its digits where 1 - erf would lose them
    flip = (lower > 0).double() * 2 - 1
    mass = 0.5 * (
        torch.erfc(torch.where(flip > 0, lower, -upper))
        - torch.erfc(torch.where(flip > 0, upper, -lower))
    )
    return -mass.clamp_min(1e-300).log().flatten(1).sum(dim=1)
