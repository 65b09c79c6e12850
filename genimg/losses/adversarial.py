"""Losses of adversarial networks and of critics, and the penalties on their gradients.

Logits [N] of images; or [N, 1, H, W] of places in them, which count alike.
"""

import torch
import torch.nn.functional as F
from torch import Tensor


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
