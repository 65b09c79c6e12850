"""Images held in memory as uint8: the Dataset of every set that fits there, and its loading."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from genimg.data.choice import RULE, balanced_choice, balanced_order
from genimg.data.fitting import Fit, fitted, too_small
from genimg.data.sources import Source
from genimg.data.storage import Ragged, Square
from genimg.data.transfer import to_device
from genimg.errors import InputError
from genimg.images import BrokenImage, with_channels
from genimg.rng import fold, seed_from

HOLDOUT = 0x686F6C64  # seeds which images are held out; the same in every training
CHUNK = 64  # images that a thread reads at a time


class Images:
    """The Dataset (see genimg.contracts) of images in memory, on one device.

    pixels: uint8 [N, C, S, S], or Ragged where random crops are taken
    labels: int64 [N] or None
    """

    def __init__(
        self,
        pixels: Tensor | Ragged,
        labels: Tensor | None = None,
        classes: tuple[str, ...] = (),
    ) -> None:
        self._store = Square(pixels) if isinstance(pixels, Tensor) else pixels
        assert self._store.pixels.dtype == torch.uint8, self._store.pixels.dtype
        assert labels is None or len(labels) == len(self._store), (len(labels), len(self._store))
        self._labels = labels
        self._rows = np.arange(len(self._store))  # what a subset has fewer of
        self.channels = self._store.channels
        self.size = self._store.size
        self.classes = classes
        self.fingerprint = _digest(self._store, labels, classes)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def device(self) -> torch.device:
        return self._store.pixels.device

    @property
    def nbytes(self) -> int:
        """Bytes that the pixels take, shared with other subsets."""
        return self._store.pixels.nbytes

    @property
    def labels(self) -> Tensor | None:
        """int64 [N], in the order of the indices."""
        return None if self._labels is None else self._labels[self._on_device(self._rows)]

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        """int64 indices at int64 `positions` of the endless order; each epoch a permutation."""
        epochs, places = np.divmod(positions, len(self))
        indices = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs):  # one or two, unless a batch exceeds the set
            here = epochs == epoch
            indices[here] = epoch_order(len(self), seed, int(epoch))[places[here]]
        return indices

    def fetch(self, indices: np.ndarray, keys: Tensor) -> tuple[Tensor, Tensor | None]:
        """(uint8 [N, C, size, size], int64 [N] or None); `keys` int64 [N] decide the crops."""
        rows = self._on_device(self._rows[indices])
        images = self._store.fetch(rows, keys.to(self.device))
        return images, None if self._labels is None else self._labels[rows]

    def whole(self, index: int) -> Tensor:
        """One image uint8 [C, H, W] before any crop; a view, not to be written to."""
        return self._store.whole(int(self._rows[index]))

    def subset(self, indices: np.ndarray) -> Images:
        """The images at int64 `indices`, in that order; shares the pixels."""
        part = copy.copy(self)
        part._rows = self._rows[indices]
        part.fingerprint = hashlib.sha256(
            self.fingerprint.encode() + indices.astype("<i8").tobytes()
        ).hexdigest()
        return part

    def choose(self, count: int) -> np.ndarray:
        """int64 indices, ascending, of `count` images that stand for all: see balanced_choice."""
        return balanced_choice(count, len(self), self._label_numbers())

    def hold_out(self, count: int) -> tuple[Images, Images]:
        """(the others, `count` images), each with its share of every class.

        A choice that depends on nothing but the count and the labels; more of them are these
        and others.
        """
        if count >= len(self):
            raise InputError(
                f"data.holdout={count}: there are only {len(self)} images; hold out fewer"
            )
        order = balanced_order(len(self), self._label_numbers(), seed_from(HOLDOUT, 0))
        return self.subset(np.sort(order[count:])), self.subset(np.sort(order[:count]))

    def _label_numbers(self) -> np.ndarray | None:
        return None if self.labels is None else self.labels.cpu().numpy()

    def to(self, device: torch.device | str) -> Images:
        """The same images, their pixels and labels on another device."""
        moved = copy.copy(self)
        moved._store = self._store.to(device)
        moved._labels = None if self._labels is None else self._labels.to(device)
        return moved

    def _on_device(self, rows: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(rows), self.device)


def _digest(store: Square | Ragged, labels: Tensor | None, classes: tuple[str, ...]) -> str:
    """sha256 of pixels, shapes, labels and class names, in order."""
    content = hashlib.sha256(store.pixels.cpu().contiguous().numpy().data)
    about = {
        "channels": store.channels,
        "size": store.size,
        "shapes": store.shapes,
        "labels": None if labels is None else labels.tolist(),
        "classes": classes,
    }
    if labels is not None:  # by which images are held out
        about["hold_out"] = RULE
    content.update(json.dumps(about).encode())
    return content.hexdigest()


@lru_cache(maxsize=4)  # a batch reaches into the next epoch, for a training and its evaluation
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `count` indices (int64), by sorting one random number each.

    A pure function, like everything in genimg.rng: no library's shuffle, which may change.
    """
    numbers = fold(seed_from(seed, epoch), torch.arange(count)).numpy()
    order = np.argsort(numbers, kind="stable")
    order.flags.writeable = False
    return order


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
    *,
    channels: Literal[1, 3],
    size: int,
    fit: Fit,
    tolerate_broken: int = 0,
    progress: Callable[[int, int], None] | None = None,
    device: torch.device | str = "cpu",
) -> tuple[Images, BrokenReport]:
    """All images of a source, and which ones could not be read.

    fit: `resize` brings the short side to `size` (Lanczos) and crops the centre; `pad` centres
    on black, reducing what is larger; `crop` keeps images whole for random crops.
    progress: called with (images read, of how many), from the calling thread.

    Raises InputError where more than `tolerate_broken` images cannot be read, or where one is
    too small to be cropped from.
    """
    kept: list[int] = []
    broken: list[BrokenImage] = []
    whole: list[np.ndarray] = []
    square = np.empty((0 if fit == "crop" else len(source), channels, size, size), np.uint8)
    for index, image in enumerate(_read_all(source, channels, size, fit)):
        if isinstance(image, BrokenImage):
            broken.append(image)
            if len(broken) > tolerate_broken:
                raise _too_many(broken, tolerate_broken)
        else:
            if fit == "crop":
                whole.append(image)
            else:
                square[len(kept)] = image
            kept.append(index)
        if progress and ((index + 1) % CHUNK == 0 or index + 1 == len(source)):
            progress(index + 1, len(source))
    if not kept:
        raise InputError(f"none of the {len(source)} images can be read, first {broken[0]}")

    labels = None if source.labels is None else torch.from_numpy(source.labels[kept])
    pixels = Ragged.joined(whole, size) if fit == "crop" else torch.from_numpy(square[: len(kept)])
    report = BrokenReport(tuple(b.name for b in broken), tuple(b.reason for b in broken))
    return Images(pixels, labels, source.classes).to(device), report


