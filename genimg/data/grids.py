"""Columns that have a value for each pixel of their image: pictures and masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np
import pyarrow as pa
import torch
from PIL import Image
from torch import Tensor

from genimg import images, masks, moving
from genimg.augmentations import Mix, Warp
from genimg.contracts import UNKNOWN
from genimg.data.fitting import Place, laid
from genimg.images import BrokenImage, Channels

FRAMES = moving.GONE_BY  # of a clip: Moving-MNIST gives ten, and ten follow
Encode = Callable[[np.ndarray], bytes]  # how shards are to hold pictures


class _OnGrid:
    """What pictures and masks have in common: pixels beside pixels."""

    stored = pa.binary()
    kind: type[np.generic] = np.uint8
    on_grid = True
    between: Literal["bilinear", "nearest"] = "bilinear"  # of what is seen between pixels

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

    def warped(self, values: Tensor, warp: Warp) -> Tensor:
        return warp.sampled(values, self.between)

    def mixed(self, values: Tensor, others: Tensor, mix: Mix) -> Tensor:
        made = torch.lerp(values.float(), others.float(), mix.weights)
        return made.round_().to(torch.uint8)


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
    between = "nearest"
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

    def mixed(self, values: Tensor, others: Tensor, mix: Mix) -> Tensor:
        return torch.where(mix.weights > 0.5, others, values)

    def ready(self, values: Tensor) -> Tensor:
        return values[:, 0].long()


class Clip(_OnGrid):
    """Pictures that follow one another: FRAMES of them, as the channels of one.

    stored as a list of encoded images, or of one that is animated; of a longer one the first
    FRAMES, of a shorter one the last again and again
    """

    stored = pa.list_(pa.binary())
    classed = False
    remedy = (
        "put each clip into a folder of its frames, or into an animated GIF or WebP, or all into a"
        " .npy of [T, N, H, W]"
    )

    def accepts(self, kind: pa.DataType) -> bool:
        lists = pa.types.is_list(kind) or pa.types.is_large_list(kind)
        return lists and super().accepts(kind.value_type)

    def decoded(self, stored: list[bytes], channels: Channels | None = None) -> np.ndarray:
        several = [moving.decode(data, channels, FRAMES) for data in stored[:FRAMES]]
        if len(several) > 1 and max(map(len, several)) > 1:
            raise BrokenImage("of its files one is animated; give each such file a folder")
        frames = [frame for each in several for frame in each]
        if len(frames) < 2:
            raise BrokenImage("has fewer than two frames")
        if len({frame.shape for frame in frames}) > 1:
            raise BrokenImage("its frames differ in size or channels")
        return joined(frames)

    def encoded(self, value: np.ndarray, encode: Encode) -> list[bytes]:
        return [encode(frame) for frame in np.split(value, FRAMES, axis=2)]

    def highest(self, value: np.ndarray) -> int:
        return -1

    def fitted(self, value: np.ndarray, place: Place) -> np.ndarray:
        frames = np.split(value, FRAMES, axis=2)
        laid_out = [laid(frame, place, Image.Resampling.LANCZOS) for frame in frames]
        return np.concatenate(laid_out, axis=2)

    def shape(self, size: int, channels: int) -> tuple[int, ...]:
        return FRAMES * channels, size, size

    def ready(self, values: Tensor) -> Tensor:
        frames = values.unflatten(1, (FRAMES, -1)).to(torch.float32)
        return frames.mul_(2 / 255).sub_(1)


def joined(frames: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 [H, W, FRAMES * C] of frames [H, W, C]: the first, or the last again and again."""
    last = frames[min(len(frames), FRAMES) - 1]
    return np.concatenate([*frames[:FRAMES], *[last] * (FRAMES - len(frames))], axis=2)
