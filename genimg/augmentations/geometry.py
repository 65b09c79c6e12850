"""Augmentations that move pixels: where those of a warped image come from, and where points go."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genimg.augmentations.strength import Strength
from genimg.ranges import Range, draw, word
from genimg.rng import fold, normal, uniform

Zoom = Annotated[float, Field(gt=0, le=4)]

# Of two objects that texts tell of the first lies at most 26 degrees off the way that is said, and
# up to 45 that is true
ASIDE, TAKEN = math.radians(26), math.radians(45)
WHERE = "what is left of something, or above it, elsewhere"
KEPT = 0.2  # share of the side by which images may be shifted before an object may be lost
NEAR, FAR = 1.4, 0.7  # zooms likewise: to be lost, and to be seen again behind the border
_SETTLED = 8  # rounds in which a point of an elastic image is sought


@dataclass(frozen=True)
class Warp:
    """How square images of S pixels are warped, each its own way; x and y from the upper left.

    sources: float32 [N, S, S, 2], the x and y that is seen at the middle of each pixel
    moved: points float32 [N, K, 2] as (x, y) -> where they are seen
    """

    sources: Tensor
    moved: Callable[[Tensor], Tensor]

    def sampled(self, values: Tensor, mode: Literal["bilinear", "nearest"]) -> Tensor:
        """uint8 [N, C, S, S] of the same; what comes in at a border mirrors what lies before it."""
        places = self.sources * (2 / values.shape[-1]) - 1
        made = F.grid_sample(
            values.float(), places, mode, padding_mode="reflection", align_corners=False
        )
        return made.round_().to(torch.uint8)


class Geometric(Strength):
    """One kind that moves pixels. Masks and boxes move with them."""

    @property
    def turns(self) -> float:
        """Radians, at most, by which the way from one object to another is turned."""
        return 0.0

    @property
    def shifts(self) -> float:
        """Share of the side, at most, by which all is shifted."""
        return 0.0

    @abstractmethod
    def warp(self, keys: Tensor, size: int, part: Tensor) -> Warp:
        """Of images of `size` pixels a side, for keys int64 [N], on their device.

        part: float32 [N], of the strength
        """


class Affine(Geometric):
    """Sheared, zoomed and rotated about the middle, and shifted, in this order."""

    kind: Literal["affine"] = "affine"
    """rotated, zoomed, sheared and shifted"""
    rotate: float = Field(10.0, ge=0, le=180)
    """degrees, at most, either way"""
    zoom: Range[Zoom] = (0.9, 1.1)
    """factor on all lengths"""
    shear: float = Field(0.0, ge=0, le=60)
    """degrees by which upright lines lean, at most, either way"""
    translate: float = Field(0.0, ge=0, le=1)
    """share of the side, at most, each way"""

    @property
    def turns(self) -> float:
        leaning = math.atan(math.tan(ASIDE) + math.tan(math.radians(self.shear)))
        return leaning - ASIDE + math.radians(self.rotate)

    @property
    def shifts(self) -> float:
        return self.translate

    def belies(self, size: int) -> str:
        if ASIDE + self.turns >= TAKEN:
            return f"rotate={self.rotate:g} and shear={self.shear:g} turn {WHERE}"
        if self.shifts > KEPT or self.zoom[1] > NEAR:
            return f"translate={self.translate:g} and zoom={[*self.zoom]} move objects out of sight"
        return f"zoom={[*self.zoom]} shows objects twice" if self.zoom[0] < FAR else ""

    def warp(self, keys: Tensor, size: int, part: Tensor) -> Warp:
        angle = (draw(keys, "rotate", -self.rotate, self.rotate) * part).deg2rad_()
        lean = (draw(keys, "shear", -self.shear, self.shear) * part).deg2rad_().tan_()
        zoom = torch.lerp(torch.ones_like(part), draw(keys, "zoom", *self.zoom), part)
        shift = (uniform(fold(keys, word("translate")), (2,)) * 2 - 1) * self.translate * size
        shift = shift * part[:, None]
        cosine, sine = zoom * angle.cos(), zoom * angle.sin()
        # counterclockwise as a person sees it: y goes down
        a, b, c, d = cosine, cosine * lean + sine, -sine, cosine - sine * lean
        middle = torch.full_like(shift, size / 2)
        there = torch.stack([torch.stack([a, b], 1), torch.stack([c, d], 1)], 1)
        area = (zoom * zoom)[:, None, None]
        back = torch.stack([torch.stack([d, -b], 1), torch.stack([-c, a], 1)], 1) / area

        def moved(points: Tensor) -> Tensor:
            return applied(there, points - middle[:, None]) + (middle + shift)[:, None]

        seen = pixels(size, keys.device).expand(len(keys), -1, -1)
        found = applied(back, seen - (middle + shift)[:, None]) + middle[:, None]
        return Warp(found.unflatten(1, (size, size)), moved)


class Perspective(Geometric):
    """Seen from aside: each corner is moved by itself."""

    kind: Literal["perspective"] = "perspective"
    """seen from aside"""
    corners: float = Field(0.1, ge=0, lt=0.25)
    """share of the side by which corners move, at most, each way"""

    @property
    def turns(self) -> float:
        return math.atan(2 * self.corners)  # where all move to the same side

    def belies(self, size: int) -> str:
        return f"corners={self.corners:g} turn {WHERE}" if ASIDE + self.turns >= TAKEN else ""

    def warp(self, keys: Tensor, size: int, part: Tensor) -> Warp:
        moves = (uniform(fold(keys, word("corners")), (4, 2)) * 2 - 1) * self.corners
        moves = moves * part[:, None, None]
        square = torch.tensor([[0.0, 0], [1, 0], [1, 1], [0, 1]], device=keys.device)
        back = onto(square + moves)
        there = torch.linalg.inv(back)
        seen = pixels(size, keys.device).expand(len(keys), -1, -1)
        found = projected(back, seen / size) * size
        return Warp(
            found.unflatten(1, (size, size)), lambda points: projected(there, points / size) * size
        )


class Elastic(Geometric):
    """Bent: points of a coarse grid move at random, and those between them smoothly along.

    Section 3.1 of Ronneberger, Fischer, Brox 2015, U-Net.
    """

    kind: Literal["elastic"] = "elastic"
    """bent smoothly"""
    strength: float = Field(1.0, ge=0, le=64)
    """standard deviation of how far the grid's points move each way, pixels"""
    spacing: float = Field(8.0, ge=2)
    """between the points of the grid, pixels"""

    def belies(self, size: int) -> str:
        moves = self.strength * 32 > size  # of 14 pixels between two objects, at 32
        return f"strength={self.strength:g} moves {WHERE}" if moves else ""

    def warp(self, keys: Tensor, size: int, part: Tensor) -> Warp:
        points = max(2, math.ceil(size / self.spacing) + 1)
        moves = normal(fold(keys, word("elastic")), (2, points, points)) * self.strength
        moves = moves * part[:, None, None, None]
        field = F.interpolate(moves, size=(size, size), mode="bicubic", align_corners=True)
        seen = pixels(size, keys.device).expand(len(keys), -1, -1)
        found = seen + field.flatten(2).mT

        def moved(given: Tensor) -> Tensor:
            sought = given
            for _ in range(_SETTLED):
                places = (sought * (2 / size) - 1)[:, None]
                by = F.grid_sample(field, places, padding_mode="border", align_corners=False)
                sought = given - by[:, :, 0].mT
            return sought

        return Warp(found.unflatten(1, (size, size)), moved)


