"""How columns lie in memory: images of one size as one array, images of any sizes end to end."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Protocol, Self

import numpy as np
import torch
from torch import Tensor

from genimg.data.columns import Column
from genimg.rng import fold, integers

CROP = 0x63726F70  # folded into an image's key, so that crops share no numbers with other draws


def corners(sides: Tensor, keys: Tensor, size: int) -> Tensor:
    """int64 [M, 2]: top and left of random crops, each by its key (int64 [M]).

    sides: int64 [M, 2], height and width of each image, neither below `size`
    """
    return integers(fold(keys, CROP), sides - size + 1, (2,))


class Store(Protocol):
    """A column of N images in memory, on one device."""

    @property
    def content(self) -> Tensor: ...

    def fetch(self, rows: Tensor, corners: Tensor | None) -> Tensor:
        """Those of int64 `rows` [M]; beside crops at `corners` (int64 [M, 2]), where there are."""
        ...

    def whole(self, row: int) -> Tensor:
        """That of one image, uncropped; a view, not to be written to."""
        ...

    def to(self, device: torch.device | str) -> Self: ...

    def __len__(self) -> int: ...


@dataclass(frozen=True)
class Beside:
    """What is not pixels: rows [N, ...] of a column; where images are cropped, to `size`."""

    content: Tensor
    column: Column
    size: int

    def __len__(self) -> int:
        return len(self.content)

    def fetch(self, rows: Tensor, corners: Tensor | None) -> Tensor:
        values = self.content[rows]
        return values if corners is None else self.column.cropped(values, corners, self.size)

    def whole(self, row: int) -> Tensor:
        return self.content[row]

    def to(self, device: torch.device | str) -> Beside:
        return replace(self, content=self.content.to(device))


@dataclass(frozen=True)
class Square:
    """Images of one size: uint8 [N, C, S, S]."""

    content: Tensor

    @property
    def channels(self) -> int:
        return self.content.shape[1]

    @property
    def size(self) -> int:
        return self.content.shape[2]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every image."""
        return [(self.size, self.size)] * len(self)

    def __len__(self) -> int:
        return len(self.content)

    def fetch(self, rows: Tensor, corners: Tensor | None) -> Tensor:
        """uint8 [M, C, S, S]."""
        return self.content[rows]

    def whole(self, row: int) -> Tensor:
        return self.content[row]

    def to(self, device: torch.device | str) -> Square:
        return Square(self.content.to(device))


@dataclass(frozen=True)
class Ragged:
    """Images of any sizes, out of which `size` x `size` is cropped.

    content: uint8 [total], each image's [C, H, W] after the other's
    offsets, heights, widths: int64 [N]; no side below `size`
    """

    content: Tensor
    offsets: Tensor
    heights: Tensor
    widths: Tensor
    channels: int
    size: int

    @classmethod
    def joined(cls, images: list[np.ndarray], size: int) -> Ragged:
        """Of uint8 [C, H, W] arrays; empties the list as it goes, so as not to hold all twice."""
        shapes = torch.tensor([image.shape for image in images])
        assert int(shapes[:, 1:].min()) >= size, "an image is smaller than its crops"
        lengths = shapes.prod(dim=1)
        ends = lengths.cumsum(0)
        pixels = np.empty(int(ends[-1]), np.uint8)  # the system provides its pages when written
        for end in reversed(ends.tolist()):
            image = images.pop()
            pixels[end - image.size : end] = image.reshape(-1)
        return cls(
            content=torch.from_numpy(pixels),
            offsets=ends - lengths,
            heights=shapes[:, 1].contiguous(),
            widths=shapes[:, 2].contiguous(),
            channels=int(shapes[0, 0]),
            size=size,
        )

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every image."""
        return list(zip(self.heights.tolist(), self.widths.tolist(), strict=True))

    def __len__(self) -> int:
        return len(self.offsets)

    def corners(self, rows: Tensor, keys: Tensor) -> Tensor:
        """int64 [M, 2]: where to crop each of `rows`, as its key (int64 [M]) says."""
        sides = torch.stack([self.heights[rows], self.widths[rows]], dim=1)
        return corners(sides, keys, self.size)

    def fetch(self, rows: Tensor, corners: Tensor | None) -> Tensor:
        """uint8 [M, C, size, size].

        One gather of lines of `size` bytes: the index is `size` times smaller than the result.
        """
        assert corners is not None, "images of any sizes are cropped"
        heights, widths = self.heights[rows], self.widths[rows]
        top, left = corners.unbind(1)
        channel = torch.arange(self.channels, device=rows.device)[None, :, None]
        line = torch.arange(self.size, device=rows.device)[None, None, :]
        lines = channel * heights[:, None, None] + top[:, None, None] + line
        starts = lines * widths[:, None, None] + (self.offsets[rows] + left)[:, None, None]
        return self.content.unfold(0, self.size, 1)[starts]

    def whole(self, row: int) -> Tensor:
        start, height, width = (int(x[row]) for x in (self.offsets, self.heights, self.widths))
        end = start + self.channels * height * width
        return self.content[start:end].view(self.channels, height, width)

    def to(self, device: torch.device | str) -> Ragged:
        names = ("content", "offsets", "heights", "widths")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})
