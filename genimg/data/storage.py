"""How pixels lie in memory: images of one size as one array, images of any sizes end to end."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genimg.rng import fold, integers

CROP = 0x63726F70  # folded into an image's key, so that crops share no numbers with other draws


@dataclass(frozen=True)
class Square:
    """Images of one size: uint8 [N, C, S, S]."""

    pixels: Tensor

    @property
    def channels(self) -> int:
        return self.pixels.shape[1]

    @property
    def size(self) -> int:
        return self.pixels.shape[2]

    @property
    def shapes(self) -> list[tuple[int, int]]:
        """(height, width) of every image."""
        return [(self.size, self.size)] * len(self)

    def __len__(self) -> int:
        return len(self.pixels)

    def fetch(self, rows: Tensor, keys: Tensor) -> Tensor:
        """uint8 [M, C, S, S] at int64 `rows`; nothing here is random."""
        return self.pixels[rows]

    def whole(self, row: int) -> Tensor:
        return self.pixels[row]

    def to(self, device: torch.device | str) -> Square:
        return Square(self.pixels.to(device))


@dataclass(frozen=True)
class Ragged:
    """Images of any sizes, out of which `size` x `size` is cropped.

    pixels:  uint8 [total], each image's [C, H, W] after the other's
    offsets, heights, widths: int64 [N]; no side below `size`
    """

    pixels: Tensor
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
            pixels=torch.from_numpy(pixels),
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

    def fetch(self, rows: Tensor, keys: Tensor) -> Tensor:
        """uint8 [M, C, size, size]: a crop of each of `rows`, where its key (int64 [M]) says.

        One gather of lines of `size` bytes: the index is `size` times smaller than the result.
        """
        heights, widths = self.heights[rows], self.widths[rows]
        room = torch.stack([heights, widths], dim=1) - self.size + 1
        top, left = integers(fold(keys, CROP), room, (2,)).unbind(1)

        channel = torch.arange(self.channels, device=rows.device)[None, :, None]
        line = torch.arange(self.size, device=rows.device)[None, None, :]
        lines = channel * heights[:, None, None] + top[:, None, None] + line
        starts = lines * widths[:, None, None] + (self.offsets[rows] + left)[:, None, None]
        return self.pixels.unfold(0, self.size, 1)[starts]

    def whole(self, row: int) -> Tensor:
        start, height, width = (int(x[row]) for x in (self.offsets, self.heights, self.widths))
        end = start + self.channels * height * width
        return self.pixels[start:end].view(self.channels, height, width)

    def to(self, device: torch.device | str) -> Ragged:
        names = ("pixels", "offsets", "heights", "widths")
        return replace(self, **{name: getattr(self, name).to(device) for name in names})
