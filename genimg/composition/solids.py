"""Pictures around solids: spheres and cylinders, seen from afar (orthographically), and shaded.

A solid has coordinates of its own: X to the right, Y along its axis downwards, Z to its front. It
is tilted towards the viewer, then turned in the plane of the canvas.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated, Literal

import numpy as np
import torch
from pydantic import Field
from torch import Tensor

from genimg.composition.flat import bounds, grid, rectangle, turned
from genimg.composition.layer import (
    AnyPicture,
    Degrees,
    Layer,
    Place,
    middle,
    number,
)
from genimg.composition.pictures import Picture, Plain
from genimg.composition.surfaces import Seen, Surface, Texture
from genimg.ranges import Range

Length = Annotated[float, Field(gt=0, le=16_384)]
Tilt = Annotated[float, Field(ge=-85, le=85)]
Height = Annotated[float, Field(ge=-90, le=90)]


class Solid(Layer):
    """One kind of solid, in parallel light (Lambert's law)."""

    x: Range[Place] | None = None
    """of its middle; left out: anywhere that it has room"""
    y: Range[Place] | None = None
    """likewise"""
    radius: Range[Length]
    """pixels"""
    turn: Range[Degrees] = (0.0, 0.0)
    """degrees about its axis, its front to the right; at 0 the picture's middle is in front"""
    tilt: Range[Tilt] = (0.0, 0.0)
    """degrees by which its upper end leans towards the viewer"""
    rotate: Range[Degrees] = (0.0, 0.0)
    """degrees in the plane of the canvas, counterclockwise"""
    azimuth: Range[Degrees] = (135.0, 135.0)
    """where light comes from: degrees, 0 from the right, 90 from above"""
    elevation: Range[Height] = (45.0, 45.0)
    """degrees of the light out of the canvas; at 90 it comes from the viewer"""
    ambient: float = Field(0.3, ge=0, le=1)
    """brightness where no light falls, that of what faces the light being 1"""

    @abstractmethod
    def parts(
        self, pictures: Sequence[np.ndarray], key: Tensor
    ) -> tuple[tuple[float, float], list[tuple[Texture, Shape]]]:
        """((half its width, half its height), its textures, each with where it is seen)."""

    def surfaces(
        self, pictures: Sequence[np.ndarray], canvas: tuple[int, int], key: Tensor
    ) -> list[Surface]:
        (half_width, half_height), parts = self.parts(pictures, key)
        rotate = number(key, "rotate", self.rotate)
        corners = turned(rectangle(2 * half_width, 2 * half_height), rotate)
        reach = corners.amax(dim=0).tolist()
        x, y = (
            middle(key, name, between, half, side)
            for name, between, half, side in zip("xy", (self.x, self.y), reach, canvas, strict=True)
        )
        centre = torch.tensor([x, y], dtype=torch.float64)
        light = self.light(key, rotate)
        around = bounds(corners + centre)

        def surface(texture: Texture, shape: Shape) -> Surface:
            def seen(across: Tensor, down: Tensor) -> Seen:
                points = turned(grid(across, down) - centre, -rotate)
                uv, normals, inside = shape(*points.unbind(-1))
                lit = (normals @ light).clamp_(min=0)
                return Seen(uv, inside, self.ambient + (1 - self.ambient) * lit)

            return Surface(texture, around, seen)

        return [surface(texture, shape) for texture, shape in parts]

    def light(self, key: Tensor, rotate: float) -> Tensor:
        """float64 [3]: where it comes from, in the plane of the solid that is not yet rotated."""
        azimuth = math.radians(number(key, "azimuth", self.azimuth) - rotate)
        elevation = math.radians(number(key, "elevation", self.elevation))
        flat = math.cos(elevation)
        return torch.tensor(
            [flat * math.cos(azimuth), -flat * math.sin(azimuth), math.sin(elevation)],
            dtype=torch.float64,
        )


class Sphere(Solid):
    """A globe of a picture whose rows are its circles of latitude (equirectangular)."""

    kind: Literal["sphere"] = "sphere"
    """a picture around a sphere: its rows are circles of latitude"""

    def parts(
        self, pictures: Sequence[np.ndarray], key: Tensor
    ) -> tuple[tuple[float, float], list[tuple[Texture, Shape]]]:
        radius, turn, tilt = (
            number(key, name, getattr(self, name)) for name in ("radius", "turn", "tilt")
        )

        def shape(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            x, y = x / radius, y / radius
            square = 1 - x * x - y * y
            z = square.clamp(min=0).sqrt()
            along, out = tilted(y, z, -tilt)
            u = longitude(x, out, turn)
            v = along.clamp(-1, 1).asin() / math.pi + 0.5
            return torch.stack([u, v], -1), torch.stack([x, y, z], -1), square > 0

        return (radius, radius), [(Texture(pictures[0], around=True), shape)]


class Cylinder(Solid):
    """A picture once around a cylinder, and what closes it, of which the end in front is seen."""

    kind: Literal["cylinder"] = "cylinder"
    """a picture around a cylinder"""
    height: Range[Length]
    """pixels, along its axis"""
    cap: AnyPicture = Plain(colour="#c8c8c8")
    """the picture that its ends are cut out of, and turn with; at turn=0 it stands upright"""

    def pictures(self) -> Sequence[Picture]:
        return self.image, self.cap

    def parts(
        self, pictures: Sequence[np.ndarray], key: Tensor
    ) -> tuple[tuple[float, float], list[tuple[Texture, Shape]]]:
        radius, turn, tilt, height = (
            number(key, name, getattr(self, name)) for name in ("radius", "turn", "tilt", "height")
        )
        slope = math.radians(tilt)
        cosine, sine = math.cos(slope), math.sin(slope)

        def side(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            square = radius * radius - x * x
            out = square.clamp(min=0).sqrt()
            along = (y - out * sine) / cosine
            uv = torch.stack([longitude(x, out, turn), along / height + 0.5], -1)
            down, front = tilted(torch.zeros_like(out), out / radius, tilt)
            normals = torch.stack([x / radius, down, front], -1)
            return uv, normals, (square > 0) & (along >= -height / 2) & (along < height / 2)

        def end(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor, Tensor]:
            above = math.copysign(1, sine)
            out = (y + above * height / 2 * cosine) / sine
            places = turned(torch.stack([x, out], -1), -turn)
            places[..., 1] *= above  # from below what is in front is up
            uv = places / (2 * radius) + 0.5
            facing = torch.tensor([0, -above * cosine, above * sine], dtype=torch.float64)
            return uv, facing.expand(*x.shape, 3), x * x + out * out < radius * radius

        parts: list[tuple[Texture, Shape]] = [(Texture(pictures[0], around=True), side)]
        if tilt:
            parts.append((Texture(pictures[1]), end))
        return (radius, height / 2 * cosine + radius * abs(sine)), parts


Shape = Callable[[Tensor, Tensor], tuple[Tensor, Tensor, Tensor]]
"""What is seen of a part of a solid at x and y [H, W] from its middle, before it is rotated: uv
[H, W, 2], normals [H, W, 3] (right, down, to the viewer), and whether it is seen there."""


def tilted(along: Tensor, out: Tensor, degrees: float) -> tuple[Tensor, Tensor]:
    """(down, towards the viewer) of what lies along a solid's axis and out at its front."""
    slope = math.radians(degrees)
    cosine, sine = math.cos(slope), math.sin(slope)
    return along * cosine + out * sine, out * cosine - along * sine


def longitude(right: Tensor, front: Tensor, turn: float) -> Tensor:
    """u of a picture that goes once around: 0.5 in front, where it is not turned."""
    return torch.atan2(right, front) / (2 * math.pi) + 0.5 - turn / 360
