"""Procedural scenes as pixels: surfaces over one another, with soft edges."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import fields

import torch
from torch import Tensor

from genimg.data.layout import SLOTS, Layout
from genimg.data.shapes import SHAPES
from genimg.data.textures import TEXTURES
from genimg.data.transfer import to_device

CPU = torch.device("cpu")
_CHUNK = 1 << 18  # pixels drawn at a time on a CPU: a larger chunk would leave its cache


def paint(layout: Layout, size: int, channels: int, device: torch.device = CPU) -> Tensor:
    """Draw layouts: uint8 [N, channels, size, size], on the device.

    A layout is on the CPU, whatever it is drawn on: how many objects there are of a kind has to
    be known to draw them together, and a GPU could not say without being waited for.
    """
    count = len(layout.shapes)
    out = torch.empty(count, channels, size, size, dtype=torch.uint8, device=device)
    step = max(1, (_CHUNK if device.type == "cpu" else 64 * _CHUNK) // (size * size))
    for start in range(0, count, step):
        rows = slice(start, start + step)
        part = Layout(*(getattr(layout, field.name)[rows] for field in fields(layout)))
        out[rows] = _composite(part, size, channels, device)
    return out


def _composite(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """Surfaces over one another, from the background to the front; float32 in [0.5, 255.5]."""
    first, second = layout.first, layout.second
    if channels == 1:  # compositing is linear, so the luma of the colours gives that of the image
        first, second = luma(first), luma(second)
    first, change = (to_device(c, device)[..., None, None] for c in (first, second - first))
    covered, blended = coverage(layout, size, device), blend(layout, size, device)
    image = (blended[:, -1:] * change[:, -1]).add_(first[:, -1])
    for slot in reversed(range(SLOTS)):
        surface = (blended[:, slot, None] * change[:, slot]).add_(first[:, slot])
        image.add_(surface.sub_(image).mul_(covered[:, slot, None]))
    return image.add_(0.5)


def coverage(layout: Layout, size: int, device: torch.device = CPU) -> Tensor:
    """float32 [N, SLOTS, size, size] in [0, 1]: how much of a pixel lies within each object."""
    kinds = layout.shapes.flatten()
    maps, pixels = layout.shape_maps.flatten(0, 1), layout.radii.flatten() * (size / 2)
    out = torch.zeros(len(kinds), size, size, device=device)
    parts = by_kind(kinds, len(SHAPES), maps, pixels, device)
    for shape, (rows, mine, scale) in zip(SHAPES.values(), parts, strict=True):
        distance = shape(*points(mine, size)).mul_(-scale[:, None, None])
        out[rows] = distance.add_(0.5).clamp_(0, 1)
    return out.view(-1, SLOTS, size, size)


def blend(layout: Layout, size: int, device: torch.device = CPU) -> Tensor:
    """float32 [N, SLOTS + 1, size, size] in [0, 1]: how much of each surface's second colour."""
    seen = torch.nn.functional.pad(layout.shapes >= 0, (0, 1), value=True)
    kinds = torch.where(seen, layout.textures, -1).flatten()
    maps, pixels = layout.texture_maps.flatten(0, 1), layout.periods.flatten() * (size / 2)
    out = torch.zeros(len(kinds), size, size, device=device)
    parts = by_kind(kinds, len(TEXTURES), maps, pixels, device)
    for texture, (rows, mine, scale) in zip(TEXTURES.values(), parts, strict=True):
        out[rows] = texture(*points(mine, size), scale[:, None, None])
    return out.view(-1, SLOTS + 1, size, size)


def by_kind(
    kinds: Tensor, count: int, maps: Tensor, pixels: Tensor, device: torch.device
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """For each of `count` kinds its rows, and their maps and pixels, on the device."""
    groups = [(kinds == kind).nonzero()[:, 0] for kind in range(count)]
    order, sizes = torch.cat(groups), [len(group) for group in groups]
    # three copies to a device, and not three a kind
    moved = [to_device(tensor, device) for tensor in (order, maps[order], pixels[order])]
    return zip(*(tensor.split(sizes) for tensor in moved), strict=True)


def points(maps: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Where pixels' centres lie under affine maps [M, 2, 3]: two of float32 [M, size, size]."""
    line = (torch.arange(size, device=maps.device) + 0.5) * (2 / size) - 1
    right = maps[:, :, 0, None] * line + maps[:, :, 2, None]
    down = maps[:, :, 1, None] * line
    across, along = (right[:, :, None] + down[..., None]).unbind(1)
    return across, along


def luma(colours: Tensor) -> Tensor:
    """ITU-R BT.601: [..., 3] to [..., 1]."""
    red, green, blue = colours.split(1, -1)
    return red * 0.299 + green * 0.587 + blue * 0.114
