"""Textures on surfaces: which part of a texture is seen in each pixel of a canvas, anti-aliased.

SAMPLES along each side of a pixel decide how much of it a surface covers. Where a texture is
shrunk, its colours are those of the samples, of a level of its pyramid (mipmaps: Williams 1983,
Pyramidal parametrics) by the longer axis of what a sample sees; where it is not, that of their
middle, so that a texture which is only moved by whole pixels keeps its pixels exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = (torch.arange(4, dtype=torch.float64) + 0.5) / 4
CORNERS = SAMPLES[[0, -1]]
_TILE = 128  # pixels a side that are rendered at a time
_PLAIN = 1e-3  # of a spread, which is none

Window = tuple[int, int, int, int]
"""x0, y0, x1, y1 of whole pixels of a canvas."""


@dataclass(frozen=True)
class Seen:
    """What points of a canvas show of a texture.

    uv: float64 [H, W, 2], from its upper left (0, 0) to its lower right (1, 1)
    inside: bool [H, W]; elsewhere uv and light may be anything
    light: float64 [H, W], factors from 0 to 1 on its colours
    """

    uv: Tensor
    inside: Tensor
    light: Tensor | None = None


@dataclass(frozen=True)
class Surface:
    """A texture that lies somewhere on a canvas.

    bounds: float x0, y0, x1, y1 that it stays within
    seen: at the points of a grid, of x float64 [W] and y float64 [H], pixels of the canvas
    """

    texture: Texture
    bounds: tuple[float, float, float, float]
    seen: Callable[[Tensor, Tensor], Seen]


class Texture:
    """A picture uint8 [H, W, 4] and its pyramid, premultiplied by alpha.

    around: its left border meets its right one
    """

    def __init__(self, picture: np.ndarray, around: bool = False) -> None:
        level = torch.from_numpy(picture.copy()).permute(2, 0, 1).float().div_(255)
        level[:3] *= level[3:]
        self.around = around
        self.levels = [level]
        while max(level.shape[1:]) > 1:
            down, across = (-(-side // 2) for side in level.shape[1:])
            level = F.adaptive_avg_pool2d(level, (down, across))
            self.levels.append(level)
        height, width = picture.shape[:2]
        self.sides = torch.tensor([width, height], dtype=torch.float64)

    def at(self, uv: Tensor, levels: Tensor) -> Tensor:
        """float32 [K, S, 4] at float64 [K, S, 2], each of its level int64 [K]; bilinear."""
        made = torch.empty(*uv.shape[:2], 4)
        for number in levels.unique().tolist():
            mine = levels == number
            made[mine] = self._sampled(self.levels[number], uv[mine])
        return made

    def _sampled(self, level: Tensor, uv: Tensor) -> Tensor:
        u, v = uv.unbind(-1)
        if self.around:
            width = level.shape[-1]
            level = F.pad(level[None], (1, 1, 0, 0), mode="circular")[0]
            u = ((u - u.floor()) * width + 1) / (width + 2)
        places = (torch.stack([u, v], dim=-1) * 2 - 1).float()
        made = F.grid_sample(level[None], places[None], padding_mode="border", align_corners=False)
        return made[0].permute(1, 2, 0)


def rendered(surface: Surface, window: Window) -> Tensor:
    """float32 [4, H, W]: what a window shows of a surface, premultiplied; 0 to 1."""
    x0, y0, x1, y1 = window
    made = torch.zeros(4, y1 - y0, x1 - x0)
    for top in range(y0, y1, _TILE):
        for left in range(x0, x1, _TILE):
            tile = (left, top, min(left + _TILE, x1), min(top + _TILE, y1))
            part = slice(top - y0, tile[3] - y0), slice(left - x0, tile[2] - x0)
            made[:, *part] = _tile(surface, tile)
    return made


def _tile(surface: Surface, tile: Window) -> Tensor:
    """By the corners of pixels alone where all are covered, and none shows a texture shrunk."""
    seen = _seen(surface, tile, CORNERS)
    if seen.inside.all():
        pixels = Pixels(surface.texture, seen, CORNERS)
        if not pixels.many.any():
            return pixels.coloured(surface.texture, tile)
    seen = _seen(surface, tile, SAMPLES)
    if not seen.inside.any():
        return torch.zeros(4, tile[3] - tile[1], tile[2] - tile[0])
    return Pixels(surface.texture, seen, SAMPLES).coloured(surface.texture, tile)


def _seen(surface: Surface, tile: Window, within: Tensor) -> Seen:
    """At the samples of its pixels."""
    x0, y0, x1, y1 = tile
    x, y = ((torch.arange(*ends)[:, None] + within).flatten() for ends in ((x0, x1), (y0, y1)))
    return surface.seen(x, y)


class Pixels:
    """What is seen in pixels: of the samples within each, or of its corners."""

    def __init__(self, texture: Texture, seen: Seen, within: Tensor) -> None:
        self.side = len(within)
        inside = self._by_pixel(seen.inside)
        self.touched = inside.any(dim=1)
        self.inside, uv = inside[self.touched], self._by_pixel(seen.uv)[self.touched]
        self.count = self.inside.sum(dim=1)
        self.middle, self.off = _middles(uv, self.inside, self.count, texture.around)
        self.size = _footprints(self.off * texture.sides, self.count) / within.std(correction=0)
        self.spread = (self.size - 1).clamp(0, 1)
        self.many = self.spread > _PLAIN
        self.light = None
        if seen.light is not None:
            light = self._by_pixel(seen.light)[self.touched]
            self.light = torch.where(self.inside, light, 0).sum(dim=1) / self.count

    def coloured(self, texture: Texture, tile: Window) -> Tensor:
        """float32 [4, H, W]."""
        levels = (self.size / self.side).clamp_(min=1).log2_().floor_().long()
        levels.clamp_(max=len(texture.levels) - 1)
        share, many = (self.count / self.side**2)[:, None].float(), self.many
        colours = texture.at(self.middle[:, None], levels)[:, 0] * share
        if many.any():
            places = self.middle[many, None] + self.spread[many, None, None] * self.off[many]
            samples = texture.at(places, levels[many]) * self.inside[many, :, None]
            colours[many] = samples.sum(dim=1) / self.side**2
        if self.light is not None:
            colours[:, :3] *= self.light[:, None].float()
        made = torch.zeros(len(self.touched), 4)
        made[self.touched] = colours
        return made.unflatten(0, (-1, tile[2] - tile[0])).permute(2, 0, 1)

    def _by_pixel(self, values: Tensor) -> Tensor:
        """[H S, W S, ...] -> [H W, S², ...]."""
        cells = values.unflatten(0, (-1, self.side)).unflatten(2, (-1, self.side)).transpose(1, 2)
        return cells.flatten(2, 3).flatten(0, 1)


def _middles(uv: Tensor, inside: Tensor, count: Tensor, around: bool) -> tuple[Tensor, Tensor]:
    """(float64 [K, 2], [K, S, 2]): means of the uv that are inside, and how far these are off."""
    first = uv.gather(1, inside.int().argmax(dim=1)[:, None, None].expand(-1, 1, 2))
    off = torch.where(inside[..., None], uv - first, 0)
    if around:
        off[..., 0] -= off[..., 0].round()
    mean = off.sum(dim=1, keepdim=True) / count[:, None, None]
    return (first + mean)[:, 0], torch.where(inside[..., None], off - mean, 0)


def _footprints(off: Tensor, count: Tensor) -> Tensor:
    """float64 [K]: how far pixels' samples are off their middle, along the longer axis.

    off: float64 [K, S, 2]. As a standard deviation: under an affine map it is that of the samples
    within a pixel times the larger singular value.
    """
    a, c = (off.square().sum(dim=1) / count[:, None]).unbind(1)
    b = off.prod(dim=2).sum(dim=1) / count
    return ((a + c) / 2 + torch.hypot((a - c) / 2, b)).sqrt()