def pixels(size: int, device: torch.device) -> Tensor:
    """float32 [size * size, 2]: x and y of the middles of pixels, line by line."""
    line = torch.arange(size, device=device) + 0.5
    down, across = torch.meshgrid(line, line, indexing="ij")
    return torch.stack([across, down], dim=-1).flatten(0, 1)


def applied(matrices: Tensor, points: Tensor) -> Tensor:
    """[N, K, 2]: matrices [N, 2, 2] times points [N, K, 2]."""
    x, y = points.unbind(-1)
    return torch.stack([row[:, :1] * x + row[:, 1:] * y for row in matrices.unbind(1)], dim=-1)


def onto(corners: Tensor) -> Tensor:
    """Homographies [N, 3, 3] of the unit square onto corners [N, 4, 2], clockwise from (0, 0).

    Section 2.2.3 of Heckbert 1989, Fundamentals of texture mapping and image warping.
    """
    (x0, y0), (x1, y1), (x2, y2), (x3, y3) = (each.unbind(-1) for each in corners.unbind(1))
    (ax, ay), (bx, by) = (x1 - x2, y1 - y2), (x3 - x2, y3 - y2)
    sx, sy = x0 - x1 + x2 - x3, y0 - y1 + y2 - y3
    area = ax * by - bx * ay
    g, h = (sx * by - bx * sy) / area, (ax * sy - sx * ay) / area
    rows = (
        (x1 - x0 + g * x1, x3 - x0 + h * x3, x0),
        (y1 - y0 + g * y1, y3 - y0 + h * y3, y0),
        (g, h, torch.ones_like(g)),
    )
    return torch.stack([torch.stack(row, dim=-1) for row in rows], dim=1)


def projected(matrices: Tensor, points: Tensor) -> Tensor:
    """[N, K, 2]: homographies [N, 3, 3] of points [N, K, 2]."""
    x, y = points.unbind(-1)
    across, down, depth = (
        row[:, 0, None] * x + row[:, 1, None] * y + row[:, 2, None] for row in matrices.unbind(1)
    )
    return torch.stack([across / depth, down / depth], dim=-1)
