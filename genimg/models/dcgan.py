"""DCGAN (Radford, Metz, Chintala 2016): strided convolutions, no pooling, no dense layers."""

import itertools
import math
from typing import Literal

import torch
from torch import Tensor, nn

from genimg.models.batch_norm import BatchNorm2d
from genimg.models.minibatch_std import MinibatchStd
from genimg.models.rows import Conv2d, FirstConvTranspose2d

Upsampling = Literal["transposed", "bilinear"]


class Generator(nn.Module):
    """Latents float32 [N, latent] -> images [N, channels, size, size] in [-1, 1].

    `width` is the number of channels at half the final resolution; it doubles at each halving.
    `depth` 3x3 convolutions follow at each resolution but the last; the paper has none. With
    `normalise`, batch normalisation follows every convolution but the last, as in the paper.
    `upsampling` is done by transposed convolutions, as there, or before 3x3 ones, which leaves no
    checkerboard (Odena, Dumoulin & Olah 2016). Of
    `classes` above 0, how much of each is wanted, float32 [N, classes], comes beside the latents
    (Mirza & Osindero 2014).
    """

    def __init__(
        self,
        latent: int,
        width: int,
        size: int,
        channels: int,
        normalise: bool = True,
        depth: int = 0,
        classes: int = 0,
        upsampling: Upsampling = "transposed",
    ) -> None:
        super().__init__()
        self.latent = latent
        widths = [width * 2**i for i in reversed(range(doublings(size)))]
        first = FirstConvTranspose2d(latent + classes, widths[0], 4, bias=not normalise)
        grow: list[nn.Module] = [first]
        grow += [
            doubling(before, after, upsampling, bias=not normalise)
            for before, after in itertools.pairwise(widths)
        ]
        layers: list[nn.Module] = []
        for larger, after in zip(grow, widths, strict=True):
            layers += [larger, *activated(after, normalise)]
            for _ in range(depth):
                same = Conv2d(after, after, 3, padding=1, bias=not normalise)
                layers += [same, *activated(after, normalise)]
        self.body = nn.Sequential(*layers)
        self.to_image = doubling(widths[-1], channels, upsampling)
        self.apply(initialise)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        rows = latents if classes is None else torch.cat([latents, classes], dim=1)
        return self.to_image(self.body(rows[:, :, None, None])).float().tanh()


class Discriminator(nn.Module):
    """Images [N, channels, size, size] -> logits [N]; `width` and `depth` as in the generator.

    Without normalisation: the R1 penalty asks for gradients image by image, which batch
    statistics would mix, and it keeps the discriminator smooth by itself.

    Of `classes` above 0, which of them an image is of, float32 [N, classes], adds to its logit
    where the features of the last 4 x 4 pixels, summed, lie along that class's own direction (the
    projection of Miyato & Koyama 2018). minibatch_std: the last layer also sees how much
    neighbouring images differ.
    """

    def __init__(
        self,
        width: int,
        size: int,
        channels: int,
        depth: int = 0,
        classes: int = 0,
        minibatch_std: bool = False,
    ) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        before = channels
        for i in range(doublings(size)):
            after = width * 2**i
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
            for _ in range(depth):
                layers += [nn.Conv2d(after, after, 3, padding=1), nn.LeakyReLU(0.2)]
            before = after
        self.body = nn.Sequential(*layers)
        self.to_logit: nn.Module = nn.Conv2d(before + minibatch_std, 1, 4)
        if minibatch_std:
            self.to_logit = nn.Sequential(MinibatchStd(), self.to_logit)
        self.directions = nn.Linear(classes, before, bias=False) if classes else None
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, a=0.2)

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.logits(self.body(images), classes)

    def logits(self, features: Tensor, classes: Tensor | None) -> Tensor:
        logits = self.to_logit(features).flatten()
        if self.directions is None:
            return logits
        return logits + (self.directions(classes) * features.sum(dim=(2, 3))).sum(dim=1)


def doublings(size: int) -> int:
    """How many times 4 pixels double to `size`."""
    count = round(math.log2(size / 4))
    assert 4 * 2**count == size, size
    return count


def doubling(before: int, after: int, upsampling: Upsampling, bias: bool = True) -> nn.Module:
    """Features [N, before, H, W] -> [N, after, 2 H, 2 W]."""
    if upsampling == "transposed":
        return nn.ConvTranspose2d(before, after, 4, stride=2, padding=1, bias=bias)
    convolution = Conv2d(before, after, 3, padding=1, bias=bias)
    return nn.Sequential(nn.Upsample(scale_factor=2, mode="bilinear"), convolution)


def activated(channels: int, normalise: bool) -> list[nn.Module]:
    norm = [BatchNorm2d(channels)] if normalise else []
    return [*norm, nn.ReLU(inplace=True)]


def initialise(module: nn.Module) -> None:
    """Weights N(0, 0.02), scales N(1, 0.02) (section 4 of the paper)."""
    if isinstance(module, nn.ConvTranspose2d | nn.Conv2d):
        nn.init.normal_(module.weight, std=0.02)
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.normal_(module.weight, mean=1.0, std=0.02)
        nn.init.zeros_(module.bias)
