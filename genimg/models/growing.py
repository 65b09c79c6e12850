"""ProGAN's networks (Karras et al. 2018), which grow from 4 x 4 pixels to whole images.

They always draw and judge images of the whole size, of which they know as many pixels as they have
grown to: what comes between them, and penalties on gradients, need not know that they grow.
"""

import itertools
import math
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.dcgan import doublings
from genimg.models.minibatch_std import MinibatchStd
from genimg.models.rows import Conv2d, Linear

GAIN = 2**0.5  # of layers behind which there is a leaky ReLU
SLOPE = 0.2
MOST_CHANNELS = 512


class Growing(nn.Module):
    """A network that doubles its 4 pixels by and by; its level is a part of its state.

    level: doublings so far; between whole numbers the last one fades in
    phase: images for which each resolution fades in, and for which it settles before the next;
        0: it is grown from the beginning
    """

    level: Tensor

    def __init__(self, size: int, phase: int) -> None:
        super().__init__()
        self.size, self.phase, self.most = size, phase, doublings(size)
        self.register_buffer("level", torch.zeros(()))
        self.grow(0)

    def grow(self, seen: int) -> None:
        """To the level that it has after `seen` images."""
        level = level_at(seen, self.phase, self.most)
        self.level.fill_(level)
        self.doubled: int | None = math.ceil(level)  # known without a look at the device

    @property
    def doublings(self) -> int:
        """Of its pixels, the one that fades in included."""
        if self.doubled is None:  # the level was read from a checkpoint
            self.doubled = math.ceil(float(self.level))
        return self.doubled

    def fading(self, coarse: Tensor, fine: Tensor) -> Tensor:
        """Between what it makes with one doubling fewer, and with all."""
        return torch.lerp(coarse, fine, (self.level - (self.doublings - 1)).to(fine.dtype))

    def _load_from_state_dict(self, state: Mapping[str, Any], *others: Any) -> None:
        super()._load_from_state_dict(state, *others)
        self.doubled = None


