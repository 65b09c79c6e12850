"""Fully connected networks: of the first GAN (Goodfellow et al. 2014), and of the first VAEs."""

import itertools
import math

import torch
from torch import Tensor, nn

from genimg.models.one_level import OneLevelVAE
from genimg.models.rows import Linear

SLOPE = 0.2  # of the leaky ReLU, which stands for the paper's ReLU and maxout


class Generator(nn.Module):
    """Latents float32 [N, latent] -> images [N, channels, size, size] in [-1, 1].

    `depth` hidden layers of `width` units. Of `classes` above 0, how much of each is wanted,
    float32 [N, classes], comes beside the latents (Mirza & Osindero 2014); None: of none.
    """

    def __init__(
        self, latent: int, width: int, depth: int, size: int, channels: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.shape = (channels, size, size)
        self.body = hidden(latent + classes, width, depth)
        self.to_image = dense(width, math.prod(self.shape))

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        if self.classes:
            told = latents.new_zeros(len(latents), self.classes) if classes is None else classes
            latents = torch.cat([latents, told], dim=1)
        return self.to_image(self.body(latents)).float().tanh().unflatten(1, self.shape)


class Discriminator(nn.Module):
    """Images [N, channels, size, size] -> logits [N]; `width` and `depth` as in the generator.

    Of `classes` above 0, which of them an image is of, float32 [N, classes], adds to its logit
    where the last hidden units lie along that class's own direction (the projection of Miyato &
    Koyama 2018).
    """

    def __init__(self, width: int, depth: int, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), *hidden(channels * size**2, width, depth))
        self.to_logit = dense(width, 1)
        self.directions = nn.Linear(classes, width, bias=False) if classes else None

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.logits(self.body(images), classes)

    def logits(self, features: Tensor, classes: Tensor | None) -> Tensor:
        logits = self.to_logit(features).flatten()
        if self.directions is None or classes is None:
            return logits
        return logits + (self.directions(classes) * features).sum(dim=1)


class MlpVAE(OneLevelVAE):
    """Hidden layers to the latents, and as many back (Kingma & Welling 2014; Burda et al. 2016).

    `depth` of them of `width` units each way. Of `classes` above 0, which of them an image is of,
    float32 [N, classes], is told where images are decoded.
    """

    def __init__(
        self, latent: int, width: int, depth: int, size: int, channels: int, planes: int,
        classes: int = 0, mixture: int = 0,
    ) -> None:  # fmt: skip
        super().__init__(latent, mixture)
        self.shape = (planes, size, size)
        self.encoder = nn.Sequential(nn.Flatten(), *hidden(channels * size**2, width, depth))
        self.to_posterior = Linear(width, 2 * latent)
        self.decoder = hidden(latent + classes, width, depth)
        self.to_planes = Linear(width, math.prod(self.shape))

    def planes(self, latents: Tensor, classes: Tensor | None) -> Tensor:
        rows = latents if classes is None else torch.cat([latents, classes], dim=1)
        return self.to_planes(self.decoder(rows)).float().unflatten(1, self.shape)


def hidden(before: int, width: int, depth: int) -> nn.Sequential:
    """`depth` layers of `width` units, the first of `before` inputs."""
    widths = itertools.pairwise([before, *[width] * depth])
    return nn.Sequential(
        *(layer for pair in widths for layer in (dense(*pair), nn.LeakyReLU(SLOPE)))
    )


def dense(before: int, after: int) -> Linear:
    layer = Linear(before, after)
    nn.init.kaiming_normal_(layer.weight, a=SLOPE)
    nn.init.zeros_(layer.bias)
    return layer
