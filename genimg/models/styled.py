"""StyleGAN2's generator (Karras et al. 2020): what latents say is told to each layer, as its style.

It has no noise of its own in its layers: an image is a function of its latents alone.
"""

import itertools
from typing import Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch._compile import _disable_dynamo

from genimg.contracts import Division
from genimg.models.dcgan import doublings
from genimg.models.growing import GAIN, SLOPE, EqualLinear, pixel_norm, widths_of
from genimg.models.rows import Conv2d, in_blocks

SLOWLY = 0.1  # at which the mapping network learns; 0.01 in the paper, whose trainings are longer
FOLLOWING = 0.1  # part of the way that mean styles go at each step
EPSILON = 1e-8


class Modulated(nn.Module):
    """Features [N, before, H, W] -> [N, after, H, W]: a convolution whose weights a style scales.

    A style scales channels that come in; demodulated, channels that go out are brought back to one
    variance, GAIN squared where what comes in has the variance 1 (section 2.2 of the paper). Done
    to features, by one convolution for all rows, it is the same as weights of each row's own.
    """

    power: Tensor | None

    def __init__(
        self, before: int, after: int, side: int, style: int, demodulated: bool = True
    ) -> None:
        super().__init__()
        self.channels = [before, after]
        self.demodulated = demodulated
        self.affine = EqualLinear(style, before, 1.0)
        nn.init.ones_(self.affine.bias)
        self.convolution = Conv2d(before, after, side, padding=side // 2, bias=False)
        nn.init.normal_(self.convolution.weight)
        self.bias = nn.Parameter(torch.zeros(after))
        self.register_buffer("power", None, persistent=False)

    def told(self, style: Tensor) -> Tensor:
        """[N, before + after]: factors on channels that come in, and that go out, by styles
        [N, D]."""
        scale = self.affine(style)
        if self.demodulated:
            power = self.squares() if self.power is None else self.power
            factor = GAIN * (F.linear(scale.square(), power) + EPSILON).rsqrt()
        else:
            before, after = self.channels
            factor = scale.new_full((len(scale), after), before**-0.5)
        return torch.cat([scale, factor], dim=1)

    def squares(self) -> Tensor:
        """[after, before]: of the filters' weights, summed."""
        return self.convolution.weight.square().sum(dim=(2, 3))

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        scale, factor = told[..., None, None].split(self.channels, dim=1)
        made = self.convolution(features * scale.to(features.dtype))
        return torch.addcmul(self.bias.to(made.dtype)[:, None, None], made, factor.to(made.dtype))

    @torch.no_grad()
    def fold(self) -> Self:
        """Itself, with what stays the same at inference found once."""
        self.power = self.squares()
        return self


class Generator(nn.Module):
    """Latents float32 [N, latent] -> images [N, channels, size, size], about in [-1, 1].

    A mapping network makes styles of latents, of as many dimensions. From learnt 4 x 4 pixels two
    convolutions at each resolution but the first, which has one, and an output whose images are
    summed over the resolutions. `layers` styles are told, two at each resolution, coarse to fine:
    to one convolution each, the second also to the output beside it. `width` channels at the whole
    size, twice as many at each halving, 512 at most. Of `classes` above 0, how much of each is
    wanted, float32 [N, classes], is embedded beside the latents; None: none in particular.

    The direction of latents says which style it is, and their length how far it is from the mean
    of what is told: of the root of `latent`, the style itself; shorter ones (truncation) are nearer
    to the mean (section B, Karras et al. 2019, A Style-Based Generator Architecture).
    """

    division: Division | None = None
    means: Tensor

    def __init__(
        self, latent: int, width: int, mapping: int, size: int, channels: int, classes: int = 0
    ) -> None:
        super().__init__()
        self.latent, self.classes = latent, classes
        self.embedding = EqualLinear(classes, latent, 1.0) if classes else None
        dense: list[nn.Module] = []
        for number in range(mapping):
            before = latent * (2 if classes and not number else 1)
            dense += [EqualLinear(before, latent, GAIN, SLOWLY), nn.LeakyReLU(SLOPE)]
        self.mapping = nn.Sequential(*dense)
        self.register_buffer("means", torch.zeros(1 + classes, latent))
        widths = widths_of(width, doublings(size))
        self.layers = 2 * len(widths)
        self.constant = nn.Parameter(torch.randn(widths[0], 4, 4))
        pairs = [(widths[0], widths[0])]
        for before, after in itertools.pairwise(widths):
            pairs += [(before, after), (after, after)]
        self.convolutions = nn.ModuleList(Modulated(*pair, 3, latent) for pair in pairs)
        self.to_image = nn.ModuleList(
            Modulated(each, channels, 1, latent, demodulated=False) for each in widths
        )
        numbers = [0, *range(2, self.layers), *range(1, self.layers, 2)]
        self._numbers = numbers  # of the styles of all convolutions, and of all outputs behind them
        self._told = [sum(pair) for pair in pairs] + [each + channels for each in widths]

    def forward(
        self,
        latents: Tensor,
        classes: Tensor | None = None,
        second: Tensor | None = None,
        layers: Tensor | None = None,
        second_classes: Tensor | None = None,
    ) -> Tensor:
        """layers: float32 [N, layers], 1 for those that take the style of latents `second`
        [N, latent], 0 for others; second_classes: of these, where they are not of the same."""
        with torch.autocast(latents.device.type, enabled=False):
            styles = self.styles(latents, classes)[:, None].expand(-1, self.layers, -1)
            if second is not None and layers is not None:
                of = classes if second_classes is None else second_classes
                others = self.styles(second, of, followed=False)[:, None]
                styles = torch.where(layers[..., None] > 0, others, styles)
            told = self.told(styles) if self.training else in_blocks(self.told, styles)
        return self.drawn(told)

    def styles(self, latents: Tensor, classes: Tensor | None, followed: bool = True) -> Tensor:
        """[N, D]; followed: in training mean styles go after them."""
        beside = latents.new_ones(len(latents), 1)
        if self.classes:
            told = latents.new_zeros(len(latents), self.classes) if classes is None else classes
            beside = torch.cat([beside, told], dim=1)
        rows = torch.cat([latents, beside], dim=1)
        if not self.training:  # in whole blocks what lies between layers has the same bits, too
            return in_blocks(lambda block: self.mapped(block)[0], rows)
        styles, mapped = self.mapped(rows)
        if followed:
            self.follow(beside.detach(), mapped.detach())
        return styles

    def mapped(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """(styles [N, D], those of latents of the usual length) of rows: latents, 1, and what is
        told."""
        latents, beside = rows.split([self.latent, 1 + self.classes], dim=1)
        inputs = pixel_norm(latents)
        if self.embedding is not None:
            inputs = torch.cat([inputs, pixel_norm(self.embedding(beside[:, 1:]))], dim=1)
        mapped = self.mapping(inputs)
        mean = beside.detach() @ self.means
        length = latents.norm(dim=1, keepdim=True) * self.latent**-0.5
        return torch.lerp(mean, mapped, length), mapped

    @torch.no_grad()
    def follow(self, beside: Tensor, styles: Tensor) -> None:
        """Mean styles, a linear function of what is told, go a step nearer to styles [N, D].

        (Least mean squares, Widrow & Hoff 1960.) Where nothing is told it is a moving average.
        """
        step = beside.mT @ (styles - beside @ self.means) / len(styles)
        square = beside.square().sum(dim=1).mean()
        values = torch.cat([step.flatten(), square[None]])
        if self.division is not None:
            values = self.divided(values, self.division)
        self.means.add_((values[:-1] / values[-1]).view_as(self.means), alpha=FOLLOWING)

    @_disable_dynamo  # collectives are no part of a graph
    def divided(self, values: Tensor, division: Division) -> Tensor:
        """The mean over all workers' images."""
        return division.mean(values)

    def told(self, styles: Tensor) -> Tensor:
        """[N, ...]: what all layers are told, one after the other, of styles [N, layers, D]."""
        every = styles.transpose(0, 1).contiguous()
        layers = [*self.convolutions, *self.to_image]
        return torch.cat(
            [
                layer.told(every[number])
                for layer, number in zip(layers, self._numbers, strict=True)
                if isinstance(layer, Modulated)
            ],
            dim=1,
        )

    def drawn(self, told: Tensor) -> Tensor:
        """Images of what the layers are told."""
        every = told.split(self._told, dim=1)
        of_convolutions, of_images = every[: -len(self.to_image)], every[-len(self.to_image) :]
        features = self.constant.expand(len(told), -1, -1, -1)
        features = features.contiguous(memory_format=torch.channels_last)
        images = None
        for index, convolution in enumerate(self.convolutions):
            if index % 2:
                features = doubled(features)
            features = F.leaky_relu(convolution(features, of_convolutions[index]), SLOPE)
            if not index % 2:
                level = index // 2
                made = self.to_image[level](features, of_images[level]).float()
                images = made if images is None else doubled(images) + made
        assert images is not None, "there is a first resolution"
        return images


def doubled(images: Tensor) -> Tensor:
    """[N, C, H, W] -> [N, C, 2 H, 2 W], bilinearly."""
    return F.interpolate(images, scale_factor=2.0, mode="bilinear", align_corners=False)
