"""The detection method: a network learns where objects' centres are, and how large they are."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Batch, Sync
from genimg.losses import heatmap_focal
from genimg.schedule import Train
from genimg.training.method import Method, Part

OVERLAP = 0.7  # of a box with the object's, at least, of which a corner off its place would do


class Targets(NamedTuple):
    """What the maps [h, w] should be, for N images with at most K boxes each."""

    heat: Tensor  # float32 [N, classes, h, w], 1 at centres and falling off around them
    places: Tensor  # int64 [N, K]: of centres, counted along the rows of a map
    sides: Tensor  # float32 [N, K, 2]: width and height, in pixels of the maps
    offset: Tensor  # float32 [N, K, 2]: of centres from their places, likewise
    there: Tensor  # bool [N, K]


class Detection(Method):
    """Minimises the loss of CenterNet (eq. 4, Zhou et al. 2019).

    detector: images [N, C, H, W] -> heat logits [N, classes, h, w], sides and offset [N, 2, h, w]
    stride: pixels of the image to a pixel of the maps
    sides, offset: weights of these beside the heat's loss (the paper's: 0.1 and 1)
    """

    def __init__(
        self,
        detector: Part,
        *,
        classes: int,
        stride: int,
        sides: float,
        offset: float,
        train: Train,
        device: torch.device,
    ) -> None:
        super().__init__({"detector": detector}, train, device)
        self.detect: Callable[[Tensor], tuple[Tensor, Tensor, Tensor]]
        self.detect = self.compiled(detector.network)
        self.classes, self.stride = classes, stride
        self.weights = sides, offset

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        images = batch.rows["image"]
        with self.autocast:
            heat, sides, offset = (maps.float() for maps in self.detect(images))
        height, width = heat.shape[-2:]
        wanted = targets(batch.rows["boxes"], self.classes, (height, width), self.stride)
        reported = {
            "loss_heat": heatmap_focal(heat, wanted.heat),
            "loss_sides": distance_at(sides, wanted.sides, wanted),
            "loss_offset": distance_at(offset, wanted.offset, wanted),
        }
        of_sides, of_offset = self.weights
        loss = reported["loss_heat"] + of_sides * reported["loss_sides"]
        loss = loss + of_offset * reported["loss_offset"]
        self.step("detector", loss, batch, sync)
        self.finish(batch)
        return {"loss": loss} | reported


def targets(boxes: Tensor, classes: int, shape: tuple[int, int], stride: int) -> Targets:
    """What maps of a shape should be for boxes float32 [N, K, 5], in pixels of the image."""
    height, width = shape
    kind, there = boxes[..., 0].long(), boxes[..., 0] >= 0
    x0, y0, x1, y1 = (boxes[..., 1:] / stride).unbind(dim=-1)
    centre_x, centre_y = (x0 + x1) / 2, (y0 + y1) / 2
    x = centre_x.floor().long().clamp(0, width - 1)
    y = centre_y.floor().long().clamp(0, height - 1)

    # a standard deviation that reaches three times to where a corner may be, as the paper's program
    spread = ((2 * radius(x1 - x0, y1 - y0) + 1) / 6)[..., None]
    across = torch.arange(width, device=boxes.device) - x[..., None]
    along = torch.arange(height, device=boxes.device) - y[..., None]
    fall_x = torch.exp(-across.square() / (2 * spread.square()))
    fall_y = torch.exp(-along.square() / (2 * spread.square()))
    hills = fall_y[..., :, None] * fall_x[..., None, :] * there[..., None, None]
    heat = torch.zeros(len(boxes), classes, height * width, device=boxes.device)
    index = kind.clamp(min=0)[..., None].expand(-1, -1, height * width)
    heat.scatter_reduce_(1, index, hills.flatten(2), "amax")  # the higher of two hills
    return Targets(
        heat=heat.view(-1, classes, height, width),
        places=y * width + x,
        sides=torch.stack([x1 - x0, y1 - y0], dim=-1),
        offset=torch.stack([centre_x - x, centre_y - y], dim=-1),
        there=there,
    )


def radius(width: Tensor, height: Tensor) -> Tensor:
    """How far both corners of boxes may be off, so that OVERLAP is left in the worst case.

    (CornerNet, Law & Deng 2018, section 3.2.) The least of what three cases allow, each a root
    of a quadratic: one corner inside and one outside, both inside, both outside.
    """
    total, area = width + height, width * height
    # both corners move the same way: (w - r)(h - r) / (2wh - (w - r)(h - r)) = o
    shifted = root(torch.ones_like(total), -total, area * (1 - OVERLAP) / (1 + OVERLAP))
    # the box shrinks on all sides: (w - 2r)(h - 2r) / wh = o
    inside = root(4 * torch.ones_like(total), -2 * total, area * (1 - OVERLAP))
    # it grows: wh / (w + 2r)(h + 2r) = o
    outside = root(
        4 * OVERLAP * torch.ones_like(total), 2 * OVERLAP * total, (OVERLAP - 1) * area, upper=True
    )
    return torch.minimum(torch.minimum(shifted, inside), outside)


def root(a: Tensor, b: Tensor, c: Tensor, upper: bool = False) -> Tensor:
    """Of a x^2 + b x + c = 0: the smaller one, or the larger one."""
    spread = (b.square() - 4 * a * c).clamp(min=0).sqrt()
    return (-b + spread) / (2 * a) if upper else (-b - spread) / (2 * a)


def distance_at(maps: Tensor, wanted: Tensor, at: Targets) -> Tensor:
    """Maps [N, 2, h, w], values [N, K, 2] that they should have at the centres -> scalar.

    (Eq. 2 and 3, Zhou et al. 2019.) The mean over an image's objects, then over images.
    """
    places = at.places[:, None].expand(-1, 2, -1)
    told = maps.flatten(2).gather(2, places).transpose(1, 2)
    off = F.l1_loss(told, wanted, reduction="none").sum(dim=2) * at.there
    return (off.sum(dim=1) / at.there.sum(dim=1).clamp(min=1)).mean()
