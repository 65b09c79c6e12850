"""Clips that come as one array: Moving-MNIST's .npy."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from genimg.data.grids import FRAMES, joined
from genimg.errors import InputError
from genimg.images import Channels
from genimg.pixels import with_channels


class ClipSource:
    """A Source (see genimg.data.sources) of uint8 [T, N, H, W, C] with C = 1 or 3, T at least 2."""

    columns = ("image", "frames")
    classes: Mapping[str, tuple[str, ...]] = {}
    labels: np.ndarray | None = None
    has_split = False
    nbytes = 0  # the file stays where it is

    def __init__(self, name: str, clips: np.ndarray) -> None:
        self._clips = clips
        self.names = [f"{name}[{i}]" for i in range(clips.shape[1])]

    def __len__(self) -> int:
        return len(self.names)

    def read(self, index: int, column: str = "image", channels: Channels | None = None) -> Any:
        def frame(number: int) -> np.ndarray:
            pixels = np.array(self._clips[number, index])
            return pixels if channels is None else with_channels(pixels, channels)

        if column == "image":
            return frame(0)
        return joined([frame(number) for number in range(min(len(self._clips), FRAMES))])

    def measure(self, index: int) -> tuple[int, int]:
        height, width = self._clips.shape[2:4]
        return width, height

    def encoded(self, index: int, column: str = "image") -> None:
        return None

    def part(self, indices: np.ndarray) -> None:
        return None

    def states(self) -> Iterator[tuple[int, ...]]:
        return iter(())  # that of its file says it


def open_npy(file: Path) -> ClipSource:
    """A .npy of uint8 clips [T, N, H, W], as Moving-MNIST has them, or [T, N, H, W, 1 or 3].

    Every split is all of it. Pickled objects are refused.
    """
    try:
        clips = np.load(file, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise InputError(f"{file}: not a readable .npy ({error})") from error
    shaped = clips[..., None] if clips.ndim == 4 else clips
    if clips.dtype != np.uint8 or shaped.ndim != 5 or shaped.shape[4] not in (1, 3):
        shape = "x".join(map(str, clips.shape))
        raise InputError(
            f"{file}: is {clips.dtype} {shape}; must be uint8 [T, N, H, W], or [T, N, H, W, 1 or 3]"
        )
    if shaped.shape[0] < 2 or 0 in shaped.shape:
        raise InputError(f"{file}: has {shaped.shape[0]} frames of {shaped.shape[1]} clips")
    return ClipSource(file.name, shaped)
