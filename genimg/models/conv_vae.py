"""A convolutional variational autoencoder (Kingma & Welling 2014) with one learned output scale."""

import itertools

import torch
from torch import Tensor, nn

from genimg.models.rows import Conv2d, Linear


class ConvVAE(nn.Module):
    """Encodes images [N, channels, size, size] to `latent` dimensions and decodes them.

    The spatial size halves as often as it can, at most down to 4 pixels, while the width doubles
    (at most fourfold); group normalisation keeps every image independent of its batch.
    """

    log_sigma: Tensor

    def __init__(self, latent: int, width: int, size: int, channels: int) -> None:
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

        self.from_latent = Linear(latent, self.inner * self.side**2)
        up: list[nn.Module] = [*activate(self.inner)]
        reverse = widths[::-1]
        for before, after in itertools.pairwise(reverse):
            up += [nn.ConvTranspose2d(before, after, 4, stride=2, padding=1), *activate(after)]
        up += [nn.ConvTranspose2d(reverse[-1], channels, 4, stride=2, padding=1)]
        self.decoder = nn.Sequential(*up)
        self.register_buffer("log_sigma", torch.zeros(()))

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Images [N, C, H, W] in [-1, 1] -> posterior mean and log variance, each [N, latent]."""
        mean, log_variance = self.to_posterior(self.encoder(images)).chunk(2, dim=1)
        return mean, log_variance.clamp(-20, 10)  # exp stays finite in any precision

    def decode(self, latents: Tensor) -> Tensor:
        """Latents [N, latent] -> mean of the pixels [N, C, H, W] in [-1, 1]."""
        planes = self.from_latent(latents).unflatten(1, (self.inner, self.side, self.side))
        return self.decoder(planes).float().tanh()


def activate(width: int) -> list[nn.Module]:
    return [nn.GroupNorm(min(8, width), width), nn.SiLU()]
