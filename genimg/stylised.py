"""The plan of an image in another's style: both are looked at whole, tile by tile, and then it is
painted, in tiles as well."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Ability, Rows
from genimg.moments import exchange, pooled
from genimg.results import Pictures
from genimg.tiled import Tiled, stacked


class Looked(Tiled):
    """An image of any size in tiles, of whose features the moments are wanted, of all together.

    image: in the channels of the model, and perhaps alpha: what is transparent counts for nothing
    mask: float32 [H, W], 0 to 1: what of it counts; None: all
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        tile: int | Literal["auto"] = "auto",
        mask: np.ndarray | None = None,
    ) -> None:
        super().__init__(ability, image, tile, mask=mask)
        self.tiles = self.count
        self._parts: dict[int, Tensor] = {}  # of tiles: their moments

    def looks(self, start: int, stop: int) -> Rows:
        """Tiles, and how much each of their pixels counts."""
        tiles = range(start, stop)
        return {
            "image": stacked([self._cut(number) for number in tiles]),
            "weight": stacked([self._weights(number) for number in tiles]),
        }

    def saw(self, start: int, made: Rows) -> None:
        """Keep what was found in tiles from `start` on."""
        self._parts |= dict(enumerate(made["moments"].cpu(), start=start))

    def moments(self) -> Tensor | None:
        """float64 [2, D], once all its tiles were looked at; None where nothing of it counts."""
        tiles = range(self.tiles)
        weights = torch.stack([self._weights(number).double().sum() for number in tiles])
        if not weights.any():
            return None
        return pooled(torch.stack([self._parts[number] for number in tiles]), weights)

    def _weights(self, number: int) -> Tensor:
        """float32 [h, w]: how much pixels of a tile count; each of the image's in one tile only."""
        (y, x), _ = self._place(number)
        height, width = self._colour.shape[:2]
        inside = slice(y.a, min(y.b, height)), slice(x.a, min(x.b, width))
        part = np.ones([each.stop - each.start for each in inside], np.float32)
        if self._alpha.shape[2]:
            part *= self._alpha[inside][..., 0] / np.float32(self._peak)
        if self._mask is not None:
            part *= self._mask[inside]
        weights = torch.zeros(self._shape)
        weights[y.a - y.start :, x.a - x.start :][: part.shape[0], : part.shape[1]] = (
            torch.from_numpy(part)
        )
        return weights

    def _cut(self, number: int, whole: bool = False) -> Tensor:
        """The network sees what a mask marks, and what not."""
        return super()._cut(number, whole=True)


class Stylised(Looked):
    """An image of any size in the style of another, of any size too.

    mask: float32 [H, W], 0 to 1: what is to have that style; all else comes back as it was
    strength: how far features go towards the style
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        style: np.ndarray,
        tile: int | Literal["auto"] = "auto",
        strength: float = 1.0,
        mask: np.ndarray | None = None,
    ) -> None:
        super().__init__(ability, image, tile, mask)
        self._style = Looked(ability, style, tile)
        self._towards = strength
        self._looked = self._style.tiles + self.tiles  # rows behind which it is painted
        self._change: Tensor | None = None
        self.count = self._looked + self.tiles
        self.pixels = max(self.pixels, self._style.pixels)

    def lap(self, row: int) -> tuple[Hashable, int]:
        if row < self._style.tiles:
            return ("looked at", self._style._shape), self._style.tiles
        if row < self._looked:
            return ("looked at", self._shape), self._looked
        return self._shape, self.count

    def rows(self, start: int, stop: int) -> Rows:
        if start < self._style.tiles:
            return self._style.looks(start, stop)
        if start < self._looked:
            return self.looks(start - self._style.tiles, stop - self._style.tiles)
        if self._change is None:
            self._change = self._found()
        tiles = [self._cut(number - self._looked) for number in range(start, stop)]
        return {"image": stacked(tiles), "change": self._change.expand(stop - start, -1, -1)}

    def put(self, start: int, made: Rows) -> None:
        if start < self._style.tiles:
            self._style.saw(start, made)
        elif start < self._looked:
            self.saw(start - self._style.tiles, made)
        else:
            super().put(start - self._looked, made)

    def result(self) -> Pictures:
        self._style.forget()
        return super().result()

    def _found(self) -> Tensor:
        """float32 [2, D]: what makes features those of the style."""
        style, content = self._style.moments(), self.moments()
        assert style is not None, "something of a style is seen"
        content = style if content is None else content  # nothing is to be changed
        return exchange(content, style, self._towards).float()
