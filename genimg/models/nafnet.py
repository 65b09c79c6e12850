"""NAFNet: a U-Net of gates and channel attention without activation functions."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.bands import through
from genimg.models.restoring import RestoringNetwork, receptive_field
from genimg.models.rows import Conv2d

WINDOW = 7  # of channel attention, in pixels of its level


class LayerNorm2d(nn.Module):
    """Each pixel of [N, width, H, W] normalised over its channels, then scaled and shifted."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x: Tensor) -> Tensor:
        last = x.permute(0, 2, 3, 1)  # contiguous, as networks lie channels last
        normal = F.layer_norm(last, (last.shape[-1],), self.weight, self.bias, 1e-6)
        return normal.permute(0, 3, 1, 2)


class SimpleGate(nn.Module):
    """Half of the channels times the other half (eq. 4 of the paper)."""

    def forward(self, x: Tensor) -> Tensor:
        one, other = x.chunk(2, dim=1)
        return one * other


class ChannelAttention(nn.Module):
    """Channels scaled by a linear function of their means (eq. 6): means of what lies around.

    The paper takes the means over the whole image. Then a tile would not give what the image
    gives, nor an image what the patches gave that the network was trained on (Chu and others 2022,
    "Improving Image Restoration by Revisiting Global Information Aggregation", who pool locally
    after training). Here they are those of a box of `window` x `window` pixels about each pixel, in
    training and afterwards; at the image's border, of that part of the box which is in it.
    """

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.window = window
        self.scale = Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale(box_mean(x, self.window))


def box_mean(x: Tensor, window: int) -> Tensor:
    """Means of [N, C, H, W] over boxes of an odd number of pixels, as far as they are inside."""
    half = window // 2
    rows = F.avg_pool2d(x, (window, 1), 1, (half, 0), count_include_pad=False)
    return F.avg_pool2d(rows, (1, window), 1, (0, half), count_include_pad=False)


class Block(nn.Module):
    """NAFNet's block (figure 3c): mixes pixels, then channels; beta and gamma start from zero."""

    def __init__(self, width: int, window: int) -> None:
        super().__init__()
        self.pixels = nn.Sequential(
            LayerNorm2d(width),
            Conv2d(width, 2 * width, 1),
            Conv2d(2 * width, 2 * width, 3, padding=1, groups=2 * width),
            SimpleGate(),
            ChannelAttention(width, window),
            Conv2d(width, width, 1),
        )
        self.mixture = nn.Sequential(
            LayerNorm2d(width),
            Conv2d(width, 2 * width, 1),
            SimpleGate(),
            Conv2d(width, width, 1),
        )
        self.beta = nn.Parameter(torch.zeros(1, width, 1, 1))
        self.gamma = nn.Parameter(torch.zeros(1, width, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.beta.to(x.dtype) * self.pixels(x)
        return x + self.gamma.to(x.dtype) * self.mixture(x)


class NAFNet(RestoringNetwork):
    """NAFNet (Chen, Chu, Zhang, Sun 2022, "Simple Baselines for Image Restoration").

    Images [N, channels, H, W] in [-1, 1] and condition maps [N, maps, H, W], concatenated at the
    input. `encoder` blocks a level on the way down, `middle` at the bottom, `decoder` on the way
    up, both listed from full resolution down. Channels double at each halving, from `width`.

    window: odd; pixels of their own level over which blocks pool (see ChannelAttention). Each block
        sees 1 + window // 2 of them to either side, all of which the receptive field counts.
    """

    def __init__(
        self,
        width: int,
        encoder: Sequence[int],
        middle: int,
        decoder: Sequence[int],
        channels: int,
        maps: int,
        window: int = WINDOW,
    ) -> None:
        assert len(encoder) == len(decoder), f"{len(encoder)} levels down, {len(decoder)} up"
        assert window % 2 == 1, f"a window of {window} pixels has no middle"
        super().__init__(channels, maps)
        depth = len(encoder)
        widths = [width * 2**level for level in range(depth + 1)]

        def several(count: int, level: int) -> list[Block]:
            return [Block(widths[level], window) for _ in range(count)]

        self.head = Conv2d(channels + maps, width, 3, padding=1)
        self.encoder = nn.ModuleList(nn.Sequential(*several(n, i)) for i, n in enumerate(encoder))
        self.down = nn.ModuleList(Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.middle = nn.Sequential(*several(middle, depth))
        self.up = nn.ModuleList(
            nn.Sequential(Conv2d(2 * w, 4 * w, 1, bias=False), nn.PixelShuffle(2))
            for w in widths[:-1]
        )
        self.decoder = nn.ModuleList(nn.Sequential(*several(n, i)) for i, n in enumerate(decoder))
        self.tail = Conv2d(width, channels, 3, padding=1)
        for parameter in self.tail.parameters():  # start as the identity
            nn.init.zeros_(parameter)
        self.stride = 2**depth
        self.held = 3 * width
        reach = self.reach = 1 + window // 2  # of a block
        self.receptive_field = receptive_field(
            (1, 1),
            *((2**level, reach * count) for level, count in enumerate(encoder)),
            (self.stride, reach * middle),
            *((2**level, reach * decoder[level]) for level in reversed(range(depth))),
            (1, 1),
        )

    def restore(self, known: Tensor) -> Tensor:
        features = self.head(known)
        seen: list[Tensor] = []
        for encode, down in zip(self.encoder, self.down, strict=True):
            seen.append(through(encode, features, reach=self.reach, ours=True))
            features = down(seen[-1])
        features = through(self.middle, features, reach=self.reach, ours=True)
        for up, decode in zip(reversed(self.up), reversed(self.decoder), strict=True):
            features = up(features).add_(seen.pop())
            features = through(decode, features, reach=self.reach, ours=True)
        return known[:, : self.channels] + self.tail(features)
