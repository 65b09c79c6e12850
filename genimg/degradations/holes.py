"""Missing pixels: single ones, boxes, or strokes of a brush; their share is drawn.

Holes are the parts of a landscape below a level: of each pixel's distance from the middles of boxes
or strokes, or of noise. The level is where the share is reached, however many holes there are and
wherever they overlap.
"""

import math
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from genimg.degradations.degradation import Damaged, Levels
from genimg.ranges import draw, word
from genimg.rng import fold, integers, uniform

_BOXES = 6  # at most, an image
_STROKES = 3
_CORNERS = 4  # of a stroke's line
_STEPS = 16  # halvings in search of a level


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
        landscapes = {"pixels": scattered, "boxes": box_distances, "strokes": stroke_distances}
        choice = integers(fold(keys, word("hole")), len(self.of))[:, None, None]
        first, *others = (landscapes[kind](keys, height, width) for kind in self.of)
        for place, other in enumerate(others, start=1):
            first = torch.where(choice == place, other, first)
        return _lowest(first, draw(keys, "share", self.low, self.high))[:, None]


def scattered(keys: Tensor, height: int, width: int) -> Tensor:
    """float32 [N, H, W], uniform in [0, 1)."""
    return uniform(fold(keys, word("pixels")), (height, width))


def box_distances(keys: Tensor, height: int, width: int) -> Tensor:
    """float32 [N, H, W]: how much the nearest of some boxes had to grow to reach a pixel."""
    drawn = _some(keys, "boxes", uniform(fold(keys, word("boxes")), (_BOXES, 4)))
    y, x = _middles(keys, height, width)
    nearest = torch.full((len(keys), height, width), math.inf, device=keys.device)
    for box in drawn.unbind(1):
        top, left, size, shape = box[..., None, None].unbind(1)
        tall, wide = (
            (0.3 + 0.7 * size) * 2 ** (shape - 0.5),
            (0.3 + 0.7 * size) * 2 ** (0.5 - shape),
        )
        down, across = (y - top * height).abs() / tall, (x - left * width).abs() / wide
        nearest = torch.minimum(nearest, torch.maximum(down, across))
    return nearest


def stroke_distances(keys: Tensor, height: int, width: int) -> Tensor:
    """float32 [N, H, W]: pixels' distances from lines with corners, by the thickness of each."""
    corners = uniform(fold(keys, word("strokes")), (_STROKES, _CORNERS * 2))
    thickness = 0.7 + 0.6 * uniform(fold(keys, word("thickness")), (_STROKES, 1))
    drawn = _some(keys, "strokes", torch.cat([corners, thickness], dim=2))
    y, x = _middles(keys, height, width)
    nearest = torch.full((len(keys), height, width), math.inf, device=keys.device)
    for stroke in drawn.unbind(1):
        *corner, thick = stroke[..., None, None].unbind(1)
        for top, left, bottom, right in (corner[2 * i : 2 * i + 4] for i in range(_CORNERS - 1)):
            square = _square_from_segment(
                y - top * height,
                x - left * width,
                (bottom - top) * height,
                (right - left) * width,
            )
            nearest = torch.minimum(nearest, square.div_(thick.square()))
    return nearest.sqrt_()


def _square_from_segment(y: Tensor, x: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Squared distances of points (y, x) from the segment between the origin and (down, across)."""
    square = (down.square() + across.square()).clamp(min=1e-6)
    along = (y * (down / square) + x * (across / square)).clamp_(0, 1)
    off = torch.addcmul(y, along, down, value=-1).square_()
    return off.add_(torch.addcmul(x, along, across, value=-1).square_())


def _some(keys: Tensor, name: str, drawn: Tensor) -> Tensor:
    """The first few, of a number that is drawn, of [N, K, D]; repeated up to K."""
    most = drawn.shape[1]
    count = 1 + integers(fold(keys, word("count of " + name)), most)
    chosen = torch.arange(most, device=keys.device) % count[:, None]
    return drawn.gather(1, chosen[..., None].expand_as(drawn))


def _middles(keys: Tensor, height: int, width: int) -> tuple[Tensor, Tensor]:
    """Of pixels: [H, 1] and [1, W]."""
    y = torch.arange(height, device=keys.device) + 0.5
    x = torch.arange(width, device=keys.device) + 0.5
    return y[:, None], x[None]


def _lowest(landscape: Tensor, share: Tensor) -> Tensor:
    """bool [N, H, W]: a share [N] of the pixels or just fewer, those lowest in [N, H, W] >= 0."""
    heights = landscape.flatten(1)
    allowed = (share * heights.shape[1]).round()[:, None]
    low, high = torch.zeros_like(allowed), heights.amax(dim=1, keepdim=True) * 1.001 + 1e-6
    for _ in range(_STEPS):
        middle = (low + high) / 2
        fits = (heights < middle).sum(dim=1, keepdim=True) <= allowed
        low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
    return landscape < low[..., None]
