"""Pictures made of many: collages, and mosaics that show another picture."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path
from typing import Literal, Self

import numpy as np
import torch
from PIL import Image, ImageColor, ImageOps
from pydantic import Field, model_validator
from torch import Tensor

from genimg import pillow_arrays
from genimg.composition.pictures import (
    MAX_PIXELS,
    Colour,
    Picture,
    files_at,
    rgba_of,
    sides_of,
)
from genimg.errors import InputError
from genimg.ranges import word
from genimg.rng import fold, uniform

PARTS = 3  # a side of a tile, by whose colours it is chosen
MOST_TILES = 20_000
MOST_LAID = 2**28  # pixels of all tiles together
_DISTANCES = 2**22  # between cells and tiles that are in memory


class Collage(Picture):
    """Images side by side in rows, each cut to the shape of its cell about its middle."""

    kind: Literal["collage"] = "collage"
    """images in rows and columns"""
    paths: tuple[str, ...] = Field(min_length=1)
    """files and folders; fill the cells in order, again and again"""
    width: int = Field(ge=1, le=16_384)
    """pixels"""
    height: int = Field(ge=1, le=16_384)
    """pixels"""
    columns: int = Field(3, ge=1, le=100)
    """cells in a row"""
    rows: int = Field(3, ge=1, le=100)
    """how many there are"""
    gap: int = Field(0, ge=0)
    """between cells and around them, pixels"""
    colour: Colour = "#ffffff"
    """of the gaps"""
    shuffled: bool = False
    """in an order by chance"""

    @model_validator(mode="after")
    def cells_have_pixels(self) -> Self:
        for name, side, count in (
            ("width", self.width, self.columns), ("height", self.height, self.rows)
        ):  # fmt: skip
            if side - self.gap * (count + 1) < count:
                raise ValueError(f"{name}={side}: too little for {count} cells; enlarge it")
        refuse_pixels(self.width, self.height)
        return self

    def check(self, base: Path) -> None:
        for path in self.paths:
            files = files_at(base, path)
            if len(files) == 1:
                sides_of(files[0])

    def drawn(self, base: Path, key: Tensor) -> np.ndarray:
        files = [file for path in self.paths for file in files_at(base, path)]
        if self.shuffled:
            order = uniform(fold(key, word("shuffled")), (len(files),))[0].argsort(stable=True)
            files = [files[place] for place in order.tolist()]
        colour = ImageColor.getcolor(self.colour, "RGBA")
        made = np.full((self.height, self.width, 4), colour, np.uint8)
        number = 0
        for top, bottom in cells(self.height, self.rows, self.gap):
            for left, right in cells(self.width, self.columns, self.gap):
                image = Image.fromarray(rgba_of(files[number % len(files)]))
                fitted = ImageOps.fit(image, (right - left, bottom - top), resampled_by(image))
                made[top:bottom, left:right] = np.asarray(fitted)
                number += 1
        return made


class Mosaic(Picture):
    """A picture laid of small ones, each the nearest in colours to what it stands for."""

    kind: Literal["mosaic"] = "mosaic"
    """an image laid of the images of a folder"""
    path: str
    """the image that it shows"""
    tiles: str
    """the folder of those that it is laid of"""
    columns: int = Field(40, ge=1, le=1000)
    """tiles in a row"""
    tile: int = Field(16, ge=PARTS, le=512)
    """side of a tile, pixels"""
    tint: float = Field(0.0, ge=0, le=1)
    """how far tiles take on the mean colour of what they stand for"""

    def check(self, base: Path) -> None:
        shown = files_at(base, self.path)
        if len(shown) > 1:
            raise InputError(f"{self.path}: is a folder; a mosaic shows one image")
        width, height = sides_of(shown[0])
        refuse_pixels(self.columns * self.tile, self.rows(height, width) * self.tile)
        count = len(files_at(base, self.tiles))
        if count > MOST_TILES:
            raise InputError(f"{self.tiles}: has {count:,} images; at most {MOST_TILES:,} are laid")
        if count * self.tile**2 > MOST_LAID:
            raise InputError(
                f"{self.tiles}: {count:,} images of tile={self.tile} are more than {MOST_LAID:,}"
                " pixels; make it smaller"
            )

    def rows(self, height: int, width: int) -> int:
        return max(1, round(self.columns * height / width))

    def drawn(self, base: Path, key: Tensor) -> np.ndarray:
        (file,) = files_at(base, self.path)
        shown = on_white(rgba_of(file))
        rows, columns = self.rows(shown.height, shown.width), self.columns
        small = shown.resize((columns * PARTS, rows * PARTS), Image.Resampling.BOX)
        cut = np.asarray(small).reshape(rows, PARTS, columns, PARTS, 3)
        wanted = torch.from_numpy(cut.swapaxes(1, 2).reshape(rows * columns, -1)).float()
        tiles, looks = tiles_of(base, self.tiles, self.tile)
        chosen = tiles[nearest_of(wanted, looks)]
        if self.tint:
            chosen = chosen.astype(np.float32)
            mean = wanted.view(len(wanted), -1, 3).mean(dim=1).numpy()[:, None, None]
            chosen += self.tint * (mean - chosen.mean(axis=(1, 2), keepdims=True))
            chosen = chosen.round().clip(0, 255).astype(np.uint8)
        laid = chosen.reshape(rows, columns, self.tile, self.tile, 3).swapaxes(1, 2)
        flat = laid.reshape(rows * self.tile, columns * self.tile, 3)
        return np.dstack([flat, np.full(flat.shape[:2], 255, np.uint8)])


def nearest_of(wanted: Tensor, looks: Tensor) -> Tensor:
    """int64 [N]: which of looks [T, D] is the nearest to each of [N, D]; of equal ones the first.

    A part of them at a time: there may be a million cells, and thousands of tiles.
    """
    found = torch.empty(len(wanted), dtype=torch.int64)  # results kept between would part memory
    parts = max(1, _DISTANCES // len(looks))
    for few, into in zip(wanted.split(parts), found.split(parts), strict=True):
        away = torch.cdist(few, looks, compute_mode="donot_use_mm_for_euclid_dist")
        torch.argmin(away, dim=1, out=into)
    return found


@lru_cache(maxsize=4)
def tiles_of(base: Path, path: str, side: int) -> tuple[np.ndarray, Tensor]:
    """(tiles uint8 [T, side, side, 3], their colours float32 [T, 3 PARTS²]) of a folder."""
    files = files_at(base, path)
    tiles, looks = np.empty((len(files), side, side, 3), np.uint8), []
    for number, file in enumerate(files):
        image = on_white(rgba_of(file))
        tile = ImageOps.fit(image, (side, side), resampled_by(image))
        tiles[number] = np.asarray(tile)
        looks.append(np.asarray(tile.resize((PARTS, PARTS), Image.Resampling.BOX)).reshape(-1))
    return tiles, torch.from_numpy(np.stack(looks)).float()


def on_white(picture: np.ndarray) -> Image.Image:
    """RGB of uint8 [H, W, 4]."""
    return pillow_arrays.on_white(Image.fromarray(picture)).convert("RGB")


def resampled_by(image: Image.Image) -> Image.Resampling:
    """A single pixel needs no filter; all else has Lanczos's."""
    return Image.Resampling.NEAREST if image.size == (1, 1) else Image.Resampling.LANCZOS


def cells(length: int, count: int, gap: int) -> list[tuple[int, int]]:
    """(start, stop) of each of some cells along a line, with gaps between and around them."""
    room = length - gap * (count + 1)
    return [
        (gap * (place + 1) + room * place // count, gap * (place + 1) + room * (place + 1) // count)
        for place in range(count)
    ]


def refuse_pixels(width: int, height: int) -> None:
    if width * height > MAX_PIXELS:
        raise InputError(f"{width}x{height} is more than {MAX_PIXELS:,} pixels; make it smaller")
