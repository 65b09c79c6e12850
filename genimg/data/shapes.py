"""The outlines of procedural scenes: signed distances, after Inigo Quilez, "2D distance functions".

A function takes coordinates u (right) and v (down), float32 [M, H, W], in which the shape roughly
fills the unit disc, and returns the distance to the outline in the same unit, negative inside.
Off a corner it is only a lower bound, which is all that a soft edge a pixel wide needs.

Only correctly rounded arithmetic is used (no sin, no fused multiply-add), so that a pixel never
depends on which others are computed beside it.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

HALF_SQRT3 = math.sqrt(3) / 2


def disc(u: Tensor, v: Tensor) -> Tensor:
    return length(u, v) - 0.9


def square(u: Tensor, v: Tensor) -> Tensor:
    return torch.maximum(u.abs(), v.abs()) - 0.8


def triangle(u: Tensor, v: Tensor) -> Tensor:
    """Equilateral, pointing up, its centroid a little below the origin."""
    v = v - 0.15
    return torch.maximum(v, u.abs() * HALF_SQRT3 - v * 0.5) - 0.55


def star(u: Tensor, v: Tensor) -> Tensor:
    """Five points: fold the plane onto half a point, then one edge is left."""
    u, v = u.abs(), v - 0.04
    for side in (1, -1):  # mirror across the lines at 36 degrees to either side of a point
        cos, sin = side * math.cos(math.pi / 5), math.sin(math.pi / 5)
        across = (u * cos + v * sin).clamp_(min=0)
        u, v = u - across * (2 * cos), v - across * (2 * sin)
    u = u.abs_()
    tip, notch = 1.08, 0.53  # distances of the outer and inner corners from the centre
    edge_u, edge_v = notch * math.sin(math.pi / 5), tip - notch * math.cos(math.pi / 5)
    size = math.hypot(edge_u, edge_v)
    return u * (edge_v / size) - (v + tip) * (edge_u / size)


def ring(u: Tensor, v: Tensor) -> Tensor:
    return (length(u, v) - 0.68).abs_() - 0.25


def cross(u: Tensor, v: Tensor) -> Tensor:
    u, v = u.abs(), v.abs()
    return torch.maximum(torch.maximum(u, v) - 0.94, torch.minimum(u, v) - 0.34)


def hexagon(u: Tensor, v: Tensor) -> Tensor:
    u, v = u.abs(), v.abs()
    return torch.maximum(v, u * HALF_SQRT3 + v * 0.5) - 0.84


def heart(u: Tensor, v: Tensor) -> Tensor:
    """A square standing on its corner, with half a disc on each of its upper sides."""
    u, v = u.abs(), v - 0.07
    half, root = 0.37, math.sqrt(0.5)
    body = ((u + v.abs()) - 2 * half) * root
    lobe = length(u - half, v + half) - 2 * half * root
    return torch.minimum(body, lobe)


def length(u: Tensor, v: Tensor) -> Tensor:
    return (u * u).add_(v * v).sqrt_()


SHAPES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "disc": disc,
    "square": square,
    "triangle": triangle,
    "star": star,
    "ring": ring,
    "cross": cross,
    "hexagon": hexagon,
    "heart": heart,
}
