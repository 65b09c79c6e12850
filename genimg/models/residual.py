"""SNGAN's residual networks (Miyato et al. 2018), with SAGAN's attention and BigGAN's classes."""

from functools import partial

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.batch_norm import BatchNorm2d
from genimg.models.dcgan import doublings
from genimg.models.rows import Conv2d, FirstConvTranspose2d, Linear
from genimg.models.spectral import SpectralConv2d


class ClassNorm(nn.Module):
    """Batch normalisation, whose scale and shift classes change (Dumoulin et al. 2017).

    Features [N, C, H, W], classes [N, classes] or None, which changes nothing, -> features.
    """

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.norm = BatchNorm2d(channels)
        self.modulation = Linear(classes, 2 * channels, bias=False) if classes else None
        if self.modulation is not None:
            nn.init.normal_(self.modulation.weight, std=0.02)

    def forward(self, features: Tensor, classes: Tensor | None) -> Tensor:
        inner = self.norm(features)
        if self.modulation is None or classes is None:
            return inner
        scale, shift = self.modulation(classes).to(inner.dtype)[..., None, None].chunk(2, dim=1)
        return torch.addcmul(shift, inner, 1 + scale)


class Attention(nn.Module):
    """Features [N, C, H, W] and, times a factor that begins at 0, what is seen elsewhere.

    Section 3 of Zhang et al. 2019; seen are maxima of 2 x 2 pixels, as in its authors' code.
    Written out, because it is differentiated twice under gradient penalties.
    """

    def __init__(self, channels: int, convolution: type[nn.Conv2d]) -> None:
        super().__init__()
        one = partial(convolution, kernel_size=1, bias=False)
        few, half = max(1, channels // 8), max(1, channels // 2)
        self.query, self.key = one(channels, few), one(channels, few)
        self.value, self.out = one(channels, half), one(half, channels)
        self.gamma = nn.Parameter(torch.zeros(1))

    def forward(self, features: Tensor) -> Tensor:
        query = self.query(features).flatten(2)
        key = F.max_pool2d(self.key(features), 2).flatten(2)
        value = F.max_pool2d(self.value(features), 2).flatten(2)
        weights = (query.mT @ key).softmax(dim=2)  # [N, H W, H W / 4]
        seen = (value @ weights.mT).unflatten(2, features.shape[2:])
        return features + self.gamma * self.out(seen)


class Up(nn.Module):
    """A block that doubles the sides: normalised, two 3x3 convolutions, and a 1x1 beside them.

    Without biases, which the normalisations behind would take away.
    """

    def __init__(self, width: int, classes: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList(ClassNorm(width, classes) for _ in range(2))
        self.first = Conv2d(width, width, 3, padding=1, bias=False)
        self.second = Conv2d(width, width, 3, padding=1, bias=False)
        self.shortcut = Conv2d(width, width, 1, bias=False)

    def forward(self, features: Tensor, classes: Tensor | None) -> Tensor:
        inner = self.first(doubled(F.relu(self.norms[0](features, classes))))
        inner = self.second(F.relu(self.norms[1](inner, classes)))
        return inner + doubled(self.shortcut(features))


class Generator(nn.Module):
    """Latents float32 [N, latent] -> images [N, channels, size, size] in [-1, 1].

    From 4 x 4 pixels a block for each doubling, all of `width` channels (table 4a, Miyato et al.
    2018). attention: at half the size, 32 pixels at most. Of `classes` above 0, how much of each
    is wanted, float32 [N, classes], changes the normalisation; None: of none in particular.
    """

    def __init__(
        self, latent: int, width: int, size: int, channels: int, attention: bool, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent = latent
        self.first = FirstConvTranspose2d(latent, width, 4, bias=False)
        self.blocks = nn.ModuleList(Up(width, classes) for _ in range(doublings(size)))
        self.attention = Attention(width, Conv2d) if attention else None
        self.attended = attended(size)
        last = Conv2d(width, channels, 3, padding=1)
        self.to_image = nn.Sequential(BatchNorm2d(width), nn.ReLU(), last)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
                nn.init.xavier_uniform_(module.weight)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        features = self.first(latents[:, :, None, None])
        for block in self.blocks:
            features = block(features, classes)
            if self.attention is not None and features.shape[-1] == self.attended:
                features = self.attention(features)
        return self.to_image(features).float().tanh()


class Down(nn.Module):
    """A block of two 3x3 convolutions, and what it is given beside them; perhaps halved.

    first: of images, which no ReLU comes before
    """

    def __init__(
        self, before: int, after: int, convolution: type[nn.Conv2d], halve: bool, first: bool
    ) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Identity() if first else nn.ReLU(),
            convolution(before, after, 3, padding=1),
            nn.ReLU(),
            convolution(after, after, 3, padding=1),
            nn.AvgPool2d(2) if halve else nn.Identity(),
        )
        self.shortcut: nn.Module = nn.Identity()
        if halve:
            self.shortcut = nn.Sequential(nn.AvgPool2d(2), convolution(before, after, 1))

    def forward(self, features: Tensor) -> Tensor:
        return self.shortcut(features) + self.body(features)


class Discriminator(nn.Module):
    """Images [N, channels, size, size] -> logits [N].

    A block for each halving down to 8 pixels and two more, all of `width` channels, whose features
    are summed over pixels (table 4b, Miyato et al. 2018). attention: as in the generator.
    spectral: every weight has the spectral norm 1. Of `classes` above 0, which of them an image is
    of, float32 [N, classes], adds to its logit where the features lie along that class's own
    direction (the projection of Miyato & Koyama 2018).
    """

    def __init__(
        self,
        width: int,
        size: int,
        channels: int,
        attention: bool,
        spectral: bool,
        classes: int = 0,
    ) -> None:
        super().__init__()
        convolution = SpectralConv2d if spectral else nn.Conv2d
        halvings = doublings(size) - 1
        layers: list[nn.Module] = []
        for i in range(halvings + 2):
            before, halve = width if i else channels, i < halvings
            layers.append(Down(before, width, convolution, halve, first=i == 0))
            if attention and halve and size == attended(size) * 2 ** (i + 1):
                layers.append(Attention(width, convolution))
        self.body = nn.Sequential(*layers, nn.ReLU())
        self.to_logit = convolution(width, 1, 1)
        self.directions = convolution(classes, width, 1, bias=False) if classes else None
        for module in self.modules():
            if type(module) is nn.Conv2d:
                nn.init.kaiming_normal_(module.weight)

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.logits(self.body(images), classes)

    def logits(self, features: Tensor, classes: Tensor | None) -> Tensor:
        summed = features.sum(dim=(2, 3), keepdim=True)
        logits = self.to_logit(summed).flatten()
        if self.directions is None or classes is None:
            return logits
        return logits + (self.directions(classes[:, :, None, None]) * summed).sum(dim=(1, 2, 3))


def attended(size: int) -> int:
    """Side of the maps in which attention is, of images of a side: in one place of a network."""
    return min(size // 2, 32)


def doubled(features: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2 H, 2 W], each pixel four times."""
    return F.interpolate(features, scale_factor=2.0, mode="nearest")
