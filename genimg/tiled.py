"""The plan of what is done to images of any size: in tiles of one shape, cut as they are needed."""

from __future__ import annotations

import itertools
from collections.abc import Hashable, Iterator, Sequence
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from genimg.contracts import Ability, Rows
from genimg.deep_holes import deep_in
from genimg.errors import InputError
from genimg.plans import Kept
from genimg.results import Pictures
from genimg.tiles import Span, mirrored, spans

# Pixels of tiles, unless the network's context makes larger ones necessary. The larger they are,
# the less is computed twice, and the more memory it takes: of which huge images need some.
TILE, WIDE_TILE, HUGE_TILE = 1024**2, 1536**2, 512**2
FAR = 64  # pixels of context to either side, beyond which WIDE_TILE
HELD = 3 * 2**29  # bytes, where it is known what a tile takes
HUGE = 2**26  # pixels
SYMMETRIES = 8  # of the square: four that keep a tile's shape, and four that lay it down
MOST = 2**28  # pixels that an image may be enlarged to
TYPES = {255: torch.uint8, 65535: torch.uint16}  # of images, by their largest value


class Tiled(Kept):
    """An image of any size, in tiles of one shape that overlap by the network's context.

    image: uint8 or uint16 [H, W, C]; C is 1 to 4, and the last of 2 or 4 is alpha, which passes
        through. A gray model is given the channels of a colour image one by one.
    tile: side in pixels; 0 is all at once
    strength: 0 gives the image (enlarged, if that is what is done), 1 what was computed
    ensemble: the mean of what becomes of each tile in its eight symmetries; all planes of a tile
        come four times as it stands, and then four times lying
    mask: float32 [H, W], 0 to 1: what is to be replaced; the network sees nothing of that, but of
        wide holes a smooth guess of their inside, and all else comes back as it was

    The image's bytes are kept and those of the result, and as floats only the tiles of a pass. The
    result is given once: with it the image is let go.
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        tile: int | Literal["auto"] = "auto",
        strength: float = 1.0,
        ensemble: bool = False,
        mask: np.ndarray | None = None,
    ) -> None:
        if image.ndim != 3 or image.shape[2] not in (1, 2, 3, 4) or not image.size:
            raise InputError(f"image of shape {list(image.shape)}: expected [H, W, 1 to 4]")
        if image.dtype not in (np.uint8, np.uint16):
            raise InputError(f"image of {image.dtype}: expected uint8 or uint16")
        height, width = image.shape[:2]
        rows, columns = height * ability.scale, width * ability.scale
        if ability.scale > 1 and rows * columns > MOST:
            raise InputError(
                f"image of {width}x{height}: {columns}x{rows} would come of it, and {MOST:,} pixels"
                " are the most; give a smaller one"
            )
        assert mask is None or mask.shape == (height, width), f"mask {mask.shape} of {image.shape}"
        channels = image.shape[2] - (image.shape[2] in (2, 4))
        self._ability, self._strength, self._mask = ability, strength, mask
        self._colour, self._alpha = image[..., :channels], image[..., channels:]
        self._peak = int(np.iinfo(image.dtype).max)
        self._deep = None if mask is None else deep_in(self._colour, mask)
        self._planes = channels if ability.channels == 1 else 1
        most = WIDE_TILE if ability.margin > FAR else TILE
        if ability.held:
            most = HELD // ability.held
        down, across = tiles_of((height, width), tile, ability.margin, ability.stride, most)
        self._places = list(itertools.product(down, across))
        if mask is not None:  # what has no holes comes back as it was
            holes = [(y, x) for y, x in self._places if mask[y.a : y.b, x.a : x.b].any()]
            self._places = holes or self._places[:1]
        height, width = down[0].stop - down[0].start, across[0].stop - across[0].start
        self._constants: dict[str, float] = {}
        self._turns = SYMMETRIES if ensemble else 1
        # of planes of tiles: (turns that came, their sum)
        self._sums: dict[int, tuple[frozenset[int], Tensor]] = {}
        self.count = len(self._places) * self._planes * self._turns
        self._shape = height, width
        self.pixels = height * width
        self._made = np.empty((rows, columns, channels), image.dtype)
        if mask is not None:
            self._made[:] = self._colour

    def told(self, **constants: float) -> Tiled:
        """This plan, with columns in which all its rows are alike."""
        self._constants |= constants
        return self

    def lap(self, row: int) -> tuple[Hashable, int]:
        height, width = self._shape
        if self._turns == 1 or height == width:
            return self._shape, self.count
        rows = self._planes * self._turns // 2
        lying = row // rows % 2
        return (width, height) if lying else (height, width), (row // rows + 1) * rows

    def rows(self, start: int, stop: int) -> Rows:
        every = [self._turn(row) for row in range(start, stop)]
        rows = {"image": stacked([turned(self._cut(number), turn) for number, turn in every])}
        if self._mask is not None:
            holes = [turned(self._unknown(number), turn) for number, turn in every]
            rows["mask"] = stacked(holes).ceil().long()
        for name, value in self._constants.items():
            rows[name] = torch.full((stop - start,), value)
        return rows  # type: ignore[return-value]

    def put(self, start: int, made: Rows) -> None:
        for row, image in enumerate(made["image"].cpu(), start=start):
            number, turn = self._turn(row)
            if self._turns == 1:
                self._keep(number, image)
                continue
            came, total = self._sums.get(number, (frozenset(), torch.zeros(())))
            if turn in came:  # where a pass failed, its rows and those before may come again
                continue
            self._sums[number] = came, total = came | {turn}, total + turned_back(image, turn)
            if len(came) == self._turns:
                self._keep(number, total / self._turns)
                del self._sums[number]

    def result(self) -> Pictures:
        made = self._with_alpha(self._made)
        self.forget()
        return Pictures(made[None])

    def show_through(self) -> None:
        """Let the image stand where nothing is made yet, for `so_far`; asked before all rows."""
        self._made[:] = enlarged(self._colour, self._ability.scale)

    def so_far(self) -> np.ndarray:
        """[H, W, C]: a copy of the result as it is between two passes."""
        return self._with_alpha(self._made.copy())

    def _with_alpha(self, made: np.ndarray) -> np.ndarray:
        alpha = smoothly_enlarged(self._alpha, self._ability.scale)
        return np.concatenate([made, alpha], axis=2) if alpha.shape[2] else made

    def forget(self) -> None:
        """Let the image go: who encodes the result need not have it in memory as well."""
        self._colour = self._alpha = np.empty((0, 0, 0), self._made.dtype)
        self._mask = self._deep = None

    def _keep(self, number: int, image: Tensor) -> None:
        """What was made of a tile, float32 [C, h, w], goes to its place."""
        scale = self._ability.scale
        (y, x), plane = self._place(number)
        target = self._made[y.a * scale : y.b * scale, x.a * scale : x.b * scale, plane]
        height, width = target.shape[:2]  # what the image was padded by is left out
        top, left = (y.a - y.start) * scale, (x.a - x.start) * scale
        inside = (..., slice(top, top + height), slice(left, left + width))
        if self._planes == 1 and self._colour.shape[2] < len(image):  # gray, for colour
            image = image.mean(dim=0, keepdim=True)
        inner = image[inside]
        if self._strength != 1 or self._mask is not None:
            own = self._cut(number, whole=True)[: len(inner)]
            if scale > 1:
                own = F.interpolate(own[None], scale_factor=scale, mode="bicubic")[0]
            weight: Tensor | float = self._strength
            if self._mask is not None:
                weight = self._holes(number)[inside] * self._strength
            inner = torch.lerp(own[inside], inner, torch.as_tensor(weight, dtype=inner.dtype))
        levels = inner.add_(1).mul_(self._peak / 2).round_().clamp_(0, self._peak)
        target[:] = levels.permute(1, 2, 0).to(TYPES[self._peak]).numpy()

    def _turn(self, row: int) -> tuple[int, int]:
        """(plane of a tile, its turn) of a row: uneven turns lie."""
        if self._turns == 1:
            return row, 0
        tile, within = divmod(row, self._planes * self._turns)
        lying, within = divmod(within, self._planes * self._turns // 2)
        plane, half = divmod(within, self._turns // 2)
        return tile * self._planes + plane, 2 * half + lying

    def _place(self, number: int) -> tuple[tuple[Span, Span], slice]:
        tile, plane = divmod(number, self._planes)
        return self._places[tile], slice(plane, plane + 1) if self._planes > 1 else slice(None)

    def _within(self, number: int) -> Any:
        """A tile's pixels; beyond the image it is mirrored."""
        (y, x), _ = self._place(number)
        height, width = self._colour.shape[:2]
        if min(y.start, x.start) >= 0 and y.stop <= height and x.stop <= width:
            return slice(y.start, y.stop), slice(x.start, x.stop)
        down = mirrored(y.start, y.stop, height).numpy()
        across = mirrored(x.start, x.stop, width).numpy()
        return np.ix_(down, across)

    def _cut(self, number: int, whole: bool = False) -> Tensor:
        """float32 [C, h, w] in [-1, 1]: one tile. whole: also what the network may not see."""
        within = self._within(number)
        pixels = self._colour[within].copy()  # turned ones may lie backwards
        if self._deep and not whole:
            places = self._deep.places[within]
            pixels[places] = self._deep.guess[within][places]
        planes = torch.from_numpy(pixels).permute(2, 0, 1)[self._place(number)[1]]
        floats = planes.to(torch.float32)
        floats = floats.div_(self._peak / 2).sub_(1)
        if self._mask is not None and not whole:
            floats = floats.masked_fill(self._unknown(number) > 0, 0.0)
        missing = len(floats) < self._ability.channels
        return floats.expand(self._ability.channels, -1, -1) if missing else floats

    def _holes(self, number: int) -> Tensor:
        """float32 [h, w]: the mask of a tile."""
        assert self._mask is not None, "asked for where there is one"
        return torch.from_numpy(self._mask[self._within(number)])

    def _unknown(self, number: int) -> Tensor:
        """float32 [h, w]: what of a tile's mask the network is told, which is given a guess of what
        lies deep in it."""
        holes, deep = self._holes(number), self._deep
        if deep is None:
            return holes
        return holes.masked_fill(torch.from_numpy(deep.places[self._within(number)]), 0.0)


