"""Loss functions on tensors, each with its source. Means are over images, sums over pixels."""

from genimg.losses.adversarial import (
    critic_wasserstein,
    discriminator_hinge,
    discriminator_least_squares,
    discriminator_logistic,
    discriminator_relativistic,
    feature_distance,
    generator_least_squares,
    generator_minimax,
    generator_nonsaturating,
    generator_relativistic,
    generator_wasserstein,
    gradient_penalty,
    orthogonal_penalty,
    zero_centred_penalty,
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
    "discriminator_hinge",
    "discriminator_least_squares",
    "discriminator_logistic",
    "discriminator_relativistic",
    "feature_distance",
    "features_l1",
    "fourier_l1",
    "gaussian_kl",
    "gaussian_nll",
    "generator_least_squares",
    "generator_minimax",
    "generator_nonsaturating",
    "generator_relativistic",
    "generator_wasserstein",
    "gradient_penalty",
    "heatmap_focal",
    "orthogonal_penalty",
    "pixel_cross_entropy",
    "psnr_loss",
    "soft_dice",
    "ssim_loss",
    "zero_centred_penalty",
]
