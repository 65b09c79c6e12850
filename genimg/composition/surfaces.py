"""Textures on surfaces: which part of a texture is seen in each pixel of a canvas, anti-aliased.

SAMPLES a side of a pixel decide how much of it a surface covers. Where a texture is shrunk, its
colours are those of the samples, of a level of its pyramid (mipmaps: Williams 1983, Pyramidal
parametrics) by the longer axis of what a sample sees; where it is not, that of their middle, so
that a texture which is only moved by whole pixels keeps its pixels exactly.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

SAMPLES = 4
_BAND = 1 << 16  # pixels rendered at a time
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
    step = max(1, _BAND // (x1 - x0))
    for top in range(y0, y1, step):
        bottom = min(top + step, y1)
        made[:, top - y0 : bottom - y0] = _band(surface, (x0, top, x1, bottom))
    return made


def _band(surface: Surface, window: Window) -> Tensor:
    x0, y0, x1, y1 = window
    seen = surface.seen(_points(x0, x1), _points(y0, y1))
    inside = _by_pixel(seen.inside)
    touched = inside.any(dim=1)
    made = torch.zeros(len(touched), 4)
    if not touched.any():
        return _as_image(made, x1 - x0)
    inside, uv = inside[touched], _by_pixel(seen.uv)[touched]
    texture, count = surface.texture, inside.sum(dim=1)
    middle, off = _middles(uv, inside, count, texture.around)
    size = _footprints(off * texture.sides, count)
    levels = (size / SAMPLES).clamp_(min=1).log2_().floor_().long()
    levels.clamp_(max=len(texture.levels) - 1)
    spread = (size - 1).clamp_(0, 1)
    many = spread > _PLAIN
    colours = texture.at(middle[:, None], levels)[:, 0] * (count / SAMPLES**2)[:, None].float()
    if many.any():
        places = middle[many, None] + spread[many, None, None] * off[many]
        samples = texture.at(places, levels[many]) * inside[many, :, None]
        colours[many] = samples.sum(dim=1) / SAMPLES**2
    if seen.light is not None:
        light = torch.where(inside, _by_pixel(seen.light)[touched], 0).sum(dim=1) / count
        colours[:, :3] *= light[:, None].float()
    made[touched] = colours
    return _as_image(made, x1 - x0)


def _as_image(pixels: Tensor, width: int) -> Tensor:
    """[4, H, W] of [H W, 4]."""
    return pixels.unflatten(0, (-1, width)).permute(2, 0, 1)


def _points(start: int, stop: int) -> Tensor:
    """float64: the samples of pixels along a line."""
    within = (torch.arange(SAMPLES, dtype=torch.float64) + 0.5) / SAMPLES
    return (torch.arange(start, stop)[:, None] + within).flatten()


def _by_pixel(values: Tensor) -> Tensor:
    """[H SAMPLES, W SAMPLES, ...] -> [H W, SAMPLES², ...]."""
    cells = values.unflatten(0, (-1, SAMPLES)).unflatten(2, (-1, SAMPLES)).transpose(1, 2)
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
    """float64 [K]: the longer axis of what pixels see of a texture, in its own pixels.

    off: float64 [K, S, 2] from their means. Under an affine map of singular values s the samples
    of a pixel have variances (1 - 1 / SAMPLES²) s² / 12 along its axes.
    """
    a, c = (off.square().sum(dim=1) / count[:, None]).unbind(1)
    b = off.prod(dim=2).sum(dim=1) / count
    variance = (a + c) / 2 + torch.hypot((a - c) / 2, b)
    return (variance * 12 / (1 - 1 / SAMPLES**2)).sqrt()
