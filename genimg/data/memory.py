"""Images held in memory, and what is beside them: the Dataset of every set that fits there."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Stored
from genimg.data.choice import RULE, balanced_choice, balanced_order, refuse_holdout
from genimg.data.columns import COLUMNS
from genimg.data.order import permutation
from genimg.data.storage import Beside, Ragged, Square, Store
from genimg.data.transfer import to_device
from genimg.rng import seed_from

HOLDOUT = 0x686F6C64  # seeds which images are held out; the same in every training


class Images:
    """The Dataset (see genimg.contracts) of images in memory, on one device.

    stored:  columns of N images; those on a grid as [N, C, S, S], or all of them Ragged where
             random crops are taken
    classes: names of the classes of columns
    columns: what `fetch` gives; all of `stored`, if not given
    names: of the images' files, where they come from such
    """

    def __init__(
        self,
        stored: Mapping[str, Tensor | Ragged],
        classes: Mapping[str, tuple[str, ...]] | None = None,
        columns: tuple[str, ...] | None = None,
        names: tuple[str, ...] = (),
    ) -> None:
        images = stored["image"]
        self._images = Square(images) if isinstance(images, Tensor) else images
        self.channels = self._images.channels
        self.size = self._images.size
        self._stores = {name: self._store(name, column) for name, column in stored.items()}
        assert {len(store) for store in self._stores.values()} == {len(self._images)}
        self._rows = np.arange(len(self._images))  # what a subset has fewer of
        self._names = names
        self.columns = tuple(stored) if columns is None else columns
        self.classes = dict(classes or {})
        self.fingerprint = _digest(self._stores, self.classes)

    def _store(self, name: str, column: Tensor | Ragged) -> Store:
        if not isinstance(column, Tensor):
            return column
        if COLUMNS[name].on_grid:
            assert column.dtype == torch.uint8, column.dtype
            return Square(column)
        return Beside(column, COLUMNS[name], self.size)

    def __len__(self) -> int:
        return len(self._rows)

    @property
    def device(self) -> torch.device:
        return self._images.content.device

    @property
    def at_hand(self) -> bool:
        return True

    @property
    def nbytes(self) -> int:
        """Bytes that it takes, shared with other subsets."""
        return sum(store.content.nbytes for store in self._stores.values())

    @property
    def labels(self) -> Tensor | None:
        """int64 [N], in the order of the indices."""
        if "label" not in self._stores:
            return None
        return self._stores["label"].fetch(self._on_device(self._rows), None)

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        """int64 indices at int64 `positions` of the endless order; each epoch a permutation."""
        return shuffled(positions, len(self), seed)

    def fetch(self, indices: np.ndarray, keys: Tensor) -> Stored:
        """`columns` of the images at int64 `indices`; `keys` int64 [N] decide the crops."""
        rows, corners = self._on_device(self._rows[indices]), None
        if isinstance(self._images, Ragged):
            corners = self._images.corners(rows, keys.to(self.device))
        return {name: self._stores[name].fetch(rows, corners) for name in self.columns}

    def whole(self, index: int) -> Stored:
        """`columns` of one image before any crop; views, not to be written to."""
        row = int(self._rows[index])
        return {name: self._stores[name].whole(row) for name in self.columns}

    def name(self, index: int) -> str:
        row = int(self._rows[index])
        return self._names[row] if self._names else f"{row:06d}"

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
        refuse_holdout(count, len(self))
        order = order_held_out(self._label_numbers(), len(self))
        return self.subset(np.sort(order[count:])), self.subset(np.sort(order[:count]))

    def _label_numbers(self) -> np.ndarray | None:
        return None if self.labels is None else self.labels.cpu().numpy()

    def to(self, device: torch.device | str) -> Images:
        """The same images, and what is beside them, on another device."""
        moved = copy.copy(self)
        moved._images = self._images.to(device)
        moved._stores = {
            name: moved._images if name == "image" else store.to(device)
            for name, store in self._stores.items()
        }
        return moved

    def _on_device(self, rows: np.ndarray) -> Tensor:
        return to_device(torch.from_numpy(rows), self.device)


def order_held_out(labels: np.ndarray | None, count: int) -> np.ndarray:
    """int64: a permutation of `count` images, of which the first are held out."""
    return balanced_order(count, labels, seed_from(HOLDOUT, 0))


def _digest(stores: Mapping[str, Store], classes: Mapping[str, tuple[str, ...]]) -> str:
    """sha256 of pixels, shapes, labels and class names, in order; then of all other columns."""
    images = stores["image"]
    assert isinstance(images, Square | Ragged)
    labels = stores["label"].content if "label" in stores else None
    content = hashlib.sha256(_bytes(images.content))
    about = {
        "channels": images.channels,
        "size": images.size,
        "shapes": images.shapes,
        "labels": None if labels is None else labels.tolist(),
        "classes": classes.get("label", ()),
    }
    if labels is not None:  # by which images are held out
        about["hold_out"] = RULE
    content.update(json.dumps(about).encode())
    for name in sorted(stores.keys() - {"image", "label"}):
        content.update(json.dumps([name, classes.get(name, ())]).encode())
        content.update(_bytes(stores[name].content))
    return content.hexdigest()


def _bytes(tensor: Tensor) -> memoryview:
    return tensor.cpu().contiguous().numpy().data


def shuffled(positions: np.ndarray, count: int, seed: int) -> np.ndarray:
    """int64 indices of `count` images at int64 `positions` of an endless order, by epochs."""
    epochs, places = np.divmod(positions, count)
    indices = np.empty(positions.shape, np.int64)
    for epoch in np.unique(epochs):  # one or two, unless a batch exceeds the set
        here = epochs == epoch
        indices[here] = epoch_order(count, seed, int(epoch))[places[here]]
    return indices


@lru_cache(maxsize=4)  # a batch reaches into the next epoch, for a training and its evaluation
def epoch_order(count: int, seed: int, epoch: int) -> np.ndarray:
    """A permutation of `count` indices (int64)."""
    order = permutation(count, seed_from(seed, epoch))
    order.flags.writeable = False
    return order
