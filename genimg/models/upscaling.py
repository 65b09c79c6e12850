"""Plain networks of 3x3 convolutions with pixel shuffle: re-parameterised ones, and EDSR."""

import copy
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.bands import Residual, through
from genimg.models.restoring import RestoringNetwork, receptive_field
from genimg.models.rows import Conv2d

AnyModule = TypeVar("AnyModule", bound=nn.Module)

# Factor of the branches beside a 3x3: Adam moves each by its own step, and with a factor of 1 they
# would add up to that of thrice the rate, at which networks die that train well by themselves.
BESIDE = 0.3


class RepConv(nn.Module):
    """A convolution 3x3 as the sum of several linear branches; images [N, before, H, W].

    In the manner of RepVGG (Ding and others 2021) and ECBSR (Zhang, Zeng, Zhang 2021), without
    batch normalisation: a 3x3, a 1x1, the input itself times a scale a channel (where `before` is
    `after`), and a 1x1 to `expansion` times as many channels followed by a 3x3; all but the first
    times BESIDE. Only the first is not zero at first: normal, of standard deviation
    gain / sqrt(9 before). The expanding convolution has no bias: at the image's border the second
    sees zeros as the others do, so that the sum is one convolution exactly.

    The branches are added up as kernels, not as images, in training too: the gradients are the
    same, and the larger the images the less it costs beside a single convolution. Inference folds
    them (genimg.inference.prepared).
    """

    def __init__(self, before: int, after: int, gain: float = 2**0.5, expansion: int = 2) -> None:
        super().__init__()
        inner = expansion * before
        self.weight = nn.Parameter(torch.empty(after, before, 3, 3))
        self.bias = nn.Parameter(torch.zeros(after))
        self.point = nn.Parameter(torch.zeros(after, before))
        self.identity = nn.Parameter(torch.zeros(after)) if before == after else None
        self.expand = nn.Parameter(torch.empty(inner, before))
        self.squeeze = nn.Parameter(torch.zeros(after, inner, 3, 3))
        nn.init.normal_(self.weight, std=gain / (9 * before) ** 0.5)
        # E' E is about the identity: a step moves this branch's kernel as far as the 3x3's
        nn.init.normal_(self.expand, std=inner**-0.5)

    def kernel(self) -> Tensor:
        """[after, before, 3, 3]"""
        center = self.point if self.identity is None else self.point + self.identity.diag()
        expanded = torch.einsum("omyx,mi->oiyx", self.squeeze, self.expand)
        beside = expanded + F.pad(center[:, :, None, None], (1, 1, 1, 1))
        return self.weight + BESIDE * beside

    def forward(self, images: Tensor) -> Tensor:
        with torch.autocast(images.device.type, enabled=False):
            kernel = self.kernel()  # a sum of small and large numbers: in float32
        return F.conv2d(images, kernel, self.bias, padding=1)

    def _load_from_state_dict(self, state: dict[str, Any], prefix: str, *others: Any) -> None:
        """Weights of the one convolution that it is mean the same with branches of zeros."""
        beside = {f"{prefix}{name}": each for name, each in self.named_parameters()}
        for name in ("weight", "bias"):
            beside.pop(prefix + name)
        if not beside.keys() & state.keys():
            state |= {name: torch.zeros_like(each) for name, each in beside.items()}
            state[f"{prefix}expand"] = self.expand.detach()  # with zeros it would learn nothing
        super()._load_from_state_dict(state, prefix, *others)

    @torch.no_grad()
    def fold(self) -> Conv2d:
        """The one convolution that it is."""
        after, before = self.weight.shape[:2]
        with torch.device("meta"):  # not by skip_init, which imports a second's worth
            plain = Conv2d(before, after, 3, padding=1)
        plain.weight = nn.Parameter(self.kernel().contiguous())
        plain.bias = nn.Parameter(self.bias.clone())
        plain.requires_grad_(self.weight.requires_grad)
        return plain.train(self.training)


def fold(network: nn.Module) -> None:
    """Put a plain layer in the place of each re-parameterised or scaled one, in place."""
    for part in list(network.modules()):
        for name, child in part.named_children():
            if callable(made := getattr(child, "fold", None)):
                setattr(part, name, made())


def folded(network: AnyModule) -> AnyModule:
    """A copy of the network with plain convolutions, and the same outputs up to rounding."""
    network = copy.deepcopy(network)
    fold(network)
    return network