def _read_all(
    source: Source, channels: Literal[1, 3], size: int, fit: Fit
) -> Iterator[np.ndarray | BrokenImage]:
    """uint8 [C, H, W] of every image, or why not, in order; Pillow decodes without the GIL."""

    def read(start: int) -> list[np.ndarray | BrokenImage]:
        indices = range(start, min(start + CHUNK, len(source)))
        return [_read(source, index, channels, size, fit) for index in indices]

    pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1))
    try:
        for chunk in pool.map(read, range(0, len(source), CHUNK)):
            yield from chunk
    finally:
        pool.shutdown(cancel_futures=True)


def _read(
    source: Source, index: int, channels: Literal[1, 3], size: int, fit: Fit
) -> np.ndarray | BrokenImage:
    try:
        image = with_channels(source.read(index), channels)
    except BrokenImage as error:
        return error
    if fit == "crop" and min(image.shape[:2]) < size:
        raise too_small(image, size, source.names[index])
    return np.ascontiguousarray(np.moveaxis(fitted(image, size, fit), 2, 0))


def _too_many(broken: list[BrokenImage], tolerated: int) -> InputError:
    first = "; ".join(str(error) for error in broken[:3])
    more = "; …" if len(broken) > 3 else ""
    return InputError(
        f"data.tolerate_broken={tolerated}: more than that cannot be read ({first}{more});"
        " repair or remove them, or tolerate more"
    )
