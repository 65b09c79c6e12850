"""Missing pixels: single ones, boxes, or strokes of a brush; their share is drawn.

Boxes and strokes are the parts of a landscape below a level: of each pixel's distance from their
middles. The level is where the share is reached, however many there are and wherever they overlap.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from genimg.degradations.degradation import Damaged, Levels, draw, word
from genimg.rng import fold, integers, uniform

_BOXES = 6  # at most, an image
_STROKES = 3
_CORNERS = 4  # of a stroke's line
_STEPS = 24  # halvings in search of a level: as many as float32 has bits


class Holes(Levels):
    """Pixels that are missing, all channels of them."""

    kind: Literal["holes"] = "holes"
    """pixels are missing"""
    of: tuple[Literal["pixels", "boxes", "strokes"], ...] = Field(
        ("pixels", "boxes", "strokes"), min_length=1
    )
    """what is missing, all equally likely: single pixels at random, boxes, or strokes of a brush"""
    low: float = Field(0.05, ge=0, le=1)
    """smallest share of pixels that are missing"""
    high: float = Field(0.5, ge=0, le=1)
    """largest share"""
    fill: float = Field(0.0, ge=-1, le=1)
    """what stands in their place, from -1 (black) to 1 (white)"""

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        missing = self.missing(keys, images.shape[-2], images.shape[-1])
        return Damaged(images.masked_fill(missing, self.fill), {"mask": missing.float()})

    def missing(self, keys: Tensor, height: int, width: int) -> Tensor:
        """bool [N, 1, H, W] for keys int64 [N]."""
        share = draw(keys, "share", self.low, self.high)
        choice = integers(fold(keys, word("hole")), len(self.of))
        made = torch.zeros(len(keys), height, width, dtype=torch.bool, device=keys.device)
        for place, kind in enumerate(self.of):
            if kind == "pixels":
                single = uniform(fold(keys, word("pixels")), (height, width))
                holes = single < share[:, None, None]
            else:
                distances = box_distances if kind == "boxes" else stroke_distances
                holes = _nearest(distances(keys, height, width), share)
            made |= holes & (choice == place)[:, None, None]
        return made[:, None]


def box_distances(keys: Tensor, height: int, width: int) -> Tensor:
    """float32 [N, H, W]: how much the nearest of some boxes had to grow to reach a pixel."""
    drawn = uniform(fold(keys, word("boxes")), (_BOXES, 4))
    count = 1 + integers(fold(keys, word("count of boxes")), _BOXES)
    y, x = _grid(keys, height, width)
    nearest = torch.full((len(keys), height, width), math.inf, device=keys.device)
    for box in range(_BOXES):
        top, left, size, shape = (each[:, None, None] for each in drawn[:, box].unbind(1))
        tall, wide = (
            (0.3 + 0.7 * size) * 2 ** (shape - 0.5),
            (0.3 + 0.7 * size) * 2 ** (0.5 - shape),
        )
        distance = torch.maximum((y - top * height).abs() / tall, (x - left * width).abs() / wide)
        there = (count > box)[:, None, None]
        nearest = torch.minimum(nearest, distance.masked_fill(~there, math.inf))
    return nearest


def stroke_distances(keys: Tensor, height: int, width: int) -> Tensor:
    """float32 [N, H, W]: pixels' distances from lines with corners, by the thickness of each."""
    drawn = uniform(fold(keys, word("strokes")), (_STROKES, _CORNERS, 2))
    thickness = 0.7 + 0.6 * uniform(fold(keys, word("thickness")), (_STROKES,))
    count = 1 + integers(fold(keys, word("count of strokes")), _STROKES)
    y, x = _grid(keys, height, width)
    nearest = torch.full((len(keys), height, width), math.inf, device=keys.device)
    for stroke in range(_STROKES):
        there = (count > stroke)[:, None, None]
        thick = thickness[:, stroke, None, None]
        for corner in range(_CORNERS - 1):
            start, end = (drawn[:, stroke, corner + step, :, None, None] for step in (0, 1))
            distance = _from_segment(
                y - start[:, 0] * height,
                x - start[:, 1] * width,
                (end[:, 0] - start[:, 0]) * height,
                (end[:, 1] - start[:, 1]) * width,
            )
            distance = (distance / thick).masked_fill_(~there, math.inf)
            nearest = torch.minimum(nearest, distance)
    return nearest


def _from_segment(y: Tensor, x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Distances of points (y, x) from the segment between the origin and (down, across)."""
    square = (down.square() + across.square()).clamp(min=1e-6)
    along = ((y * down + x * across) / square).clamp_(0, 1)
    return torch.hypot(y - along * down, x - along * across)


def _grid(keys: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Middles of pixels: [H, 1] and [1, W]."""
    y = torch.arange(height, device=keys.device) + 0.5
    x = torch.arange(width, device=keys.device) + 0.5
    return y[:, None], x[None]


def _nearest(distances: Tensor, share: Tensor) -> Tensor:
    """bool [N, H, W]: the nearest pixels, as many as a share [N] allows; equals alike."""
    allowed = (share * distances[0].numel()).round()[:, None, None]
    low = torch.zeros_like(allowed)
    high = distances.amax(dim=(1, 2), keepdim=True) * 1.01
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = (distances < middle).sum(dim=(1, 2), keepdim=True) <= allowed
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return distances < low
