"""A hierarchical variational autoencoder: latents in levels, from coarse to fine."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.one_level import Level
from genimg.models.rows import Conv2d, Linear
from genimg.models.velocity import norm, zero

WIDEST = 8.0  # log variance of priors, and of posteriors beside them, at most; -8 at least


class LadderVAE(nn.Module):
    """Encodes images upwards, and draws latents downwards given what it has seen on the way.

    The two share the way down (Sonderby et al. 2016): at each resolution, from the lowest, there
    are `blocks` levels of `depth` planes of latents, whose posterior is told relative to the prior
    that the levels above give them (section 3.2, Vahdat & Kautz 2020). The resolution halves as
    often as it can, at least once and at most down to 4 pixels. Decodes to `planes` for each pixel,
    in which a likelihood reads the image; log_sigma [] is the scale of one that has a scale. With
    `classes` above 0 each level is told which of them an image is of: float32 [N, classes].

    Latents [N, latent] are standard normals, level after level, of which each prior makes its own.
    """

    log_sigma: Tensor
    mixture = None

    def __init__(
        self, depth: int, width: int, blocks: int, size: int, channels: int, planes: int,
        classes: int = 0,
    ) -> None:  # fmt: skip
        super().__init__()
        sides = resolutions(size)
        self.head = nn.Sequential(Conv2d(channels, width, 4, stride=2, padding=1), Residual(width))
        self.up = nn.ModuleList(
            nn.Sequential(Conv2d(width, width, 3, stride=2, padding=1), Residual(width))
            for _ in sides[1:]
        )
        self.start = nn.Parameter(torch.randn(1, width, sides[-1], sides[-1]))
        self.levels = nn.ModuleList(
            Rung(width, depth, side, classes) for side in sides[::-1] for _ in range(blocks)
        )
        self.blocks = blocks
        self.tail = nn.Sequential(
            Residual(width), norm(width), nn.SiLU(),
            nn.ConvTranspose2d(width, planes, 4, stride=2, padding=1),
        )  # fmt: skip
        self.latent = sum(rung.count for rung in self.rungs())
        self.register_buffer("log_sigma", torch.zeros(()))

    def rungs(self) -> list[Rung]:
        return [each for each in self.levels if isinstance(each, Rung)]

    def encode(self, images: Tensor) -> tuple[Tensor, ...]:
        """Images [N, C, H, W] in [-1, 1] -> features of each resolution, from the lowest."""
        seen = [self.head(images)]
        for rise in self.up:
            seen.append(rise(seen[-1]))
        return tuple(seen[::-1])

    def draw(
        self, seen: tuple[Tensor, ...], noise: Tensor, classes: Tensor | None = None
    ) -> tuple[Tensor, tuple[Level, ...]]:
        """What `encode` gave, standard normals [N, latent] -> planes, and the levels."""
        features, levels = self.down(seen, noise, classes)
        return self.tail(features).float(), levels

    def latents(self, seen: tuple[Tensor, ...], classes: Tensor | None = None) -> Tensor:
        """What `encode` gave -> the posterior's mean [N, latent], as `decode` takes it."""
        nothing = seen[0].new_zeros(len(seen[0]), self.latent, dtype=torch.float32)
        _, levels = self.down(seen, nothing, classes)
        every = [(drawn - mean) * (-0.5 * wide).exp() for drawn, _, _, mean, wide in levels]
        return torch.cat([each.flatten(1) for each in every], dim=1)

    def decode(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        """Latents [N, latent], of the prior N(0, 1) -> planes float32 [N, planes, H, W]."""
        return self.tail(self.down(None, latents, classes)[0]).float()

    def down(
        self, seen: tuple[Tensor, ...] | None, noise: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, tuple[Level, ...]]:
        """Features of the highest resolution, and the levels; seen: None draws of the prior."""
        features = self.start.expand(len(noise), -1, -1, -1)
        rungs = self.rungs()
        parts = noise.split([rung.count for rung in rungs], dim=1)
        levels = []
        for number, (rung, part) in enumerate(zip(rungs, parts, strict=True)):
            if number and number % self.blocks == 0:
                features = F.interpolate(features, scale_factor=2.0)
            beside = None if seen is None else seen[number // self.blocks]
            features, level = rung(features, beside, part, classes)
            levels.append(level)
        return features, tuple(levels)


class Rung(nn.Module):
    """A level: features [N, width, side, side] of those above, standard normals [N, count] ->
    features of this one too, and what a level tells.

    seen: likewise features of the image; None: latents are those of the prior, which tells nothing
    """

    def __init__(self, width: int, depth: int, side: int, classes: int) -> None:
        super().__init__()
        self.shape = (depth, side, side)
        self.count = depth * side**2
        self.to_prior = nn.Sequential(norm(width), nn.SiLU(), Conv2d(width, 2 * depth, 1))
        self.to_posterior = nn.Sequential(
            Conv2d(2 * width, width, 1), Residual(width), norm(width), nn.SiLU(),
            Conv2d(width, 2 * depth, 1),
        )  # fmt: skip
        self.of_latents = Conv2d(depth, width, 1)
        self.behind = Residual(width, classes)

    def forward(
        self, features: Tensor, seen: Tensor | None, noise: Tensor, classes: Tensor | None
    ) -> tuple[Tensor, Level]:
        noise = noise.unflatten(1, self.shape)
        prior, prior_log_variance = bounded(self.to_prior(features))
        scale = (0.5 * prior_log_variance).exp()
        level: Level = ()
        if seen is None:
            drawn = prior + scale * noise
        else:
            shift, wider = bounded(self.to_posterior(torch.cat([features, seen], dim=1)))
            mean, log_variance = prior + scale * shift, prior_log_variance + wider
            drawn = mean + (0.5 * log_variance).exp() * noise
            level = (drawn, mean, log_variance, prior, prior_log_variance)
        return self.behind(features + self.of_latents(drawn), classes), level


class Residual(nn.Module):
    """Features [N, width, H, W] and two 3x3 convolutions of them, the second zero at first.

    Of `classes` above 0, which of them an image is of, float32 [N, classes], shifts every channel
    in the middle, where no normalisation takes it back.
    """

    def __init__(self, width: int, classes: int = 0) -> None:
        super().__init__()
        first = Conv2d(width, width, 3, padding=1)
        self.first = nn.Sequential(norm(width), nn.SiLU(), first, norm(width))
        self.of_classes = Linear(classes, width, bias=False) if classes else None
        self.second = nn.Sequential(nn.SiLU(), zero(Conv2d(width, width, 3, padding=1)))

    def forward(self, features: Tensor, classes: Tensor | None = None) -> Tensor:
        inner = self.first(features)
        if self.of_classes is not None:
            inner = inner + self.of_classes(classes)[:, :, None, None]
        return features + self.second(inner)


def resolutions(size: int) -> list[int]:
    """Sides at which images of a size, a multiple of 4, have latents: the highest first."""
    sides = [size // 2]
    while sides[-1] % 2 == 0 and sides[-1] >= 8:
        sides.append(sides[-1] // 2)
    return sides


def bounded(made: Tensor) -> tuple[Tensor, Tensor]:
    """[N, 2 D, ...] -> mean and log variance, float32 [N, D, ...], whose exp stays finite."""
    mean, log_variance = made.float().chunk(2, dim=1)
    return mean, WIDEST * (log_variance / WIDEST).tanh()
