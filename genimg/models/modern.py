"""R3GAN's networks (Huang et al. 2024): residual blocks of today, and no normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.dcgan import doublings
from genimg.models.rows import Conv2d, Linear

EXPANSION = 2  # by which a block is wider inside
GROUP = 16  # channels of a group of its 3x3 convolution
EMBEDDING = 64  # numbers that a class is told by
SLOPE = 0.2  # of the leaky ReLU


class Block(nn.Module):
    """Features [N, C, H, W] and what convolutions 1x1, 3x3 (grouped) and 1x1 make of them.

    The last is zero at first, and the others are smaller the more `blocks` there are in a network:
    so it begins stable without normalisation (Fixup, Zhang, Dauphin & Ma 2019).
    """

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        inner = EXPANSION * width
        last = Conv2d(inner, width, 1, bias=False)
        self.body = nn.Sequential(
            Conv2d(width, inner, 1),
            nn.LeakyReLU(SLOPE),
            Conv2d(inner, inner, 3, padding=1, groups=inner // GROUP),
            nn.LeakyReLU(SLOPE),
            last,
        )
        gain = nn.init.calculate_gain("leaky_relu", SLOPE) * blocks**-0.25
        for name, weight in self.body.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(weight)
            else:
                nn.init.normal_(weight, std=gain * weight[0].numel() ** -0.5)
        nn.init.zeros_(last.weight)

    def forward(self, features: Tensor) -> Tensor:
        return features + self.body(features)


class Resample(nn.Module):
    """Sides doubled (factor 2) or halved (0.5), bilinearly."""

    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, features: Tensor) -> Tensor:
        return F.interpolate(
            features, scale_factor=self.factor, mode="bilinear", align_corners=False
        )


class Generator(nn.Module):
    """Latents float32 [N, latent] -> images [N, channels, size, size], about in [-1, 1].

    From learnt 4 x 4 pixels, weighed by the latents, `blocks` at each resolution, all of `width`
    channels. Of `classes` above 0, how much of each is wanted, float32 [N, classes], is embedded
    beside the latents; None: none in particular.
    """

    def __init__(
        self, latent: int, width: int, blocks: int, size: int, channels: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent = latent
        self.embedding = embedding_of(classes) if classes else None
        told = latent + (EMBEDDING if classes else 0)
        self.first = Linear(told, width, bias=False)
        nn.init.normal_(self.first.weight, std=told**-0.5)
        self.basis = nn.Parameter(torch.randn(width, 4, 4))
        levels = doublings(size) + 1
        layers: list[nn.Module] = []
        for level in range(levels):
            layers += [Resample(2.0)] if level else []
            layers += [Block(width, levels * blocks) for _ in range(blocks)]
        self.body = nn.Sequential(*layers)
        self.to_image = plain(Conv2d(width, channels, 1, bias=False))

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        if self.embedding is not None:
            told = latents.new_zeros(len(latents), EMBEDDING)
            told = told if classes is None else self.embedding(classes)
            latents = torch.cat([latents, told.to(latents.dtype)], dim=1)
        features = self.first(latents)[..., None, None] * self.basis
        features = features.contiguous(memory_format=torch.channels_last)
        return self.to_image(self.body(features)).float()


class Discriminator(nn.Module):
    """Images [N, channels, size, size] -> logits [N]: the generator's blocks, backwards.

    Of `classes` above 0, which of them an image is of, float32 [N, classes], is embedded, and the
    logit is how well the embedding fits the features of the last 4 x 4 pixels.
    """

    def __init__(self, width: int, blocks: int, size: int, channels: int, classes: int = 0) -> None:
        super().__init__()
        levels = doublings(size) + 1
        layers: list[nn.Module] = [plain(nn.Conv2d(channels, width, 1, bias=False))]
        for level in range(levels):
            layers += [Resample(0.5)] if level else []
            layers += [Block(width, levels * blocks) for _ in range(blocks)]
        self.body = nn.Sequential(*layers)
        self.basis = plain(nn.Conv2d(width, width, 4, groups=width, bias=False))
        self.last = Linear(width, EMBEDDING if classes else 1, bias=False)
        nn.init.normal_(self.last.weight, std=width**-0.5)
        self.embedding = embedding_of(classes) if classes else None

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.logits(self.body(images), classes)

    def logits(self, features: Tensor, classes: Tensor | None) -> Tensor:
        outputs = self.last(self.basis(features).flatten(1))
        if self.embedding is None:
            return outputs.flatten()
        return (outputs * self.embedding(classes)).sum(dim=1) * EMBEDDING**-0.5


def embedding_of(classes: int) -> Linear:
    layer = Linear(classes, EMBEDDING, bias=False)
    nn.init.normal_(layer.weight)
    return layer


def plain(convolution: nn.Conv2d) -> nn.Conv2d:
    """One that leaves the variance as it is, at first."""
    nn.init.kaiming_normal_(convolution.weight, nonlinearity="linear")
    return convolution
