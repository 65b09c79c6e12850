"""Inception v3 as FID is computed with it: the network of 2015, as torch-fidelity's file has it.

Szegedy et al. 2016, with what the original program does otherwise than the paper: averages at
borders leave out what is padded, and the last block takes maxima where all others take averages.
"""

from __future__ import annotations

from collections import OrderedDict

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.perception import with_channels
from genimg.models.rows import Conv2d, in_blocks

SIDE = 299  # pixels, at which it looks
FEATURES = 2048
CLASSES = 1008

Size = int | tuple[int, int]


class Unit(nn.Sequential):
    """A convolution, batch normalisation and ReLU, padded so that a stride of 1 keeps the sides.

    padded: whether it is
    """

    def __init__(
        self, before: int, after: int, kernel: Size = 1, stride: int = 1, *, padded: bool = True
    ) -> None:
        height, width = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (height // 2, width // 2) if padded else 0
        super().__init__(
            OrderedDict(
                conv=Conv2d(before, after, (height, width), stride, padding, bias=False),
                bn=nn.BatchNorm2d(after, eps=1e-3),
                relu=nn.ReLU(inplace=True),
            )
        )


def average(maps: Tensor) -> Tensor:
    return F.avg_pool2d(maps, 3, stride=1, padding=1, count_include_pad=False)


class MixedA(nn.Module):
    """Figure 5: branches of 1x1, 5x5 and twice 3x3, and a pooled one of `pooled` channels."""

    def __init__(self, before: int, pooled: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(before, 64)
        self.branch5x5_1 = Unit(before, 48)
        self.branch5x5_2 = Unit(48, 64, 5)
        self.branch3x3dbl_1 = Unit(before, 64)
        self.branch3x3dbl_2 = Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3)
        self.branch_pool = Unit(before, pooled)

    def forward(self, maps: Tensor) -> Tensor:
        wide = self.branch5x5_2(self.branch5x5_1(maps))
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch1x1(maps), wide, double, self.branch_pool(average(maps))], 1)


class MixedB(nn.Module):
    """Figure 10: half the sides."""

    def __init__(self, before: int) -> None:
        super().__init__()
        self.branch3x3 = Unit(before, 384, 3, 2, padded=False)
        self.branch3x3dbl_1 = Unit(before, 64)
        self.branch3x3dbl_2 = Unit(64, 96, 3)
        self.branch3x3dbl_3 = Unit(96, 96, 3, 2, padded=False)

    def forward(self, maps: Tensor) -> Tensor:
        double = self.branch3x3dbl_3(self.branch3x3dbl_2(self.branch3x3dbl_1(maps)))
        return torch.cat([self.branch3x3(maps), double, F.max_pool2d(maps, 3, 2)], 1)


class MixedC(nn.Module):
    """Figure 6: 7x7 as 1x7 and 7x1, once and twice, of `inner` channels."""

    def __init__(self, inner: int) -> None:
        super().__init__()
        self.branch1x1 = Unit(768, 192)
        self.branch7x7_1 = Unit(768, inner)
        self.branch7x7_2 = Unit(inner, inner, (1, 7))
        self.branch7x7_3 = Unit(inner, 192, (7, 1))
        self.branch7x7dbl_1 = Unit(768, inner)
        self.branch7x7dbl_2 = Unit(inner, inner, (7, 1))
        self.branch7x7dbl_3 = Unit(inner, inner, (1, 7))
        self.branch7x7dbl_4 = Unit(inner, inner, (7, 1))
        self.branch7x7dbl_5 = Unit(inner, 192, (1, 7))
        self.branch_pool = Unit(768, 192)

    def forward(self, maps: Tensor) -> Tensor:
        once = self.branch7x7_3(self.branch7x7_2(self.branch7x7_1(maps)))
        double = self.branch7x7dbl_3(self.branch7x7dbl_2(self.branch7x7dbl_1(maps)))
        double = self.branch7x7dbl_5(self.branch7x7dbl_4(double))
        return torch.cat([self.branch1x1(maps), once, double, self.branch_pool(average(maps))], 1)


class MixedD(nn.Module):
    """Half the sides, again."""

    def __init__(self) -> None:
        super().__init__()
        self.branch3x3_1 = Unit(768, 192)
        self.branch3x3_2 = Unit(192, 320, 3, 2, padded=False)
        self.branch7x7x3_1 = Unit(768, 192)
        self.branch7x7x3_2 = Unit(192, 192, (1, 7))
        self.branch7x7x3_3 = Unit(192, 192, (7, 1))
        self.branch7x7x3_4 = Unit(192, 192, 3, 2, padded=False)

    def forward(self, maps: Tensor) -> Tensor:
        small = self.branch3x3_2(self.branch3x3_1(maps))
        wide = self.branch7x7x3_3(self.branch7x7x3_2(self.branch7x7x3_1(maps)))
        return torch.cat([small, self.branch7x7x3_4(wide), F.max_pool2d(maps, 3, 2)], 1)


