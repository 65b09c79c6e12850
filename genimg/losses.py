"""Loss functions on tensors, each with its source. Means are over images, sums over pixels."""

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import UNKNOWN


def discriminator_logistic(real: Tensor, fake: Tensor) -> Tensor:
    """Logits [N] of real and generated images -> scalar (eq. 1, Goodfellow et al. 2014)."""
    return F.softplus(-real).mean() + F.softplus(fake).mean()


def generator_nonsaturating(fake: Tensor) -> Tensor:
    """Logits [N] of generated images -> scalar (section 3, Goodfellow et al. 2014)."""
    return F.softplus(-fake).mean()


def discriminator_least_squares(real: Tensor, fake: Tensor) -> Tensor:
    """Outputs [N] for real and generated images -> scalar (eq. 9, Mao et al. 2017: 1 and 0)."""
    return 0.5 * (real - 1).square().mean() + 0.5 * fake.square().mean()


def generator_least_squares(fake: Tensor) -> Tensor:
    """Outputs [N] for generated images -> scalar (eq. 9, Mao et al. 2017)."""
    return 0.5 * (fake - 1).square().mean()


def critic_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Outputs [N] for real and generated images -> scalar (eq. 3, Gulrajani et al. 2017)."""
    return fake.mean() - real.mean()


def generator_wasserstein(fake: Tensor) -> Tensor:
    """Outputs [N] for generated images -> scalar (algorithm 1, Gulrajani et al. 2017)."""
    return -fake.mean()


def gradient_penalty(outputs: Tensor, images: Tensor) -> Tensor:
    """Mean squared distance from 1 of the gradient norm of outputs [N] at images.

    (Eq. 3, Gulrajani et al. 2017.) `images` [N, C, H, W] lie between real and generated ones,
    and must have required gradients when the outputs were computed. The weight is the caller's.
    """
    (gradient,) = torch.autograd.grad(outputs.sum(), images, create_graph=True)
    return (gradient.float().flatten(1).norm(dim=1) - 1).square().mean()


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean squared gradient norm of logits [N] at real images (eq. 9, Mescheder et al. 2018).

    `images` [N, C, H, W] must have required gradients when the logits were computed. The weight
    gamma / 2 is the caller's.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


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


def pixel_cross_entropy(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [N, C, H, W], classes int64 [N, H, W] -> scalar, nats.

    The mean over the known pixels of an image, then over images: so it is a worker's part of the
    mean over a global batch, wherever unknown pixels are.
    """
    entropy = F.cross_entropy(logits, mask, ignore_index=UNKNOWN, reduction="none")
    known = (mask != UNKNOWN).flatten(1).sum(dim=1).clamp(min=1)
    return (entropy.flatten(1).sum(dim=1) / known).mean()


def soft_dice(logits: Tensor, mask: Tensor) -> Tensor:
    """Logits [N, C, H, W], classes int64 [N, H, W] -> scalar: 1 - the Dice coefficient.

    (Section 3, Milletari et al. 2016, with probabilities and their sums.) The mean over the classes
    that an image shows, then over images.
    """
    known = (mask != UNKNOWN)[:, None]
    truth = F.one_hot(mask.where(known[:, 0], 0), logits.shape[1]).permute(0, 3, 1, 2) * known
    guess = logits.softmax(dim=1) * known
    shown = truth.flatten(2).sum(dim=2)
    both = (guess * truth).flatten(2).sum(dim=2)
    dice = 2 * both / (guess.flatten(2).sum(dim=2) + shown).clamp(min=1e-6)
    present = shown > 0
    return 1 - ((dice * present).sum(dim=1) / present.sum(dim=1).clamp(min=1)).mean()


def heatmap_focal(logits: Tensor, heat: Tensor) -> Tensor:
    """Logits and truth in [0, 1] of heatmaps [N, C, H, W], 1 at centres -> scalar.

    (Eq. 1, Zhou et al. 2019, with alpha 2 and beta 4.) The sum over an image by its number of
    centres, then the mean over images.
    """
    centres = heat == 1
    guess = logits.sigmoid()
    hits = F.logsigmoid(logits) * (1 - guess).square() * centres
    misses = F.logsigmoid(-logits) * guess.square() * (1 - heat).pow(4) * ~centres
    count = centres.flatten(1).sum(dim=1).clamp(min=1)
    return -((hits + misses).flatten(1).sum(dim=1) / count).mean()