def enlarged(image: np.ndarray, scale: int) -> np.ndarray:
    """[H, W, C] with each pixel as many times down and across."""
    return image.repeat(scale, 0).repeat(scale, 1) if scale > 1 else image


def smoothly_enlarged(alpha: np.ndarray, scale: int) -> np.ndarray:
    """[H, W, 0 or 1], its edges as smooth as those of what is enlarged beside it."""
    if scale == 1 or not alpha.size:
        return enlarged(alpha, scale)
    height, width = alpha.shape[:2]
    plane = Image.fromarray(alpha[..., 0])
    plane = plane if alpha.dtype == np.uint8 else plane.convert("F")
    sides = width * scale, height * scale
    made = np.asarray(plane.resize(sides, Image.Resampling.BICUBIC))
    if made.dtype != alpha.dtype:  # floats
        made = made.round().clip(0, np.iinfo(alpha.dtype).max).astype(alpha.dtype)
    return made[..., None]


def stacked(parts: Sequence[Tensor]) -> Tensor:
    """[N, ...] of N tensors, the channels of images last where theirs are; of one a view."""
    rows = [each[None] for each in parts]
    return rows[0] if len(rows) == 1 else torch.cat(rows)


def turned(values: Tensor, turn: int) -> Tensor:
    """[..., h, w] in one of the square's eight symmetries."""
    if not turn:
        return values
    flipped = values.flip(-1) if turn >= 4 else values
    return flipped.rot90(turn % 4, (-2, -1))


