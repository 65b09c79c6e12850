"""U-Net: features of each pixel from what is near and far, and the classes of pixels."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.batch_norm import BatchNorm2d
from genimg.models.restoring import padded
from genimg.models.rows import Conv2d


class Trunk(nn.Module):
    """Images [N, channels, H, W] -> features [N, width, H, W] (Ronneberger et al. 2015).

    At each of `depth` halvings two convolutions on the way down, and two on the way up, which see
    what the way down saw at that resolution. Channels double at each halving. Unlike the paper's it
    keeps the sides of the image, by padding, and is batch-normalised.

    stride: tiles begin at multiples of it, and their sides are such
    margin: pixels around a pixel that its features depend on, a multiple of stride
    """

    def __init__(self, channels: int, width: int, depth: int) -> None:
        super().__init__()
        widths = [width * 2**level for level in range(depth + 1)]
        self.down = nn.ModuleList(
            twice(before, after) for before, after in zip([channels, *widths], widths, strict=False)
        )
        self.rise = nn.ModuleList(
            nn.ConvTranspose2d(2 * after, after, 2, stride=2) for after in widths[:-1]
        )
        self.up = nn.ModuleList(twice(2 * after, after) for after in widths[:-1])
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        self.stride = 2**depth
        reach = sum(2 * 2**level for level in range(depth + 1))  # of convolutions on the way down,
        reach += sum(2 * 2**level for level in range(depth))  # on the way up,
        reach += sum(2**level for level in range(depth))  # and of the blocks that are halved
        self.margin = -(-reach // self.stride) * self.stride

    def forward(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []
        features = images
        for level, block in enumerate(self.down):
            features = block(F.max_pool2d(features, 2) if level else features)
            seen.append(features)
        for level in reversed(range(len(self.up))):
            beside = torch.cat([seen[level], self.rise[level](features)], dim=1)
            features = self.up[level](beside)
        return features


class UNet(nn.Module):
    """Images [N, channels, H, W] in [-1, 1] -> logits [N, classes, H, W], a class a pixel.

    Any H and W are taken: what is missing to a multiple of the trunk's stride is mirrored at the
    border, as tiles are, and cut again.
    """

    def __init__(self, width: int, depth: int, channels: int, classes: int) -> None:
        super().__init__()
        self.trunk = Trunk(channels, width, depth)
        self.to_logits = Conv2d(width, classes, 1)

    @property
    def stride(self) -> int:
        return self.trunk.stride

    @property
    def margin(self) -> int:
        return self.trunk.margin

    def forward(self, images: Tensor) -> Tensor:
        height, width = images.shape[-2:]
        return self.to_logits(self.trunk(padded(images, self.stride)))[..., :height, :width]


def twice(before: int, after: int) -> nn.Sequential:
    """Two 3x3 convolutions, normalised, each with a ReLU."""
    return nn.Sequential(
        Conv2d(before, after, 3, padding=1, bias=False),
        BatchNorm2d(after),
        nn.ReLU(inplace=True),
        Conv2d(after, after, 3, padding=1, bias=False),
        BatchNorm2d(after),
        nn.ReLU(inplace=True),
    )
