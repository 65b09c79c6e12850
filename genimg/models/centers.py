"""CenterNet: objects as points, at a quarter of the image's resolution."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.models.batch_norm import BatchNorm2d
from genimg.models.rows import Conv2d
from genimg.models.unet import Trunk

STRIDE = 4  # pixels of the image to a pixel of the maps
RARE = 0.1  # probability of a centre that an untrained network tells at each place


class Maps(NamedTuple):
    """What the network tells of each place, [N, ..., H / 4, W / 4]."""

    heat: Tensor  # logits [N, classes, h, w] of a centre there
    sides: Tensor  # [N, 2, h, w]: width and height of the object, in pixels of the maps
    offset: Tensor  # [N, 2, h, w]: of the centre from the place, right and down, likewise


class CenterNet(nn.Module):
    """Images [N, channels, H, W] in [-1, 1] -> Maps; H and W are multiples of `multiple`.

    (Zhou, Wang, Kraehenbuehl 2019, Objects as points.) The paper's losses and heads; in place of
    its hourglass, a stem of strided convolutions and a U-Net.
    """

    def __init__(self, width: int, depth: int, channels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Sequential(*strided(channels, width // 2), *strided(width // 2, width))
        self.trunk = Trunk(width, width, depth)
        self.heat = head(width, classes)
        self.sides = head(width, 2)
        self.offset = head(width, 2)
        nn.init.constant_(last_bias(self.heat), math.log(RARE / (1 - RARE)))
        self.multiple = STRIDE * self.trunk.stride

    def forward(self, images: Tensor) -> Maps:
        features = self.trunk(self.stem(images))
        return Maps(self.heat(features), self.sides(features), self.offset(features))


def strided(before: int, after: int) -> list[nn.Module]:
    """A convolution at the resolution before, and one that halves it."""
    layers: list[nn.Module] = []
    for first, stride in ((before, 1), (after, 2)):
        convolution = Conv2d(first, after, 3, padding=1, stride=stride, bias=False)
        nn.init.kaiming_normal_(convolution.weight, nonlinearity="relu")
        layers += [convolution, BatchNorm2d(after), nn.ReLU(inplace=True)]
    return layers


def head(width: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        Conv2d(width, width, 3, padding=1), nn.ReLU(inplace=True), Conv2d(width, outputs, 1)
    )


def last_bias(layers: nn.Sequential) -> Tensor:
    last = layers[-1]
    assert isinstance(last, nn.Conv2d)
    assert last.bias is not None
    return last.bias


def found(maps: Maps, count: int) -> tuple[Tensor, Tensor]:
    """(boxes float32 [N, count, 5], scores float32 [N, count]): the likeliest, by their scores.

    Boxes are class, x0, y0, x1, y1 in pixels of the image, within it. An object is where the heat
    is no lower than at the eight places around (section 3, from points to bounding boxes); where
    there are fewer such places than `count`, boxes of class -1 and score 0 follow.
    """
    logits = maps.heat.float()
    height, width = logits.shape[-2:]
    peaks = logits == F.max_pool2d(logits, 3, stride=1, padding=1)
    flat = (logits.sigmoid() * peaks).flatten(1)
    scores, places = flat.topk(min(count, flat.shape[1]), dim=1)
    kind, place = places // (height * width), places % (height * width)

    def at(values: Tensor) -> Tensor:
        return values.float().flatten(2).gather(2, place[:, None].expand(-1, 2, -1))

    (off_x, off_y), (wide, high) = at(maps.offset).unbind(1), at(maps.sides).clamp(min=0).unbind(1)
    x, y = place % width + off_x, place // width + off_y
    corners = torch.stack(
        [
            (x - wide / 2).clamp(0, width),
            (y - high / 2).clamp(0, height),
            (x + wide / 2).clamp(0, width),
            (y + high / 2).clamp(0, height),
        ],
        dim=2,
    )
    there = (scores > 0)[..., None]
    boxes = torch.cat([kind[..., None].where(there, -1), corners * STRIDE * there], dim=2)
    missing = count - scores.shape[1]
    nothing = F.pad(boxes.new_full((len(boxes), missing, 1), -1), (0, 4))
    return torch.cat([boxes, nothing], dim=1), F.pad(scores, (0, missing))
