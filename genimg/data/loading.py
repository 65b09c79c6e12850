"""A source of images, decoded and fitted into memory by many threads."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor

from genimg.data.columns import COLUMNS, fit_values
from genimg.data.fitting import Fit
from genimg.data.memory import Images
from genimg.data.sources import Source
from genimg.data.storage import Ragged
from genimg.errors import InputError
from genimg.images import BrokenImage, Channels
from genimg.labels import number_names

CHUNK = 64  # images that a thread reads at a time


@dataclass(frozen=True)
class BrokenReport:
    """The images that could not be read and were left out: names and reasons, in order."""

    names: tuple[str, ...] = ()
    reasons: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.names)

    def __str__(self) -> str:
        listed = "; ".join(f"{n}: {r}" for n, r in zip(self.names, self.reasons, strict=True))
        return f"{len(self)} unreadable: {listed}" if listed else "none unreadable"


def load_images(
    source: Source,
    columns: tuple[str, ...] = ("image",),
    *,
    channels: Channels,
    size: int,
    fit: Fit,
    tolerate_broken: int = 0,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Images, BrokenReport]:
    """All images of a source with their `columns`, and which ones could not be read.

    fit: `resize` brings the short side to `size` (Lanczos) and crops the centre; `pad` centres
    on black, reducing what is larger; `crop` keeps images whole for random crops.
    progress: called with (images read, of how many), from the calling thread.

    Raises InputError where more than `tolerate_broken` images cannot be read, or where one is
    too small to be cropped from.
    """
    held = held_columns(source, columns)
    kept: list[str] = []
    broken: list[BrokenImage] = []
    arrays = {name: Growing(name, len(source), channels, size, fit) for name in held}
    for index, rows in enumerate(_read_all(source, held, channels, size, fit)):
        if isinstance(rows, BrokenImage):
            broken.append(rows)
            if len(broken) > tolerate_broken:
                raise _too_many(broken, tolerate_broken)
        else:
            for name, row in rows.items():
                arrays[name].put(len(kept), row)
            kept.append(source.names[index])
        if progress and ((index + 1) % CHUNK == 0 or index + 1 == len(source)):
            progress(index + 1, len(source))
    if not kept:
        raise InputError(f"none of the {len(source)} images can be read, first {broken[0]}")

    stored = {name: array.joined(len(kept)) for name, array in arrays.items()}
    report = BrokenReport(tuple(b.name for b in broken), tuple(b.reason for b in broken))
    return Images(stored, source.classes, columns, tuple(kept)).to(device), report


def held_columns(source: Source, columns: tuple[str, ...]) -> tuple[str, ...]:
    """What is held in memory: the columns, and labels, by which images are chosen."""
    more = "label" in source.columns and "label" not in columns
    return (*columns, "label") if more else columns


def numbered(sources: Iterable[Source], column: str) -> tuple[str, ...]:
    """'0', '1', … up to the highest class in a column of sources, which is read for it."""
    highest = -1
    with ThreadPoolExecutor(min(16, os.cpu_count() or 1)) as pool:
        for source in sources:
            every = pool.map(partial(_highest, source, column), range(len(source)))
            highest = max(highest, *every)
    return number_names(highest, f"column {column}")


def _highest(source: Source, column: str, index: int) -> int:
    try:
        return COLUMNS[column].highest(source.read(index, column))
    except BrokenImage:  # which comes to light when it is loaded
        return -1


class Growing:
    """A column in memory as it is filled; images of any sizes are joined at the end."""

    def __init__(self, name: str, count: int, channels: Channels, size: int, fit: Fit) -> None:
        column = COLUMNS[name]
        self.size = size
        self.whole: list[np.ndarray] = []
        self.ragged = fit == "crop" and column.on_grid
        shape = column.shape(size, channels)
        self.rows = np.empty((0 if self.ragged else count, *shape), column.kind)

    def put(self, place: int, row: np.ndarray) -> None:
        if self.ragged:
            self.whole.append(row)
        else:
            self.rows[place] = row

    def joined(self, count: int) -> Tensor | Ragged:
        if self.ragged:
            return Ragged.joined(self.whole, self.size)
        return torch.from_numpy(self.rows[:count])


def _read_all(
    source: Source, columns: tuple[str, ...], channels: Channels, size: int, fit: Fit
) -> Iterator[dict[str, np.ndarray] | BrokenImage]:
    """The rows of every image, or why not, in order; Pillow decodes without the GIL."""

    def read(start: int) -> list[dict[str, np.ndarray] | BrokenImage]:
        indices = range(start, min(start + CHUNK, len(source)))
        return [_read(source, index, columns, channels, size, fit) for index in indices]

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        for chunk in pool.map(read, range(0, len(source), CHUNK)):
            yield from chunk
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    source: Source, index: int, columns: tuple[str, ...], channels: Channels, size: int, fit: Fit
) -> dict[str, np.ndarray] | BrokenImage:
    try:
        values = {name: source.read(index, name, channels) for name in columns}
        fitted = fit_values(values, size, fit, lambda: source.names[index], source.classes)
    except BrokenImage as error:
        return error if error.name else BrokenImage(error.reason, source.names[index])
    rows = {name: COLUMNS[name].row(value) for name, value in fitted.items()}
    return {name: np.asarray(row, order="C") for name, row in rows.items()}


def _too_many(broken: list[BrokenImage], tolerated: int) -> InputError:
    first = "; ".join(str(error) for error in broken[:3])
    more = "; …" if len(broken) > 3 else ""
    return InputError(
        f"data.tolerate_broken={tolerated}: more than that cannot be read ({first}{more});"
        " repair or remove them, or tolerate more"
    )
