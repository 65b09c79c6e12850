"""Variational autoencoders of one level of latents (Kingma & Welling 2014)."""

from abc import ABC, abstractmethod

import torch
from torch import Tensor, nn

from genimg.models.mixture import Mixture

Level = tuple[Tensor, ...]
"""Latents drawn, mean and log variance of their posterior, and of their prior unless N(0, 1)."""


class OneLevelVAE(nn.Module, ABC):
    """Encodes images [N, channels, size, size] to `latent` dimensions and decodes them.

    What it decodes to are some planes for each pixel, in which a likelihood reads the image;
    log_sigma [] is the scale of one that has a scale. With `mixture` above 0 so many Gaussians
    follow the latents, and what is decoded are normals [N, 1 + latent] that are latents by them.

    encoder: images -> rows, of which to_posterior makes means and log variances
    """

    encoder: nn.Module
    to_posterior: nn.Module
    log_sigma: Tensor

    def __init__(self, latent: int, mixture: int) -> None:
        super().__init__()
        self.latent = latent
        self.mixture = Mixture(mixture, latent) if mixture else None
        self.register_buffer("log_sigma", torch.zeros(()))

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [N, C, H, W] in [-1, 1] -> posterior mean and log variance, each [N, latent]."""
        mean, log_variance = self.to_posterior(self.encoder(images)).float().chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)  # exp stays finite in any precision

    def draw(
        self, seen: tuple[Tensor, ...], noise: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, tuple[Level, ...]]:
        """What `encode` gave, standard normals [N, latent] -> planes, and the one level."""
        mean, log_variance = seen
        drawn = mean + (0.5 * log_variance).exp() * noise
        return self.planes(drawn, classes), ((drawn, mean, log_variance),)

    def latents(self, seen: tuple[Tensor, ...], classes: Tensor | None = None) -> Tensor:
        """What `encode` gave -> the posterior's mean, as `decode` takes it."""
        return seen[0] if self.mixture is None else self.mixture.inverse(seen[0])

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents, of the prior N(0, 1) -> planes float32 [N, planes, H, W]."""
        return self.planes(latents if self.mixture is None else self.mixture(latents), classes)

    @abstractmethod
    def planes(self, latents: Tensor, classes: Tensor | None) -> Tensor:
        """Latents [N, latent] and, where it is told some, classes -> float32 [N, planes, H, W]."""
