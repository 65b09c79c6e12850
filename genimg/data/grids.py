"""Columns that have a value for each pixel of their image: pictures and masks."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from genimg import images, masks
from genimg.contracts import UNKNOWN
from genimg.data.fitting import Place, laid
from genimg.images import Channels

Encode = Callable[[np.ndarray], bytes]  # how shards are to hold pictures


class _OnGrid:
    """What pictures and masks have in common: pixels beside pixels."""

    stored = pa.binary()
    kind: type[np.generic] = np.uint8
    on_grid = True

    def accepts(self, kind: pa.DataType) -> bool:
        return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)

    def row(self, fitted: np.ndarray) -> np.ndarray:
        return fitted.transpose(2, 0, 1)

    def cropped(self, values: Tensor, corners: Tensor, size: int) -> Tensor:
        raise AssertionError("it is cut as its image is")

    def turned(self, values: Tensor, symmetry: Tensor, size: tuple[int, int]) -> Tensor:
        # two mirrors and a transposition: their eight combinations are the symmetries of the square
        by = symmetry[:, None, None, None]
        values = torch.where(by & 1 > 0, values.flip(-1), values)
        values = torch.where(by & 2 > 0, values.flip(-2), values)
        if size[0] != size[1]:
            return values
        return torch.where(by & 4 > 0, values.transpose(-1, -2), values)


class Pixels(_OnGrid):
    """Pictures: gray or RGB, resampled by Lanczos's filter."""

    classed = False

    def __init__(self, remedy: str) -> None:
        self.remedy = remedy

    def decoded(self, stored: bytes, channels: Channels | None = None) -> np.ndarray:
        return images.decode(stored, channels)

    def encoded(self, value: np.ndarray, encode: Encode) -> bytes:
        return encode(value)

    def highest(self, value: np.ndarray) -> int:
        return -1

    def fitted(self, value: np.ndarray, place: Place) -> np.ndarray:
        return laid(value, place, Image.Resampling.LANCZOS)

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        return channels, size, size

    def ready(self, values: Tensor) -> Tensor:
        floats = values.to(torch.float32, memory_format=torch.channels_last)
        return floats.mul_(2 / 255).sub_(1)


class Classes(_OnGrid):
    """Masks: a class a pixel, resampled to the nearest. What padding adds is of class 0."""

    classed = True
    remedy = (
        "put the images into a folder images/ and their masks, of equal names, into masks/ beside"
        " it (indexed PNG)"
    )

    def decoded(self, stored: bytes, channels: Channels | None = None) -> np.ndarray:
        return masks.decode(stored)

    def encoded(self, value: np.ndarray, encode: Encode) -> bytes:
        return masks.encode(value)

    def highest(self, value: np.ndarray) -> int:
        known = value[value != UNKNOWN]
        return int(known.max()) if known.size else -1

    def fitted(self, value: np.ndarray, place: Place) -> np.ndarray:
        return laid(value, place, Image.Resampling.NEAREST)

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        return 1, size, size

    def ready(self, values: Tensor) -> Tensor:
        return values[:, 0].long()
