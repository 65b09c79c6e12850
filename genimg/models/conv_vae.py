"""A convolutional variational autoencoder (Kingma & Welling 2014)."""

import itertools

import torch
from torch import Tensor, nn

from genimg.models.mixture import Mixture
from genimg.models.rows import Conv2d, Linear

Level = tuple[Tensor, ...]
"""Latents drawn, mean and log variance of their posterior, and of their prior unless N(0, 1)."""


class ConvVAE(nn.Module):
    """Encodes images [N, channels, size, size] to `latent` dimensions and decodes them.

    The spatial size halves as often as it can, at most down to 4 pixels, while the width doubles
    (at most fourfold); group normalisation keeps every image independent of its batch. What it
    decodes to are `planes` for each pixel, in which a likelihood reads the image; log_sigma [] is
    the scale of one that has a scale. With `classes` above 0 the decoder is told which of them an
    image is of: float32 [N, classes]. With `mixture` above 0 so many Gaussians follow the latents,
    and what is decoded are normals [N, 1 + latent] that are latents by them.
    """

    log_sigma: Tensor

    def __init__(
        self, latent: int, width: int, size: int, channels: int, planes: int, classes: int = 0,
        mixture: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        self.latent = latent
        halvings, self.side = 0, size
        while self.side % 2 == 0 and self.side >= 8:
            halvings, self.side = halvings + 1, self.side // 2
        widths = [width * min(2**i, 4) for i in range(halvings)]
        self.inner = widths[-1]

        down: list[nn.Module] = []
        for before, after in itertools.pairwise([channels, *widths]):
            down += [Conv2d(before, after, 4, stride=2, padding=1), *activate(after)]
        self.encoder = nn.Sequential(*down, nn.Flatten())
        self.to_posterior = Linear(self.inner * self.side**2, 2 * latent)

        self.from_latent = Linear(latent + classes, self.inner * self.side**2)
        up: list[nn.Module] = [*activate(self.inner)]
        reverse = widths[::-1]
        for before, after in itertools.pairwise(reverse):
            up += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), *activate(after)]
        up += [nn.ConvTranspose2d(reverse[-1], planes, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*up)
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

    def planes(self, latents: Tensor, classes: Tensor | None) -> Tensor:
        rows = latents if classes is None else torch.cat([latents, classes], dim=1)
        planes = self.from_latent(rows).unflatten(1, (self.inner, self.side, self.side))
        return self.decoder(planes).float()


def activate(width: int) -> list[nn.Module]:
    return [nn.GroupNorm(min(8, width), width), nn.SiLU()]
