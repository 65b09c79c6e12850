"""A convolutional variational autoencoder (Kingma & Welling 2014)."""

import itertools

import torch
from torch import Tensor, nn

from genimg.models.one_level import OneLevelVAE
from genimg.models.rows import Conv2d, Linear


class ConvVAE(OneLevelVAE):
    """By strided convolutions, and back by transposed ones.

    The spatial size halves as often as it can, at most down to 4 pixels, while the width doubles
    (at most fourfold); group normalisation keeps every image independent of its batch. With
    `classes` above 0 the decoder is told which of them an image is of: float32 [N, classes].
    """

    def __init__(
        self, latent: int, width: int, size: int, channels: int, planes: int, classes: int = 0,
        mixture: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(latent, mixture)
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

    def planes(self, latents: Tensor, classes: Tensor | None) -> Tensor:
        rows = latents if classes is None else torch.cat([latents, classes], dim=1)
        planes = self.from_latent(rows).unflatten(1, (self.inner, self.side, self.side))
        return self.decoder(planes).float()


def activate(width: int) -> list[nn.Module]:
    return [nn.GroupNorm(min(8, width), width), nn.SiLU()]
