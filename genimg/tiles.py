"""Large images in bounded memory: cut into overlapping tiles of one shape, and put together."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Span:
    """Along one side: a tile covers pixels start to stop, and decides the result from a to b."""

    start: int
    stop: int
    a: int
    b: int


def spans(length: int, side: int, margin: int) -> Iterator[Span]:
    """Tiles of `side` pixels, or one of `length` if that is shorter; the last is moved back.

    Neighbours overlap so that each decides only what lies `margin` pixels inside it, except at
    the image's own borders.
    """
    assert side > 2 * margin, f"tiles of {side} pixels are all margin ({margin})"
    if length <= side:
        yield Span(0, length, 0, length)
        return
    decided = 0
    for start in [*range(0, length - side, side - 2 * margin), length - side]:
        stop = start + side
        end = length if stop == length else stop - margin
        yield Span(start, stop, decided, end)
        decided = end


def mirrored(
    start: int, stop: int, length: int, device: torch.device | str | None = None
) -> Tensor:
    """int64 [stop - start]: the places 0 to length - 1 that are seen from `start` to `stop`, were
    there mirrors at the first and the last of them."""
    places = torch.arange(start, stop, device=device).remainder(max(2 * (length - 1), 1))
    return torch.minimum(places, 2 * (length - 1) - places).clamp_(min=0)


def extended(images: Tensor, before: int, below: int, right: int) -> Tensor:
    """Images [..., H, W] mirrored by so many pixels above and to the left, below, and to the right.

    Repeating the last row would draw streaks of a noisy image, which look like something.
    """
    if not (before or below or right):
        return images
    height, width = images.shape[-2:]
    shape = (*images.shape[:-2], before + height + below, before + width + right)
    last = images.dim() == 4 and images.is_contiguous(memory_format=torch.channels_last)
    order = torch.channels_last if last else torch.contiguous_format
    made = torch.empty(shape, dtype=images.dtype, device=images.device, memory_format=order)
    inner = made[..., before : before + height, :]
    inner[..., before : before + width] = images
    for first, count in ((-before, before), (width, right)):
        columns = mirrored(first, first + count, width, images.device)
        inner[..., before + first : before + first + count] = images.index_select(-1, columns)
    for first, count in ((-before, before), (height, below)):
        rows = mirrored(first, first + count, height, images.device)
        made[..., before + first : before + first + count, :] = inner.index_select(-2, rows)
    return made


def tiled(
    function: Callable[[Tensor], Tensor],
    images: Tensor,
    *,
    side: int,
    margin: int,
    stride: int = 1,
    scale: int = 1,
    at_once: int = 1,
    device: torch.device | str | None = None,
) -> Tensor:
    """function(images) for images [N, C, H, W] of any size, a few tiles at a time.

    The result equals that of the whole where a pixel depends on nothing further than `margin` away.

    side:     of a tile, pixels; a multiple of stride
    stride:   what sides and places of tiles are multiples of; images are padded to it by
              mirroring them at their last row and column
    scale:    by how much `function` enlarges
    at_once:  tiles given to `function` together, each with all N images: [tiles * N, C, h, w]
    device:   where the function's inputs go; the result stays where the images are
    """
    height, width = images.shape[-2:]
    padded = extended(images, 0, -height % stride, -width % stride)
    rows, columns = (list(spans(length, side, margin)) for length in padded.shape[-2:])
    places = list(itertools.product(rows, columns))
    output: Tensor | None = None
    for first in range(0, len(places), at_once):
        few = places[first : first + at_once]
        tiles = torch.cat([padded[..., y.start : y.stop, x.start : x.stop] for y, x in few])
        done = function(tiles.to(device or images.device))
        if output is None:
            sides = [side * scale for side in padded.shape[-2:]]
            output = done.new_empty(len(images), done.shape[1], *sides, device=images.device)
        for tile, (y, x) in zip(done.split(len(images)), few, strict=True):
            inside = [slice((s.a - s.start) * scale, (s.b - s.start) * scale) for s in (y, x)]
            there = [slice(s.a * scale, s.b * scale) for s in (y, x)]
            output[..., there[0], there[1]] = tile[..., inside[0], inside[1]]
    assert output is not None, "an image has at least one tile"
    return output[..., : height * scale, : width * scale]
