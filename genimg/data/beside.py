"""Columns beside the pixels: numbers, texts, and boxes around objects."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor

from genimg.augmentations import Mix, Places, Warp
from genimg.data.fitting import Place
from genimg.data.grids import Encode
from genimg.images import BrokenImage, Channels

BYTES = 256  # of a text, at most
BOXES = 100  # of an image, at most; no image of COCO has more
SIDE = 4  # points of a side of a box that is warped
SEEN = 0.25  # of a box's area, at least, lest it be gone where its image is cut


class _Beside:
    """What numbers and texts have in common: whatever becomes of the image, they stay the same."""

    on_grid = False

    def fitted(self, value: Any, place: Place) -> Any:
        return value

    def cropped(self, values: Tensor, corners: Tensor, size: int) -> Tensor:
        return values

    def turned(self, values: Tensor, symmetry: Tensor, size: tuple[int, int]) -> Tensor:
        return values

    def warped(self, values: Tensor, warp: Warp) -> Tensor:
        return values

    def mixed(self, values: Tensor, others: Tensor, mix: Mix) -> Tensor:
        raise AssertionError("augmentations refuse it")

    def ready(self, values: Tensor) -> Tensor:
        return values.long()


class Number(_Beside):
    """A class an image; once images are mixed float32 [N, classes], the share of each."""

    stored = pa.int64()
    kind: type[np.generic] = np.int64
    classed = True
    remedy = "put the images into one folder a class"

    def accepts(self, kind: pa.DataType) -> bool:
        return pa.types.is_integer(kind)

    def decoded(self, stored: Any, channels: Channels | None = None) -> int:
        return int(stored)

    def encoded(self, value: int, encode: Encode) -> int:
        return value

    def highest(self, value: int) -> int:
        return value

    def row(self, fitted: int) -> np.ndarray:
        return np.array(fitted, np.int64)

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        return ()

    def mixed(self, values: Tensor, others: Tensor, mix: Mix) -> Tensor:
        assert mix.share is not None
        return torch.lerp(values, others, mix.share[:, None])

    def ready(self, values: Tensor) -> Tensor:
        return values if values.is_floating_point() else values.long()


class Words(_Beside):
    """A text an image, stored as a string; a row is its tokens: UTF-8 bytes + 1, 0 behind the last.

    A text of more than BYTES bytes is cut behind a whole character. However its accents are written
    in files, tokens are those of the form that is typed.
    """

    stored = pa.string()
    kind: type[np.generic] = np.uint8
    classed = False
    remedy = 'put captions.jsonl beside the images, each line {"file_name": "1.png", "text": "…"}'

    def accepts(self, kind: pa.DataType) -> bool:
        return pa.types.is_string(kind) or pa.types.is_large_string(kind)

    def decoded(self, stored: Any, channels: Channels | None = None) -> str:
        return str(stored)

    def encoded(self, value: str, encode: Encode) -> str:
        return value

    def highest(self, value: str) -> int:
        return -1

    def row(self, fitted: str) -> np.ndarray:
        whole = composed(fitted).encode()[:BYTES].decode(errors="ignore").encode()
        row = np.zeros(BYTES, np.uint8)
        row[: len(whole)] = np.frombuffer(whole, np.uint8) + 1  # no byte of UTF-8 is 255
        return row

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        return (BYTES,)


def composed(text: str) -> str:
    """In the form of Unicode that is typed."""
    return unicodedata.normalize("NFC", text)


class Boxes:
    """Objects of an image, float32 [M, 5]: class, x0, y0, x1, y1 in pixels from its upper left.

    A row has BOXES of them, those that there are not being -1, 0, 0, 0, 0. Of a box that is cut
    the rest is kept, if it is SEEN of it.
    """

    stored = pa.list_(pa.list_(pa.float32()))
    kind: type[np.generic] = np.float32
    on_grid = False
    classed = True
    remedy = (
        "put annotations.json beside the images, or in annotations/ (COCO's format: images,"
        " annotations with bbox, categories)"
    )

    def accepts(self, kind: pa.DataType) -> bool:
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        inner = kind.value_type if lists else pa.null()
        listed = pa.types.is_list(inner) or pa.types.is_fixed_size_list(inner)
        number = inner.value_type if listed else pa.null()
        return pa.types.is_floating(number) or pa.types.is_integer(number)

    def decoded(self, stored: Any, channels: Channels | None = None) -> np.ndarray:
        try:
            boxes = np.array(stored, np.float32)
        except (TypeError, ValueError):
            raise BrokenImage("its boxes are not lists of five numbers") from None
        if not boxes.size:
            return np.empty((0, 5), np.float32)
        if boxes.shape[1:] != (5,) or not np.isfinite(boxes).all():
            raise BrokenImage("its boxes are not lists of class, x0, y0, x1, y1")
        if len(boxes) > BOXES:
            raise BrokenImage(f"has {len(boxes)} boxes; at most {BOXES} are taken")
        if boxes[:, 0].min() < 0 or (boxes[:, 0] % 1).any():
            raise BrokenImage("has a box of a class that is not 0, 1, 2, …")
        return boxes

    def encoded(self, value: np.ndarray, encode: Encode) -> list[list[float]]:
        return value.tolist()

    def highest(self, value: np.ndarray) -> int:
        return int(value[:, 0].max()) if len(value) else -1

    def fitted(self, value: np.ndarray, place: Place) -> np.ndarray:
        (height, width), (top, left) = place.image, place.corner
        ratio = np.array([place.scaled[1] / width, place.scaled[0] / height], np.float32)
        boxes = torch.from_numpy(value.copy())
        boxes[:, 1:] *= torch.from_numpy(np.tile(ratio, 2))
        boxes[:, 1:] -= torch.tensor([left, top, left, top])
        kept = clipped(boxes, place.window).numpy()
        return kept[kept[:, 0] >= 0]

    def row(self, fitted: np.ndarray) -> np.ndarray:
        row = np.zeros((BOXES, 5), np.float32)
        row[:, 0] = -1
        row[: len(fitted)] = fitted
        return row

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        return (BOXES, 5)

    def cropped(self, values: Tensor, corners: Tensor, size: int) -> Tensor:
        moved = values.clone()
        moved[..., 1:] -= corners.flip(1).repeat(1, 2)[:, None]
        return clipped(moved, (size, size))

    def turned(self, values: Tensor, symmetry: Tensor, size: tuple[int, int]) -> Tensor:
        height, width = size
        by = symmetry[:, None]
        kind, x0, y0, x1, y1 = values.unbind(-1)
        x0, x1 = mirrored(x0, x1, width, by & 1 > 0)
        y0, y1 = mirrored(y0, y1, height, by & 2 > 0)
        across = by & 4 > 0
        x0, y0 = torch.where(across, y0, x0), torch.where(across, x0, y0)
        x1, y1 = torch.where(across, y1, x1), torch.where(across, x1, y1)
        corners = torch.stack([x0, y0, x1, y1], dim=-1) * (kind >= 0)[..., None]
        return torch.cat([kind[..., None], corners], dim=-1)

    def warped(self, values: Tensor, warp: Warp) -> Tensor:
        """Around what has become of boxes, which may be more than what is in them has become."""
        size = warp.sources.shape[1]
        kind, low, high = values[..., :1], values[..., None, 1:3], values[..., None, 3:]
        border = outline().to(values.device)
        points = (low + (high - low) * border).flatten(1, 2)
        seen = warp.moved(points).unflatten(1, (-1, len(border)))
        around = torch.cat([kind, seen.amin(dim=2), seen.amax(dim=2)], dim=-1)
        return clipped(torch.where(kind >= 0, around, values), (size, size))

    def mixed(self, values: Tensor, others: Tensor, mix: Mix) -> Tensor:
        """Its own, around what is still seen, and those that come along with what is pasted.

        Of those of which less than SEEN of their pixels are seen nothing is left.
        """
        assert mix.given is not None
        assert mix.objects is not None
        left = mix.objects & (mix.weights[:, 0] == 0)
        places = Places.of(values, left.shape[1:])
        before, seen = places.pixels(mix.objects), places.pixels(left)
        shrunk = torch.cat([values[..., :1], places.around(left)], dim=-1)
        none = torch.zeros_like(values)
        none[..., 0] = -1
        mine = torch.where((seen < before)[..., None], shrunk, values)
        mine = torch.where((seen >= SEEN * before)[..., None], mine, none)
        both = torch.cat([mine, torch.where(mix.given[..., None], others, none)], dim=1)
        first = (both[..., 0] < 0).to(torch.uint8).argsort(dim=1, stable=True)
        return both.take_along_dim(first[:, : values.shape[1], None], dim=1)

    def ready(self, values: Tensor) -> Tensor:
        return values


def outline() -> Tensor:
    """float32 [4 SIDE, 2]: points of the unit square's border, SIDE a side."""
    along = torch.arange(SIDE) / SIDE
    near, far = torch.zeros(SIDE), torch.ones(SIDE)
    across = torch.cat([along, far, 1 - along, near])
    down = torch.cat([near, along, far, 1 - along])
    return torch.stack([across, down], dim=-1)


def mirrored(low: Tensor, high: Tensor, length: int, by: Tensor) -> tuple[Tensor, Tensor]:
    """Both ends of spans, of which those in `by` are mirrored within `length`."""
    return torch.where(by, length - high, low), torch.where(by, length - low, high)


def clipped(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 5] cut at the borders of (height, width); those too little of which is left are
    -1, 0, 0, 0, 0."""
    height, width = size
    kind, x0, y0, x1, y1 = boxes.unbind(-1)
    left, right = x0.clamp(0, width), x1.clamp(0, width)
    top, bottom = y0.clamp(0, height), y1.clamp(0, height)
    area = (right - left).clamp(min=0) * (bottom - top).clamp(min=0)
    kept = (kind >= 0) & (area > 0) & (area >= SEEN * (x1 - x0) * (y1 - y0))
    cut = torch.stack([kind, left, top, right, bottom], dim=-1)
    none = torch.zeros_like(cut)
    none[..., 0] = -1
    return torch.where(kept[..., None], cut, none)