class Block(Residual):
    """x + scale * convolution(relu(convolution(x))) (figure 2c, Lim et al. 2017)."""

    def __init__(self, first: nn.Module, second: nn.Module, scale: float = 1.0) -> None:
        super().__init__()
        self.body = nn.Sequential(first, nn.ReLU(), second)
        self.scale = scale

    def added(self, x: Tensor) -> Tensor:
        return self.body(x) if self.scale == 1 else self.body(x) * self.scale


class Plain(RestoringNetwork):
    """Residual blocks of re-parameterised convolutions 3x3 and a pixel shuffle at the end.

    Images [N, channels, H, W] in [-1, 1] (gray, luma or colour) and condition maps [N, maps, H, W]
    -> images, `scale` times as large. It predicts what to add to the image itself or, where it
    upscales, to its bilinear interpolation (which learned faster than repeated pixels), and starts
    as that. Before the last convolution stands a leaky ReLU: behind a plain one all of a network
    died at rates slightly too high.

    unshuffle: 2 to work at half the resolution (as FFDNet does), with four times the planes: for
        noise, JPEG and missing pixels, at a quarter of the cost.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        channels: int,
        maps: int = 0,
        scale: int = 1,
        unshuffle: int = 1,
    ) -> None:
        super().__init__(channels, maps)
        self.scale = scale
        self.stride = unshuffle
        self.shuffle = unshuffle * scale
        first = RepConv((channels + maps) * unshuffle**2, width)
        last = RepConv(width, channels * self.shuffle**2, gain=0)
        inner = [  # nearly the identity at first, so that depth costs no signal
            Block(RepConv(width, width), RepConv(width, width, gain=0.2)) for _ in range(blocks)
        ]
        self.body = nn.Sequential(first, *inner, nn.LeakyReLU(0.1), last)
        self.held = 2 * width // unshuffle**2 + 2 * channels * scale**2
        self.receptive_field = receptive_field((self.shuffle, 2 * blocks + 2), scale=scale)

    def restore(self, known: Tensor) -> Tensor:
        images = known[:, : self.channels]
        planes = F.pixel_unshuffle(known, self.stride) if self.stride > 1 else known
        found = through(self.body, planes)
        found = F.pixel_shuffle(found, self.shuffle) if self.shuffle > 1 else found
        return added(found, images, self.scale)


class EDSR(RestoringNetwork):
    """EDSR (Lim, Son, Kim, Nah, Lee 2017): residual blocks without batch normalisation.

    Images [N, channels, H, W] in [-1, 1] and condition maps, if any -> images, `scale` times as
    large: 2, 3 or 4. EDSR's baseline is 64 wide, of 16 blocks; the large one 256, of 32, with
    residuals scaled by 0.1 (section 3.3). x4 is reached by two upsamplers of 2. Unlike the paper's
    it adds what it finds to a bilinear interpolation, and starts as that.
    """

    def __init__(
        self,
        width: int,
        blocks: int,
        channels: int,
        scale: int,
        residual_scale: float = 1.0,
        maps: int = 0,
    ) -> None:
        assert scale in (2, 3, 4), f"no upsampler for {scale}"
        super().__init__(channels, maps)
        self.scale = scale
        self.held = 2 * width * (1 + scale**2)
        factors = {2: [2], 3: [3], 4: [2, 2]}[scale]
        self.head = conv(channels + maps, width)
        self.body = nn.Sequential(
            *(Block(conv(width, width), conv(width, width), residual_scale) for _ in range(blocks)),
            conv(width, width),
        )
        self.upsampler = nn.Sequential()
        stages = [(scale, 2 * blocks + 2)]
        for factor in factors:
            self.upsampler.append(conv(width, width * factor**2))
            self.upsampler.append(nn.PixelShuffle(factor))
            cell = stages[-1][0]
            stages += [(cell, 1), (cell // factor, 0)]
        self.tail = conv(width, channels)
        for parameter in self.tail.parameters():
            nn.init.zeros_(parameter)
        self.receptive_field = receptive_field(*stages, (1, 1), scale=scale)

    def restore(self, known: Tensor) -> Tensor:
        head = self.head(known)
        features = self.upsampler(through(self.body, head).add_(head))
        return added(self.tail(features), known[:, : self.channels], self.scale)


def conv(before: int, after: int) -> Conv2d:
    return Conv2d(before, after, 3, padding=1)


def added(found: Tensor, images: Tensor, scale: int) -> Tensor:
    """To images, bilinearly `scale` times as large, which reaches one pixel to either side."""
    if scale == 1:
        return images + found
    enlarged = F.interpolate(images, scale_factor=scale, mode="bilinear", align_corners=False)
    return enlarged.add_(found)