class Generator(Growing):
    """Latents float32 [N, latent] -> images [N, channels, size, size], about in [-1, 1].

    `width` channels at the whole size, twice as many at each halving, 512 at most. Of `classes`
    above 0, how much of each is wanted, float32 [N, classes], comes beside the latents; None: of
    none.

    Other than in the paper latents are not brought to one length: the shorter they are
    (truncation), the nearer is the image to that of the first layer's biases, which begin as large
    as what they are added to.
    """

    def __init__(
        self, latent: int, width: int, size: int, channels: int, phase: int, classes: int = 0
    ) -> None:
        super().__init__(size, phase)
        self.latent, self.classes = latent, classes
        widths = widths_of(width, self.most)
        self.first = EqualLinear(latent + classes, widths[0] * 16, GAIN / 4)
        nn.init.normal_(self.first.bias, std=GAIN / 4)
        blocks = [nn.Sequential(*convolved(widths[0], widths[0]))]
        for before, after in itertools.pairwise(widths):
            blocks.append(nn.Sequential(*convolved(before, after), *convolved(after, after)))
        self.blocks = nn.ModuleList(blocks)
        self.to_image = nn.ModuleList(EqualConv2d(each, channels, 1, 1.0) for each in widths)

    def forward(self, latents: Tensor, classes: Tensor | None = None) -> Tensor:
        if self.classes:
            told = latents.new_zeros(len(latents), self.classes) if classes is None else classes
            latents = torch.cat([latents, told], dim=1)
        features = F.leaky_relu(self.first(latents), SLOPE).unflatten(1, (-1, 4, 4))
        features = pixel_norm(features.contiguous(memory_format=torch.channels_last))
        features = coarse = self.blocks[0](features)
        for level in range(1, self.doublings + 1):
            coarse, features = features, self.blocks[level](enlarged(features, 2))
        images = self.to_image[self.doublings](features).float()
        if self.doublings:
            before = self.to_image[self.doublings - 1](coarse).float()
            images = self.fading(enlarged(before, 2), images)
        return enlarged(images, self.size // images.shape[-1])


class Discriminator(Growing):
    """Images [N, channels, size, size] -> logits [N]: the generator's blocks, backwards.

    N is a multiple of 4, which are compared with one another. Of `classes` above 0, which of them
    an image is of, float32 [N, classes], adds to its logit where the features of the last 4 x 4
    pixels, summed, lie along that class's own direction (Miyato & Koyama 2018).
    """

    def __init__(self, width: int, size: int, channels: int, phase: int, classes: int = 0) -> None:
        super().__init__(size, phase)
        widths = widths_of(width, self.most)
        self.from_image = nn.ModuleList(EqualConv2d(channels, each, 1, GAIN) for each in widths)
        blocks: list[nn.Module] = []
        for after, before in itertools.pairwise(widths):
            inner = [*convolved(before, before, norm=False), *convolved(before, after, norm=False)]
            blocks.append(nn.Sequential(*inner, nn.AvgPool2d(2)))
        self.blocks = nn.ModuleList(blocks)
        self.to_logit = nn.Sequential(
            MinibatchStd(),
            *convolved(widths[0] + 1, widths[0], norm=False),
            nn.Flatten(),
            EqualLinear(16 * widths[0], widths[0], GAIN),
            nn.LeakyReLU(SLOPE),
            EqualLinear(widths[0], 1, 1.0),
        )
        self.directions = nn.Linear(classes, widths[0], bias=False) if classes else None

    def forward(self, images: Tensor, classes: Tensor | None = None) -> Tensor:
        return self.logits(self.body(images), classes)

    def body(self, images: Tensor) -> Tensor:
        """Features [N, C, 4, 4]."""
        images = shrunk(images, self.size >> self.doublings + 2)
        features = F.leaky_relu(self.from_image[self.doublings](images), SLOPE)
        for level in range(self.doublings, 0, -1):
            features = self.blocks[level - 1](features)
            if level == self.doublings:
                coarse = self.from_image[level - 1](shrunk(images, 2))
                features = self.fading(F.leaky_relu(coarse, SLOPE), features)
        return features

    def logits(self, features: Tensor, classes: Tensor | None) -> Tensor:
        logits = self.to_logit(features).flatten()
        if self.directions is None or classes is None:
            return logits
        return logits + (self.directions(classes) * features.sum(dim=(2, 3))).sum(dim=1)

    def faded(self, images: Tensor) -> Tensor:
        """Real images as far as the generator can draw them where a resolution fades in."""
        if not self.doublings:
            return images
        factor = self.size >> self.doublings + 1
        return self.fading(enlarged(shrunk(images, factor), factor), images)


class Equal(nn.Module):
    """A layer that learns as fast whatever its fan-in: weights N(0, 1), scaled when used.

    (Equalised learning rate, section 4.1 of the paper.) gain: over the standard deviation of a
    weight that leaves variances as they are; rate: at which weights learn, as a factor.
    """

    def __init__(self, shape: tuple[int, ...], gain: float, rate: float = 1.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(shape) / rate)
        self.bias = nn.Parameter(torch.zeros(shape[0]))
        self.scale = rate * gain * self.weight[0].numel() ** -0.5

    @torch.no_grad()
    def into(self, plain: nn.Conv2d | nn.Linear) -> nn.Module:
        """The plain layer that computes the same, for inference."""
        plain.weight = nn.Parameter(self.weight * self.scale, self.weight.requires_grad)
        plain.bias = nn.Parameter(self.bias.clone(), self.bias.requires_grad)
        return plain.train(self.training)


class EqualConv2d(Equal):
    def __init__(self, before: int, after: int, side: int, gain: float) -> None:
        super().__init__((after, before, side, side), gain)

    def forward(self, images: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2
        return F.conv2d(images, self.weight * self.scale, self.bias, padding=padding)

    def fold(self) -> nn.Module:
        after, before, side, _ = self.weight.shape
        return self.into(nn.utils.skip_init(Conv2d, before, after, side, padding=side // 2))


class EqualLinear(Equal):
    def __init__(self, before: int, after: int, gain: float, rate: float = 1.0) -> None:
        super().__init__((after, before), gain, rate)

    def forward(self, rows: Tensor) -> Tensor:
        return F.linear(rows, self.weight * self.scale, self.bias)

    def fold(self) -> nn.Module:
        after, before = self.weight.shape
        return self.into(nn.utils.skip_init(Linear, before, after))


class PixelNorm(nn.Module):
    def forward(self, features: Tensor) -> Tensor:
        return pixel_norm(features)


def pixel_norm(features: Tensor) -> Tensor:
    """[N, C, ...] with a mean square of 1 at each pixel (section 4.2 of the paper)."""
    square = features.float().square().mean(dim=1, keepdim=True)
    return features * (square + 1e-8).rsqrt().to(features.dtype)


def convolved(before: int, after: int, norm: bool = True) -> list[nn.Module]:
    """A 3x3 convolution and what is behind it."""
    layers = [EqualConv2d(before, after, 3, GAIN), nn.LeakyReLU(SLOPE)]
    return [*layers, PixelNorm()] if norm else layers


def widths_of(width: int, doublings: int) -> list[int]:
    """Channels at 4 x 4 pixels, at 8 x 8, and so on."""
    return [min(width * 2**level, MOST_CHANNELS) for level in reversed(range(doublings + 1))]


def level_at(seen: int, phase: int, most: int) -> float:
    """Doublings after `seen` images: for a phase they stay as they are, for one the next fades
    in."""
    if not phase:
        return most
    whole, part = divmod(seen / phase, 2)
    return min(whole + max(0.0, part - 1), most)


def grown_after(phase: int, most: int) -> int:
    """Images after which `level_at` is at its most."""
    return 2 * phase * most


def enlarged(images: Tensor, factor: int) -> Tensor:
    """[N, C, H, W] -> [N, C, factor * H, factor * W], each pixel repeated."""
    return F.interpolate(images, scale_factor=float(factor), mode="nearest")


def shrunk(images: Tensor, factor: int) -> Tensor:
    """[N, C, H, W] -> [N, C, H / factor, W / factor]: the means of what each pixel covers."""
    return F.avg_pool2d(images, factor)
