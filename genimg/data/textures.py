"""The surfaces of procedural scenes: how much of a second colour shows at each point.

A function takes texture coordinates w and z, float32 [M, H, W], in periods of the pattern, and
`sharp`, float32 [M, 1, 1], the length of a period in pixels. It returns float32 [M, H, W] in
[0, 1]: 0 the first colour, 1 the second; borders between them are about one pixel wide.

Like shapes, textures use correctly rounded arithmetic only.
"""

from collections.abc import Callable

import torch
from torch import Tensor

Texture = Callable[[Tensor, Tensor, Tensor], Tensor]


def plain(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    return torch.zeros_like(w)


def stripes(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    """Bands across w; the second colour has 0.42 of the width."""
    return edge(0.21 - from_centre(w).abs_(), sharp)


def checker(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    """Squares of half a period."""
    columns = edge(0.25 - from_centre(w).abs_(), sharp) - 0.5
    rows = edge(0.25 - from_centre(z).abs_(), sharp) - 0.5
    return (columns * rows).mul_(2).add_(0.5)


def dots(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    """Discs on a square lattice."""
    w, z = from_centre(w), from_centre(z)
    radius = w.mul_(w).add_(z.mul_(z)).sqrt_()
    return edge(0.31 - radius, sharp)


def gradient(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    """From the first colour to the second over one period around the origin."""
    return (w + 0.5).clamp_(0, 1)


def waves(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    """Stripes that swing to and fro."""
    return stripes(wave(z * 0.6).mul_(0.22).add_(w), z, sharp)


def marble(w: Tensor, z: Tensor, sharp: Tensor) -> Tensor:
    """Smooth clouds: two waves, each displaced by the other (domain warping)."""
    warped_w = wave(z * 0.83 + w * 0.37).mul_(0.33).add_(w)
    warped_z = wave(warped_w * 0.71 - z * 0.29).mul_(0.4).add_(z)
    both = wave(warped_w).add_(wave(warped_z * 1.3 + warped_w * 0.6))
    return both.mul_(0.35).add_(0.4).clamp_(0, 1)


def from_centre(x: Tensor) -> Tensor:
    """Signed distance to the centre of the period that x is in: [-0.5, 0.5]."""
    return x - x.round()


def edge(distance: Tensor, sharp: Tensor) -> Tensor:
    """Coverage of a pixel at a signed distance (periods, positive inside); changes `distance`."""
    return distance.mul_(sharp).add_(0.5).clamp_(0, 1)


def wave(x: Tensor) -> Tensor:
    """Nearly sin(2 pi x), of two parabolas."""
    x = from_centre(x)
    return x.abs().mul_(-16).add_(8).mul_(x)


TEXTURES: dict[str, Texture] = {
    "plain": plain,
    "striped": stripes,
    "checkered": checker,
    "dotted": dots,
    "shaded": gradient,
    "wavy": waves,
    "marbled": marble,
}