class MixedE(nn.Module):
    """Figure 7: 1x3 and 3x1 side by side. largest: pools by maxima, as the last block does"""

    def __init__(self, before: int, *, largest: bool) -> None:
        super().__init__()
        self.largest = largest
        self.branch1x1 = Unit(before, 320)
        self.branch3x3_1 = Unit(before, 384)
        self.branch3x3_2a = Unit(384, 384, (1, 3))
        self.branch3x3_2b = Unit(384, 384, (3, 1))
        self.branch3x3dbl_1 = Unit(before, 448)
        self.branch3x3dbl_2 = Unit(448, 384, 3)
        self.branch3x3dbl_3a = Unit(384, 384, (1, 3))
        self.branch3x3dbl_3b = Unit(384, 384, (3, 1))
        self.branch_pool = Unit(before, 192)

    def forward(self, maps: Tensor) -> Tensor:
        once = self.branch3x3_1(maps)
        double = self.branch3x3dbl_2(self.branch3x3dbl_1(maps))
        pooled = F.max_pool2d(maps, 3, 1, padding=1) if self.largest else average(maps)
        branches = [
            self.branch1x1(maps),
            self.branch3x3_2a(once),
            self.branch3x3_2b(once),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, 1)


class Inception(nn.Module):
    """Images [N, 1 or 3, H, W] in [-1, 1] of any sides -> features and logits.

    Its parts have the names of torch-fidelity's file. Bytes are looked at: images are rounded.
    """

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Unit(3, 32, 3, 2, padded=False)
        self.Conv2d_2a_3x3 = Unit(32, 32, 3, padded=False)
        self.Conv2d_2b_3x3 = Unit(32, 64, 3)
        self.Conv2d_3b_1x1 = Unit(64, 80)
        self.Conv2d_4a_3x3 = Unit(80, 192, 3, padded=False)
        self.Mixed_5b = MixedA(192, 32)
        self.Mixed_5c = MixedA(256, 64)
        self.Mixed_5d = MixedA(288, 64)
        self.Mixed_6a = MixedB(288)
        self.Mixed_6b = MixedC(128)
        self.Mixed_6c = MixedC(160)
        self.Mixed_6d = MixedC(160)
        self.Mixed_6e = MixedC(192)
        self.Mixed_7a = MixedD()
        self.Mixed_7b = MixedE(1280, largest=False)
        self.Mixed_7c = MixedE(2048, largest=True)
        self.fc = nn.Linear(FEATURES, CLASSES)

    def features(self, images: Tensor) -> Tensor:
        """float32 [N, 2048], non-negative: the means of the last maps, which FID is computed on."""
        levels = with_channels(images, 3).add(1).mul(127.5).round()
        maps = resized(levels, SIDE).sub(128).div(128).contiguous(memory_format=torch.channels_last)
        maps = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(maps)))
        maps = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(maps, 3, 2)))
        maps = F.max_pool2d(maps, 3, 2)
        for name, block in self.named_children():
            if name.startswith("Mixed_"):
                maps = block(maps)
        return maps.mean(dim=(2, 3))

    def to_logits(self, features: Tensor) -> Tensor:
        """float [N, 1008] without biases, of which the inception score is computed."""
        return in_blocks(lambda rows: rows @ self.fc.weight.T, features)


def resized(images: Tensor, side: int) -> Tensor:
    """float32 [N, C, H, W] -> [N, C, side, side]: bilinear as TensorFlow 1's, which FID depends on.

    Corner pixels are not aligned and centres are not either: pixel i lies at i * H / side. Nothing
    is averaged where images become smaller (Parmar, Zhang, Zhu 2022, "On aliased resizing").
    """
    for dim in (3, 2):
        length = images.shape[dim]
        scale = torch.tensor(length / side, dtype=torch.float32, device=images.device)
        places = torch.arange(side, dtype=torch.float32, device=images.device) * scale
        low = places.long()
        first = images.index_select(dim, low)
        second = images.index_select(dim, (low + 1).clamp(max=length - 1))
        weight = (places - low).view(-1, *[1] * (3 - dim))
        images = first + (second - first) * weight
    return images
