"""Loss functions on tensors, each with its source. Means are over images, sums over pixels."""

from genimg.losses.adversarial import (
    critic_wasserstein,
    discriminator_least_squares,
    discriminator_logistic,
    generator_least_squares,
    generator_nonsaturating,
    generator_wasserstein,
    gradient_penalty,
    r1_penalty,
)
from genimg.losses.dense import (
    heatmap_focal,
    pixel_cross_entropy,
    soft_dice,
)
from genimg.losses.likelihood import (
    discretised_gaussian_nll,
    gaussian_kl,
    gaussian_nll,
)
from genimg.losses.restoration import (
    RestorationLoss,
    charbonnier,
    features_l1,
    fourier_l1,
    psnr_loss,
    ssim_loss,
)

__all__ = [
    "RestorationLoss",
    "charbonnier",
    "critic_wasserstein",
    "discretised_gaussian_nll",
    "discriminator_least_squares",
    "discriminator_logistic",
    "features_l1",
    "fourier_l1",
    "gaussian_kl",
    "gaussian_nll",
    "generator_least_squares",
    "generator_nonsaturating",
    "generator_wasserstein",
    "gradient_penalty",
    "heatmap_focal",
    "pixel_cross_entropy",
    "psnr_loss",
    "r1_penalty",
    "soft_dice",
    "ssim_loss",
]