def turned_back(values: Tensor, turn: int) -> Tensor:
    straight = values.rot90(-(turn % 4), (-2, -1))
    return straight.flip(-1) if turn >= 4 else straight


def least_tile(margin: int, stride: int) -> int:
    """The side of the smallest tiles, of which at least half is no margin."""
    return -(-max(4 * margin, 1) // stride) * stride


def fitting_tile(side: int, margin: int, stride: int) -> int:
    """The next side upwards of tiles that large images can be cut into."""
    return max(-(-side // stride) * stride, least_tile(margin, stride))


def tiles_of(
    shape: tuple[int, int],
    tile: int | Literal["auto"],
    margin: int,
    stride: int,
    most: int = TILE,
) -> tuple[list[Span], list[Span]]:
    """Tiles of an image of a shape, down and across; see genimg.tiles.spans.

    tile: where it is too small for its margins, or no multiple of the stride, a larger one is taken
    most: pixels of a tile, where its side is not given; huge images have HUGE_TILE
    """
    padded = [-(-length // stride) * stride for length in shape]
    if tile == "auto":
        most = most if shape[0] * shape[1] < HUGE else min(most, HUGE_TILE)
        sides = cheapest(padded, most, margin, stride)
    else:
        side = tile or max(shape)
        if max(shape) > side:
            side = fitting_tile(side, margin, stride)
        sides = (-(-side // stride) * stride,) * 2
    down, across = (
        list(spans(length, max(each, 2 * margin + stride), margin))
        for length, each in zip(padded, sides, strict=True)
    )
    return down, across


def cheapest(padded: Sequence[int], most: int, margin: int, stride: int) -> tuple[int, int]:
    """Sides of tiles of at most so many pixels, or of the smallest: those that cost least."""
    least = least_tile(margin, stride)
    heights, widths = ([*cuts(length, least, margin, stride)] for length in padded)
    costs = [
        (max(height * width - most, 0), height * width * count, count, height, width)
        for rows, height in heights
        for columns, width in widths
        for count in (rows * columns,)
    ]
    return min(costs)[3:]


def cuts(length: int, least: int, margin: int, stride: int) -> Iterator[tuple[int, int]]:
    """(tiles, their side) of all ways to cut a length evenly."""
    yield 1, length
    if length <= least:
        return
    for count in range(2, 2 + (length - 2 * margin) // (least - 2 * margin)):
        side = -(-(length - 2 * margin) // count) + 2 * margin
        yield count, max(-(-side // stride) * stride, least)
