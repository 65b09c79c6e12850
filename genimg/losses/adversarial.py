"""Losses of adversarial networks and of critics, and the penalties on their gradients.

Logits [N] of images; or [N, 1, H, W] of places in them, which count alike.
"""

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from torch import Tensor


def discriminator_logistic(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """Logits [N] of real and generated images -> scalar (eq. 1, Goodfellow et al. 2014).

    Real images have the label 1 - smoothing (one-sided, section 3.4, Salimans et al. 2016).
    """
    return F.softplus(-real).mean() + smoothing * real.mean() + F.softplus(fake).mean()


def generator_nonsaturating(fake: Tensor) -> Tensor:
    """Logits [N] of generated images -> scalar (section 3, Goodfellow et al. 2014)."""
    return F.softplus(-fake).mean()


def generator_minimax(fake: Tensor) -> Tensor:
    """Logits [N] of generated images -> scalar (eq. 1, Goodfellow et al. 2014).

    Minus what they cost the discriminator: hardly a gradient where that is sure of them.
    """
    return -F.softplus(fake).mean()


def discriminator_least_squares(real: Tensor, fake: Tensor, smoothing: float = 0.0) -> Tensor:
    """Outputs [N] for real and generated images -> scalar (eq. 9, Mao et al. 2017: 1 and 0).

    Real images have the label 1 - smoothing.
    """
    return 0.5 * (real - 1 + smoothing).square().mean() + 0.5 * fake.square().mean()


def generator_least_squares(fake: Tensor) -> Tensor:
    """Outputs [N] for generated images -> scalar (eq. 9, Mao et al. 2017)."""
    return 0.5 * (fake - 1).square().mean()


def discriminator_hinge(real: Tensor, fake: Tensor) -> Tensor:
    """Logits [N] of real and generated images -> scalar (eq. 16, Miyato et al. 2018).

    (Lim & Ye 2017.) What is right by a margin of 1 costs nothing.
    """
    return F.relu(1 - real).mean() + F.relu(1 + fake).mean()


def critic_wasserstein(real: Tensor, fake: Tensor) -> Tensor:
    """Outputs [N] for real and generated images -> scalar (eq. 3, Gulrajani et al. 2017)."""
    return fake.mean() - real.mean()


def generator_wasserstein(fake: Tensor) -> Tensor:
    """Outputs [N] for generated images -> scalar (algorithm 1, Gulrajani et al. 2017).

    Also the generator's part of the hinge loss (eq. 17, Miyato et al. 2018).
    """
    return -fake.mean()


def discriminator_relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """Logits [N] of real images and of generated ones, in pairs -> scalar.

    (Section 2, Huang et al. 2024, after Jolicoeur-Martineau 2019.) Each real image is to look more
    real than the generated one beside it.
    """
    return F.softplus(fake - real).mean()


def generator_relativistic(real: Tensor, fake: Tensor) -> Tensor:
    """As the discriminator's, with real and generated images having changed places."""
    return F.softplus(real - fake).mean()


def gradient_penalty(outputs: Tensor, images: Tensor) -> Tensor:
    """Mean squared distance from 1 of the gradient norm of outputs [N] at images.

    (Eq. 3, Gulrajani et al. 2017.) `images` [N, C, H, W] lie between real and generated ones,
    and must have required gradients when the outputs were computed. The weight is the caller's.
    """
    (gradient,) = torch.autograd.grad(outputs.sum(), images, create_graph=True)
    return (gradient.float().flatten(1).norm(dim=1) - 1).square().mean()


def zero_centred_penalty(logits: Tensor, images: Tensor) -> Tensor:
    """Mean squared gradient norm of logits [N] at images: R1 at real, R2 at generated ones.

    (Eq. 9 and 10, Mescheder et al. 2018.) `images` [N, C, H, W] must have required gradients when
    the logits were computed. The weight gamma / 2 is the caller's.
    """
    (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    return gradient.float().square().sum(dim=(1, 2, 3)).mean()


def feature_distance(real: Tensor, fake: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """Squared distance of the mean features [N, ...] of real and of generated images; a scalar.

    (Feature matching, section 3.1, Salimans et al. 2016.) Means are of the global batch: mean gives
    that of the workers' values, without gradients. Gradients are this worker's share of them.
    """
    mine = real.float().mean(dim=0) - fake.float().mean(dim=0)
    whole = mean(mine)
    return (whole * (2 * mine - whole)).sum()


def orthogonal_penalty(weights: Iterable[Tensor]) -> Tensor:
    """How far filters, the rows of weights [out, ...], are from being orthogonal; a scalar.

    The sum of the squared products of any two of a layer (eq. 3, Brock et al. 2019). Their lengths
    are free.
    """
    total = []
    for weight in weights:
        matrix = weight.flatten(1)
        gram = matrix @ matrix.mT
        total.append((gram - gram.diagonal().diag()).square().sum())
    return torch.stack(total).sum()
