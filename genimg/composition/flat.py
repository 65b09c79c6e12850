"""Flat layers: cut-outs that are put somewhere, and textures on quadrilaterals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Annotated, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor

from genimg.augmentations.geometry import onto, projected
from genimg.composition.layer import Degrees, Layer, Place, Point, middle, number
from genimg.composition.surfaces import Seen, Surface, Texture
from genimg.ranges import Range, word
from genimg.rng import fold, uniform

Scale = Annotated[float, Field(gt=0, le=100)]
Side = Annotated[float, Field(ge=1, le=16_384)]


class Paste(Layer):
    """What is seen of a picture, without a transparent margin, scaled and turned about its middle.

    What is neither scaled nor turned but by right angles comes to lie on whole pixels.
    """

    kind: Literal["paste"] = "paste"
    """what is not transparent of a picture, put somewhere"""
    x: Range[Place] | None = None
    """of its middle; left out: anywhere that it has room"""
    y: Range[Place] | None = None
    """likewise"""
    side: Range[Side] | None = None
    """its longer side; left out: as its picture has it"""
    scale: Range[Scale] = (1.0, 1.0)
    """factor on its sides"""
    rotate: Range[Degrees] = (0.0, 0.0)
    """degrees, counterclockwise"""
    mirrored: float = Field(0.0, ge=0, le=1)
    """share of those that are mirrored left to right"""

    def surfaces(
        self, pictures: Sequence[np.ndarray], canvas: tuple[int, int], key: Tensor
    ) -> list[Surface]:
        picture = trimmed(pictures[0])
        height, width = picture.shape[:2]
        scale = number(key, "scale", self.scale)
        if self.side is not None:
            scale *= number(key, "side", self.side) / max(width, height)
        if self.mirrored and uniform(fold(key, word("mirrored"))).item() < self.mirrored:
            picture = picture[:, ::-1]
        rotate = number(key, "rotate", self.rotate)
        corners = turned(rectangle(width * scale, height * scale), rotate)
        half = corners.amax(dim=0)
        centre = [
            middle(key, name, between, reach, side)
            for name, between, reach, side in zip(
                "xy", (self.x, self.y), half.tolist(), canvas, strict=True
            )
        ]
        corners += torch.tensor(centre, dtype=torch.float64)
        if scale == 1 and rotate % 90 == 0:
            low = corners.amin(dim=0)
            corners += (low + 0.5).floor() - low  # half a pixel always goes the same way
        return [on_corners(Texture(picture), corners)]


class Quad(Layer):
    """A picture seen from aside: a homography of it onto a quadrilateral."""

    kind: Literal["quad"] = "quad"
    """a picture laid onto a quadrilateral, as seen from aside"""
    corners: tuple[Point, Point, Point, Point]
    """x and y of where the picture's corners come to lie, clockwise from its upper left"""

    @model_validator(mode="after")
    def is_convex(self) -> Self:
        turns = turns_of(torch.tensor(self.corners, dtype=torch.float64))
        if not (turns.gt(0).all() or turns.lt(0).all()):
            raise ValueError(
                f"corners={[list(each) for each in self.corners]}: no convex quadrilateral; give"
                " its corners in the order in which one meets them going around it"
            )
        return self

    def surfaces(
        self, pictures: Sequence[np.ndarray], canvas: tuple[int, int], key: Tensor
    ) -> list[Surface]:
        corners = torch.tensor(self.corners, dtype=torch.float64)
        return [on_corners(Texture(pictures[0]), corners)]


def on_corners(texture: Texture, corners: Tensor) -> Surface:
    """A texture whose corners come to lie at float64 [4, 2], clockwise from its upper left."""
    back = torch.linalg.inv(onto(corners[None]))

    def seen(x: Tensor, y: Tensor) -> Seen:
        uv = projected(back, grid(x, y).view(1, -1, 2)).view(len(y), len(x), 2)
        return Seen(uv, ((uv >= 0) & (uv < 1)).all(dim=-1))

    return Surface(texture, bounds(corners), seen)


def grid(x: Tensor, y: Tensor) -> Tensor:
    """[H, W, 2]: points of x [W] and y [H]."""
    down, across = torch.meshgrid(y, x, indexing="ij")
    return torch.stack([across, down], dim=-1)


def bounds(points: Tensor) -> tuple[float, float, float, float]:
    """x0, y0, x1, y1 around points [K, 2]."""
    x0, y0, x1, y1 = *points.amin(dim=0).tolist(), *points.amax(dim=0).tolist()
    return x0, y0, x1, y1


def rectangle(width: float, height: float) -> Tensor:
    """float64 [4, 2]: corners about the origin, clockwise from the upper left."""
    signs = torch.tensor([[-1, -1], [1, -1], [1, 1], [-1, 1]], dtype=torch.float64)
    return signs * torch.tensor([width / 2, height / 2], dtype=torch.float64)


def turned(points: Tensor, degrees: float) -> Tensor:
    """Points [..., 2] about the origin, counterclockwise as a person sees it: y goes down."""
    cosine, sine = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    x, y = points.unbind(-1)
    return torch.stack([x * cosine + y * sine, y * cosine - x * sine], dim=-1)


def turns_of(corners: Tensor) -> Tensor:
    """[4]: which way, and how far, each corner [4, 2] turns; as areas of parallelograms."""
    ahead = corners.roll(-1, 0) - corners
    after = ahead.roll(-1, 0)
    return ahead[:, 0] * after[:, 1] - ahead[:, 1] * after[:, 0]


def trimmed(picture: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 4] without rows and columns at its borders that are wholly transparent."""
    shown = picture[..., 3] > 0
    rows, columns = (np.flatnonzero(shown.any(axis=axis)) for axis in (1, 0))
    if not len(rows):
        return picture
    return picture[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
