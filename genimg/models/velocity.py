"""A U-Net that tells where each pixel of an image moves, at a time and for a class."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.group_norm import GroupNorm
from genimg.models.rows import Conv2d, Linear

GROUPS = 8  # of channels, in group normalisation
HEAD = 64  # channels of an attention's head, at least, where there are so many


class Block(nn.Module):
    """A residual block of two 3x3 convolutions (He et al. 2016), the second zero at first.

    Features [N, before, H, W] -> [N, after, H, W]. What it is told, [N, told], scales and shifts
    every channel in its middle (appendix A of Nichol & Dhariwal 2021).
    """

    def __init__(self, before: int, after: int, told: int) -> None:
        super().__init__()
        self.first = nn.Sequential(norm(before), nn.SiLU(), Conv2d(before, after, 3, padding=1))
        self.norm = norm(after)
        self.modulation = Linear(told, 2 * after)
        self.second = nn.Sequential(nn.SiLU(), zero(Conv2d(after, after, 3, padding=1)))
        self.shortcut = nn.Identity() if before == after else Conv2d(before, after, 1)

    def forward(self, features: Tensor, told: Tensor) -> Tensor:
        inner = self.norm(self.first(features))
        scale, shift = self.modulation(told).to(inner.dtype)[..., None, None].chunk(2, dim=1)
        return self.shortcut(features) + self.second(torch.addcmul(shift, inner, 1 + scale))


class Attention(nn.Module):
    """Features [N, C, H, W] and what each pixel takes of all the others (Vaswani et al. 2017).

    words: K; it takes of words [N, L, K] too, as if they were pixels (section 2, Nichol et al.
    2022). What is no word is zeros, of which nothing comes.
    """

    def __init__(self, channels: int, words: int = 0) -> None:
        super().__init__()
        self.heads = heads_of(channels)
        self.norm = norm(channels)
        self.to_all = Conv2d(channels, 3 * channels, 1)  # queries, keys, values
        self.of_words = Linear(words, 2 * channels, bias=False) if words else None  # keys, values
        self.out = zero(Conv2d(channels, channels, 1))

    def forward(self, features: Tensor, words: Tensor | None = None) -> Tensor:
        height, width = features.shape[2:]
        rows = self.to_all(self.norm(features)).flatten(2).unflatten(1, (3, self.heads, -1))
        query, key, value = rows.transpose(3, 4).unbind(dim=1)  # each [N, heads, H * W, C / heads]
        if self.of_words is not None:
            assert words is not None
            told = self.of_words(words.flatten(0, 1)).to(key.dtype)
            told = told.unflatten(0, (-1, words.shape[1])).unflatten(2, (2, self.heads, -1))
            more_keys, more_values = told.transpose(1, 3).unbind(dim=2)  # each [N, heads, L, ...]
            key = torch.cat([key, more_keys], dim=2)
            value = torch.cat([value, more_values], dim=2)
        taken = F.scaled_dot_product_attention(query, key, value)
        taken = taken.transpose(2, 3).flatten(1, 2).unflatten(2, (height, width))
        return features + self.out(taken)


class VelocityUNet(nn.Module):
    """Images [N, channels, H, W], times [N] in [0, 1], classes [N, K] -> velocities of the images.

    Pixels are first folded into channels, `unshuffle` x `unshuffle` of them, as sub-pixel
    convolutions do backwards (Shi et al. 2016). At each of `depth` halvings `blocks` residual
    blocks on the way down, and again on the way up, which sees what the way down saw; at the lowest
    resolution self-attention between two of them. Channels double at each halving. The velocity is
    zero at first.

    words: instead of classes it is given words [N, L, K + 1], the last number 1 where there is one.
    The attention attends to them too, and all else is told their mean.

    H and W are multiples of unshuffle * 2^depth. Without classes (K = 0) None stands for them.
    """

    def __init__(
        self, width: int, depth: int, blocks: int, unshuffle: int, channels: int, classes: int,
        words: bool = False,
    ) -> None:  # fmt: skip
        super().__init__()
        self.unshuffle = unshuffle
        self.width = width
        told = 4 * width
        widths = [width * 2**level for level in range(depth + 1)]
        self.told = nn.Sequential(Linear(width, told), nn.SiLU(), Linear(told, told))
        self.of_classes = Linear(classes, told, bias=False) if classes else None
        self.head = Conv2d(channels * unshuffle**2, width, 3, padding=1)
        self.down = nn.ModuleList(row(each, each, blocks, told) for each in widths[:-1])
        self.halve = nn.ModuleList(Conv2d(w, 2 * w, 2, stride=2) for w in widths[:-1])
        self.before = row(widths[-1], widths[-1], blocks, told)
        self.attention = Attention(widths[-1], classes if words else 0)
        self.behind = row(widths[-1], widths[-1], blocks, told)
        self.rise = nn.ModuleList(nn.ConvTranspose2d(2 * w, w, 2, stride=2) for w in widths[:-1])
        self.up = nn.ModuleList(row(2 * each, each, blocks, told) for each in widths[:-1])
        last = zero(Conv2d(width, channels * unshuffle**2, 3, padding=1))
        self.tail = nn.Sequential(norm(width), nn.SiLU(), last)

    def forward(self, images: Tensor, times: Tensor, classes: Tensor | None = None) -> Tensor:
        told = self.told(waves(times, self.width))
        words = None
        if self.attention.of_words is not None:
            assert classes is not None
            words, there = classes[..., :-1], classes[..., -1:]
            classes = words.sum(dim=1) / there.sum(dim=1).clamp_min(1)
        if self.of_classes is not None:
            told = told + self.of_classes(classes)
        told = F.silu(told)
        features = self.head(F.pixel_unshuffle(images, self.unshuffle))
        seen: list[Tensor] = []
        for blocks, halve in zip(self.down, self.halve, strict=True):
            features = through(blocks, features, told)
            seen.append(features)
            features = halve(features)
        features = self.attention(through(self.before, features, told), words)
        features = through(self.behind, features, told)
        for level in reversed(range(len(self.up))):
            beside = torch.cat([self.rise[level](features), seen[level]], dim=1)
            features = through(self.up[level], beside, told)
        return F.pixel_shuffle(self.tail(features), self.unshuffle)


def waves(times: Tensor, width: int) -> Tensor:
    """float32 [N, width]: cosines and sines of times [N] in [0, 1], of geometric frequencies.

    (Section 3.5, Vaswani et al. 2017, with times as of 1000 positions.)
    """
    half = width // 2
    rates = torch.arange(half, device=times.device) * (-math.log(10_000) / half)
    angles = 1000 * times.float()[:, None] * rates.exp()
    return torch.cat([angles.cos(), angles.sin()], dim=1)


def row(before: int, after: int, blocks: int, told: int) -> nn.ModuleList:
    """Residual blocks one behind the other; the first changes the number of channels."""
    return nn.ModuleList(Block(after if i else before, after, told) for i in range(blocks))


def through(blocks: nn.Module, features: Tensor, told: Tensor) -> Tensor:
    for block in blocks.children():
        features = block(features, told)
    return features


def heads_of(channels: int) -> int:
    """As many as HEAD allows that have an equal number of channels each."""
    most = max(1, channels // HEAD)
    return max(heads for heads in range(1, most + 1) if channels % heads == 0)


def norm(channels: int) -> GroupNorm:
    return GroupNorm(GROUPS, channels)


def zero(layer: Conv2d) -> Conv2d:
    """A convolution whose weights are zero, so that its block begins as the identity."""
    nn.init.zeros_(layer.weight)
    assert layer.bias is not None, "all have one here"
    nn.init.zeros_(layer.bias)
    return layer
