"""Scenes composed: layers from the back to the front, and what is seen of them in the end."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import ImageOps
from torch import Tensor

from genimg.composition.gathered import on_white, resampled_by, tiles_of
from genimg.composition.layer import Layer
from genimg.composition.pictures import files_at, named_at, rgba_of
from genimg.composition.poisson import cloned, eroded
from genimg.composition.scene import Scene
from genimg.composition.surfaces import Surface, Window, rendered
from genimg.ranges import word
from genimg.rng import fold, integers

HALF = 0.5  # of a pixel, from which on it counts as covered


@dataclass(frozen=True)
class Thing:
    """A labelled layer that is seen somewhere.

    label: number of its class, from 1; box: x0, y0, x1, y1 around what is seen of it, whole
    pixels; area: how many are
    """

    label: int
    box: Window
    area: int


@dataclass(frozen=True)
class Composed:
    """image: uint8 [H, W, 3]; mask: uint8 [H, W], classes, 0 the background; things: from the
    back to the front."""

    image: np.ndarray
    mask: np.ndarray
    things: tuple[Thing, ...]
    caption: str


class Composer:
    """Composes images of a scene, of which each is a function of its key alone."""

    def __init__(self, scene: Scene, base: Path) -> None:
        """base: the folder that paths are relative to. Raises InputError for what is missing."""
        self.scene = scene
        self.base = base.absolute()
        for known in (files_at, named_at, rgba_of, tiles_of):  # files may have changed since
            known.cache_clear()
        for picture in scene.pictures():
            picture.check(self.base)
        self.classes = scene.classes()

    def __call__(self, key: Tensor) -> Composed:
        """One image, for a key int64 [1]. Raises InputError for files that cannot be read."""
        canvas = self.background(fold(key, 0))
        seen = torch.zeros(canvas.shape[1:], dtype=torch.int32)
        windows: list[Window] = []
        owners: list[Layer] = []
        for layer, mine in self.drawn(key):
            pictures = [
                picture.drawn(self.base, fold(mine, place))
                for place, picture in enumerate(layer.pictures())
            ]
            sides = canvas.shape[2], canvas.shape[1]
            laid = lay(canvas, layer, layer.surfaces(pictures, sides, mine))
            if laid is None:
                continue
            window, covered = laid
            windows.append(window)
            owners.append(layer)
            part(seen, window)[covered] = len(owners)
        found = [
            (layer, thing)
            for place, (layer, window) in enumerate(zip(owners, windows, strict=True), start=1)
            if layer.label and (thing := self.thing(layer, part(seen, window) == place, window))
        ]
        labels = [0, *map(self.number, owners)]
        image = canvas.clamp(0, 1).mul(255).round_().to(torch.uint8).permute(1, 2, 0).numpy()
        return Composed(
            np.ascontiguousarray(image),
            np.array(labels, np.uint8)[seen.numpy()],
            tuple(thing for _, thing in found),
            self.scene.told([layer.called() for layer, _ in found]),
        )

    def drawn(self, key: Tensor) -> Iterator[tuple[Layer, Tensor]]:
        """Layers that an image has, each as often as it has it, with keys of their own."""
        for place, layer in enumerate(self.scene.layers, start=1):
            mine = fold(key, place)
            low, high = layer.copies
            count = low + int(integers(fold(mine, word("copies")), high - low + 1))
            if layer.befallen(mine).item():
                yield from ((layer, fold(mine, copy)) for copy in range(count))

    def background(self, key: Tensor) -> Tensor:
        """float32 [3, H, W], 0 to 1: the canvas, opaque, cut to its sides about its middle."""
        image = on_white(self.scene.background.drawn(self.base, key))
        if self.scene.size is not None and image.size != self.scene.size:
            image = ImageOps.fit(image, self.scene.size, resampled_by(image))
        return torch.from_numpy(np.array(image)).permute(2, 0, 1).float().div_(255)

    def number(self, layer: Layer) -> int:
        """Of its class; 0 without a label."""
        return self.classes.index(layer.label) + 1 if layer.label else 0

    def thing(self, layer: Layer, mine: Tensor, window: Window) -> Thing | None:
        """That of a layer of which bool [H, W] are seen in a window; None of what is hidden."""
        rows, columns = mine.any(dim=1).nonzero()[:, 0], mine.any(dim=0).nonzero()[:, 0]
        if not len(rows):
            return None
        left, top = window[:2]
        box = (
            left + int(columns[0]), top + int(rows[0]),
            left + int(columns[-1]) + 1, top + int(rows[-1]) + 1,
        )  # fmt: skip
        return Thing(self.number(layer), box, int(mine.sum()))


def lay(canvas: Tensor, layer: Layer, surfaces: list[Surface]) -> tuple[Window, Tensor] | None:
    """Lay what surfaces show onto a canvas float32 [3, H, W], which is changed.

    The window that they lie in, and what of it they cover, bool [H, W]; None where they lie
    outside.
    """
    height, width = canvas.shape[1:]
    x0, y0, x1, y1 = around(surfaces)
    edge = layer.feather  # what lies beyond the canvas keeps its borders from fading in
    window = common((x0 - 1, y0 - 1, x1 + 1, y1 + 1), (-edge, -edge, width + edge, height + edge))
    within = common(window, (0, 0, width, height))
    if within[0] >= within[2] or within[1] >= within[3]:
        return None
    shown = sum((rendered(surface, window) for surface in surfaces), torch.zeros(1))
    alpha = feathered(shown[3], edge)
    left, top = within[0] - window[0], within[1] - window[1]
    inner = slice(top, top + within[3] - within[1]), slice(left, left + within[2] - within[0])
    colours, whole, alpha = shown[:3][:, *inner], shown[3][inner], alpha[inner]
    colours = colours / whole.clamp(min=1e-6)
    below = part(canvas, within)
    covered = alpha >= HALF
    if layer.blend != "over":
        region = eroded(whole >= HALF)
        colours = cloned(below, colours, region, mixed=layer.blend == "mixed")
        alpha, covered = alpha * region, covered & region
    below.lerp_(colours, alpha)
    return within, covered


def feathered(alpha: Tensor, reach: int) -> Tensor:
    """float32 [H, W]: an alpha that fades in over some pixels inwards from its border.

    Along a straight border from 0 to what it was, in a straight line: twice the mean over a square
    of 2 reach + 1 pixels a side, less 1.
    """
    if not reach:
        return alpha
    side = 2 * reach + 1
    mean = alpha[None, None]
    mean = F.avg_pool2d(mean, (side, 1), stride=1, padding=(reach, 0))
    mean = F.avg_pool2d(mean, (1, side), stride=1, padding=(0, reach))
    return alpha * (2 * mean[0, 0] - 1).clamp_(min=0)


def around(surfaces: list[Surface]) -> Window:
    """Whole pixels that surfaces lie within."""
    x0, y0 = (math.floor(min(each.bounds[n] for each in surfaces)) for n in (0, 1))
    x1, y1 = (math.ceil(max(each.bounds[n] for each in surfaces)) for n in (2, 3))
    return x0, y0, x1, y1


def common(a: Window, b: Window) -> Window:
    """What both have; may be empty."""
    return max(a[0], b[0]), max(a[1], b[1]), min(a[2], b[2]), min(a[3], b[3])


def part(values: Tensor, window: Window) -> Tensor:
    """A window of [..., H, W], not a copy."""
    x0, y0, x1, y1 = window
    return values[..., y0:y1, x0:x1]
