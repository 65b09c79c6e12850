"""A network that gives an image the style of another (AdaIN, Huang & Belongie 2017)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.restoring import receptive_field
from genimg.models.rows import Conv2d
from genimg.models.whitened import GROWTH, Whitened
from genimg.moments import exchanged, moments

STAGES = len(GROWTH)


class Encoder(nn.Module):
    """What a classifier sees in images: [N, C, H, W] in [-1, 1] -> maps of its stages.

    Of each stage the features before its last activation, [N, width, H // 2, W // 2],
    [N, 4 width, H // 4, W // 4] and so on. It is never learnt, and has no parameters; at first its
    filters are random (He et al. 2015), which see textures too (Ustyuzhaninov et al. 2017).
    """

    def __init__(self, width: int, patch: int, channels: int) -> None:
        super().__init__()
        classifier = Whitened(width, patch, channels, classes=1)
        self.widths = [growth * width for growth in GROWTH]
        self.patch = patch
        self.whitening = classifier.whitening
        self.stages = nn.ModuleList(stage_of(each) for each in classifier.stages)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        freeze(self)
        self.eval()

    def take(self, classifier: Whitened) -> None:
        """See as a classifier of the same width, patch and channels does."""
        self.load_state_dict({
            name: each for name, each in classifier.state_dict().items()
            if not name.startswith("to_logits.")
        })  # fmt: skip

    def train(self, mode: bool = True) -> Encoder:
        return super().train(False)

    def forward(self, images: Tensor, stages: int = STAGES) -> list[Tensor]:
        """Of the first so many stages; images of at least 2^stages pixels a side."""
        for side in (2, 3):  # so that there is a patch at each pixel
            last = images.narrow(side, images.shape[side] - 1, 1)
            images = torch.cat([images, *[last] * (self.patch - 1)], dim=side)
        seen: list[Tensor] = []
        maps = self.whitening(images)
        for stage in self.stages[:stages]:
            maps = stage(F.relu(maps))
            seen.append(maps)
        return seen


def stage_of(stage: nn.Module) -> nn.Sequential:
    """Without the activation at its end."""
    return nn.Sequential(*list(stage.children())[:-1])


def freeze(network: nn.Module) -> None:
    """Let parameters be buffers, which no optimizer knows, and which are saved all the same."""
    for part in network.modules():
        for name, parameter in list(part.named_parameters(recurse=False)):
            delattr(part, name)
            part.register_buffer(name, parameter.detach())


class Stylist(nn.Module):
    """Images [N, C, H, W] in [-1, 1], and a change of their features [N, 2, features] -> images
    in that range (see genimg.moments.exchange).

    Features are those of the encoder's stage `depth`, as in the paper; with `skips` also those of
    the stages before and the pixels themselves, so that a content keeps its details (levels, as of
    Li et al. 2017, at once). H and W are multiples of `stride`.

    decoder: channels at full resolution, doubling at each halving
    """

    def __init__(
        self, width: int, patch: int, depth: int, decoder: int, skips: bool, channels: int
    ) -> None:
        super().__init__()
        self.depth, self.skips = depth, skips
        self.encoder = Encoder(width, patch, channels)
        stages = self.encoder.widths[:depth]
        self.widths = [channels, *stages] if skips else stages[-1:]
        self.features = sum(self.widths)
        self.decoder = Decoder(stages[-1], self.widths[:-1], depth, decoder, channels)
        self.stride = 2**depth
        levels = [2**level for level in range(1, depth + 1)]
        down = [(cell, 2 if cell < self.stride else 1) for cell in levels]
        up = [(cell, 1 + (cell < self.stride)) for cell in levels[::-1]]
        context = receptive_field((1, patch), *down, *up, (1, 2))
        self.margin = -(-context // (2 * self.stride)) * self.stride

    def levels(self, images: Tensor, seen: list[Tensor]) -> list[Tensor]:
        """What the decoder is given of images of which the encoder sees that, the deepest last."""
        return [images, *seen[: self.depth]] if self.skips else [seen[self.depth - 1]]

    def forward(self, images: Tensor, change: Tensor) -> Tensor:
        maps = self.levels(images, self.encoder(images, self.depth))
        changes = change.expand(-1, -1, self.features).split(self.widths, dim=2)
        made = [exchanged(*each) for each in zip(maps, changes, strict=True)]
        return self.decoder(made).float().clamp(-1, 1)

    def look(self, images: Tensor, weight: Tensor | None = None) -> Tensor:
        """float32 [N, 2, features]: moments of features, of pixels that count by weight [N, H, W].

        Row by row: sums over several rows are made in another order than those over one.
        """
        found = []
        for maps in self.levels(images, self.encoder(images, self.depth)):
            counts: list[Tensor | None] = [None] * len(images)
            if weight is not None:
                cell = images.shape[2] // maps.shape[2]
                counts = list(F.avg_pool2d(weight[:, None], cell)[:, 0].split(1))
            rows = zip(maps.split(1), counts, strict=True)
            found.append(torch.cat([moments(*each) for each in rows]))
        return torch.cat(found, dim=2)


class Decoder(nn.Module):
    """Maps of levels, the deepest last -> images [N, C, H, W], not clamped.

    It turns the encoder round, with nearest neighbours for pooling, and without normalisation,
    which would undo the style (section 6.1). Where it is given what is above the deepest, it adds
    to the pixels that are the first of that, at first nothing.

    deepest: channels of the last maps; skips: of those above, from pixels on, if they are given
    """

    def __init__(
        self, deepest: int, skips: list[int], depth: int, width: int, channels: int
    ) -> None:
        super().__init__()
        self.first, self.second = nn.ModuleList(), nn.ModuleList()
        before = deepest
        for level in reversed(range(depth)):
            after, given = width * 2**level, skips[level] if skips else 0
            self.first.append(nn.Sequential(Conv2d(before, after, 3, padding=1), nn.ReLU()))
            self.second.append(nn.Sequential(Conv2d(after + given, after, 3, padding=1), nn.ReLU()))
            before = after
        self.tail = Conv2d(before, channels, 3, padding=1)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        if skips:
            nn.init.zeros_(self.tail.weight)
            nn.init.zeros_(self.tail.bias)  # type: ignore[arg-type]

    def forward(self, maps: list[Tensor]) -> Tensor:
        *skips, made = maps
        for number, (first, second) in enumerate(zip(self.first, self.second, strict=True), 1):
            made = F.interpolate(first(made), scale_factor=2.0, mode="nearest")
            made = second(torch.cat([made, skips[-number]], dim=1) if skips else made)
        return skips[0] + self.tail(made) if skips else self.tail(made)
