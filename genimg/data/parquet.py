"""Images streamed from Parquet shards: the Dataset of sets that are too large for memory."""

from __future__ import annotations

import copy
import hashlib
import logging
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Stored
from genimg.data.arrays import Split
from genimg.data.choice import EVALUATED, RULE, refuse_holdout
from genimg.data.columns import COLUMNS, decoded, fit_values, refuse_missing
from genimg.data.fitting import Fit
from genimg.data.group_choice import LABELLED, choose_rows, spread
from genimg.data.memory import HOLDOUT
from genimg.data.order import VERSION, WINDOW_BYTES, StreamedOrder, Window
from genimg.data.remote import locate, reported
from genimg.data.row_groups import GroupCache
from genimg.data.shard_files import RowGroup, ShardFiles, find_shards
from genimg.data.storage import corners
from genimg.errors import InputError
from genimg.images import BrokenImage, Channels
from genimg.labels import number_names

CACHE_BYTES = 2 * WINDOW_BYTES  # of encoded images: the open windows and the next ones
PIECE = 16  # rows that a thread decodes at a time

log = logging.getLogger(__name__)


class Shards:
    """The Dataset (see genimg.contracts) of a folder of Parquet shards, or of one.

    See genimg.data.shard_files for the columns, genimg.data.order for the order. The same
    images give the same pixels as genimg.data.memory does.

    Only row groups that are asked for are read, and those of the windows to come; at most
    `cache_bytes` of them stay in memory. Of W workers each reads about a W-th of the row groups,
    although the order is one order whatever the number of workers.

    A row that cannot be read is replaced by the next one of this dataset that can, and is logged
    once; more than `tolerate_broken` of them in a process is an InputError.

    path:    local or s3://…; with folders `train` and `test` as its splits
    columns: what `fetch` gives
    fit:     as in genimg.data.loading.load_images
    """

    device: torch.device | None = torch.device("cpu")

    def __init__(
        self,
        path: str,
        columns: tuple[str, ...] = ("image",),
        *,
        channels: Channels,
        size: int,
        fit: Fit,
        tolerate_broken: int,
        split: Split = "train",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        filesystem, where = locate(path)
        with reported(path):
            self._files = ShardFiles(find_shards(where, split, filesystem), filesystem, columns)
        refuse_missing(path, self._files.columns, columns)
        if not self._files.rows.sum():
            raise InputError(f"{path}: holds no images")
        self._cache = GroupCache(self._files.read, cache_bytes)
        self._cache_bytes = cache_bytes
        self._pool = ThreadPoolExecutor(min(16, os.cpu_count() or 1), thread_name_prefix="decode")
        self._broken: dict[tuple[int, int], str] = {}
        self._tolerated = tolerate_broken
        self._order = StreamedOrder(self._files.rows, self._files.sizes)
        self._chosen: np.ndarray | None = None  # the rows of a held-out set, ascending
        self._skipped = np.empty(0, np.int64)  # the rows that a training set has not, ascending
        self._next: tuple[np.ndarray, int, int] | None = None  # what was located last
        self._open: list[Window] = []  # the windows that this was in
        self._choices: dict[int, np.ndarray] = {}  # by count
        self._fit = fit
        self.columns = columns
        self.channels = channels
        self.size = size
        self.classes = self._files.classes
        rule = (
            f" {RULE}" if "label" in self._files.columns else ""
        )  # by which labelled images are held out
        about = f"{channels} {size} {fit} {VERSION}{rule}"
        self.fingerprint = _digest(self._files.fingerprint, about)

    def __len__(self) -> int:
        return self._order.total

    @property
    def broken(self) -> tuple[str, ...]:
        """Rows met so far that could not be read: names and reasons."""
        return tuple(self._broken.values())

    @property
    def at_hand(self) -> bool:
        return False

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        """int64 indices at int64 `positions` of the endless order; each epoch a permutation."""
        self._next = (positions, seed, batch_size)
        return self._order.locate(positions, seed, batch_size)

    def fetch(self, indices: np.ndarray, keys: Tensor) -> Stored:
        """`columns` of the images at int64 `indices`; `keys` int64 [N] decide the crops."""
        groups, rows = self._find(indices)
        by_group = np.argsort(groups, kind="stable")
        pieces = [by_group[at : at + PIECE] for at in range(0, len(by_group), PIECE)]
        stored = {name: self._room(name, len(indices)) for name in self.columns}
        whole: dict[str, list[np.ndarray]] = {}  # what crops are taken from
        if self._fit == "crop":
            for name in filter(on_grid, self.columns):
                whole[name] = [stored[name][:0]] * len(indices)

        def read(places: np.ndarray) -> None:
            group: RowGroup | None = None
            among = zip(
                places.tolist(), groups[places].tolist(), rows[places].tolist(), strict=True
            )
            for place, number, row in among:
                if group is None or group.number != number:
                    group = self._cache.get(number)
                found = self._rows_of(group, row) or self._after(int(indices[place]))
                for name, value in found.items():
                    (whole if name in whole else stored)[name][place] = value

        list(self._pool.map(read, pieces))
        self._prefetch()
        tensors = {name: torch.from_numpy(column) for name, column in stored.items()}
        return crop(tensors, whole, keys.cpu()) if whole else tensors

    def name(self, index: int) -> str:
        return f"{index:06d}"

    def whole(self, index: int) -> Stored:
        """`columns` of one image before any crop; resized or padded, as in memory."""
        groups, rows = self._find(np.array([index]))
        group = self._cache.get(int(groups[0]))
        found = self._rows_of(group, int(rows[0])) or self._after(index)
        return {name: torch.from_numpy(value.copy()) for name, value in found.items()}

    def _room(self, name: str, count: int) -> np.ndarray:
        """For rows of a column; of pictures channels last in memory, as they are decoded."""
        shape = COLUMNS[name].shape(self.size, self.channels)
        if not on_grid(name):
            return np.empty((count, *shape), COLUMNS[name].kind)
        return np.empty((count, *shape[1:], shape[0]), np.uint8).transpose(0, 3, 1, 2)

    def choose(self, count: int) -> np.ndarray:
        """int64 indices, ascending, of `count` images that stand for all, or of all: seeded, each
        class by its share, from few row groups. Reads labels only; the same in every process.
        """
        if count >= len(self):
            return np.arange(len(self))
        if count not in self._choices:
            self._choices[count] = self._chosen_by(EVALUATED, count)
        return self._choices[count]

    def hold_out(self, count: int) -> tuple[Shards, Shards]:
        """(the others, `count` images): a choice that depends on nothing but the shards and count.

        Each class has its share of both. The two share one cache.
        """
        refuse_holdout(count, len(self))
        rows = self._rows(self._chosen_by(HOLDOUT, count))
        skipped = np.sort(np.concatenate([self._skipped, rows]))
        return self._view(None, skipped), self._view(rows, self._skipped)

    def numbered(self, column: str) -> tuple[str, ...]:
        """'0', '1', … up to the highest class in a column, which is read whole for it."""
        groups = range(len(self._files.rows))
        highest = max(self._pool.map(partial(self._files.highest, column), groups))
        return number_names(highest, f"column {column}")

    def texts(self) -> Iterator[str]:
        """Those of all images, from row group to row group."""
        for group in range(len(self._files.rows)):
            yield from self._files.texts(group)

    @property
    def labels(self) -> np.ndarray | None:
        """int64: of all images, or of row groups that stand for all where there are many."""
        if "label" not in self.columns:
            return None
        groups = np.flatnonzero(self._order.rows)
        few = spread(groups, self._files.middles, max(LABELLED, 2 * len(self.classes["label"])))
        return np.concatenate(list(self._pool.map(self._labels, few.tolist())))

    def _chosen_by(self, seed: int, count: int) -> np.ndarray:
        return choose_rows(
            count,
            self._order.rows,
            seed,
            classes=len(self.classes.get("label", ())),
            middles=self._files.middles,
            labels_of=lambda groups: list(self._pool.map(self._labels, groups)),
        )

    def _labels(self, group: int) -> np.ndarray:
        """int64: the labels of this dataset's rows of a row group; no image is read for it."""
        indices = np.arange(self._order.rows[group]) + self._order.starts[group]
        return self._files.labels(group)[self._rows(indices) - self._files.starts[group]]

    def _view(self, chosen: np.ndarray | None, skipped: np.ndarray) -> Shards:
        view = copy.copy(self)
        view._chosen, view._skipped = chosen, skipped
        listed = skipped if chosen is None else chosen
        bounds = np.append(self._files.starts, self._files.rows.sum())
        counts = np.diff(np.searchsorted(listed, bounds))
        rows = self._files.rows - counts if chosen is None else counts
        view._order = StreamedOrder(rows, self._files.sizes)
        view._next, view._open = None, []
        view._choices = {}
        kind = "without" if chosen is None else "only"
        view.fingerprint = _digest(self.fingerprint, f"{kind} {listed.tolist()}")
        return view

    def _rows(self, indices: np.ndarray) -> np.ndarray:
        """Rows of the files (int64) at indices: those that were left out are passed over."""
        if self._chosen is not None:
            return self._chosen[indices]
        gaps = self._skipped - np.arange(len(self._skipped))  # the index that follows each
        return indices + np.searchsorted(gaps, indices, side="right")

    def _find(self, indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(row group, row inside it) of each index, int64."""
        groups = np.searchsorted(self._order.starts, indices, side="right") - 1
        return groups, self._rows(indices) - self._files.starts[groups]

    def _rows_of(self, group: RowGroup, row: int) -> dict[str, np.ndarray] | None:
        """What is in a row, fitted, or None where it is broken."""
        if (group.number, row) in self._broken:
            return None

        def place() -> str:
            return self._files.place_of(group, row)

        try:
            values = {
                name: decoded(name, stored, self.channels)
                for name, stored in group.row(row, self.columns).items()
            }
            fitted = fit_values(values, self.size, self._fit, place, self.classes)
        except BrokenImage as error:
            self._note(f"{place()}: {error.reason}", group.number, row)
            return None
        return {name: COLUMNS[name].row(value) for name, value in fitted.items()}

    def _after(self, index: int) -> dict[str, np.ndarray]:
        """What is in the first row after an index, in a circle, that can be read."""
        for other in range(index + 1, index + len(self)):
            groups, rows = self._find(np.array([other % len(self)]))
            found = self._rows_of(self._cache.get(int(groups[0])), int(rows[0]))
            if found:
                return found
        raise InputError(f"none of the {len(self)} images can be read: {self.broken[0]}")

    def _note(self, text: str, group: int, row: int) -> None:
        """Count a broken row; one too many is an error."""
        self._broken[group, row] = text
        if len(self._broken) > self._tolerated:
            raise InputError(
                f"data.tolerate_broken={self._tolerated}: more than that cannot be read ({text});"
                " write the shards again without them, or tolerate more"
            )
        log.warning("replaced by the next image: %s", text)

    def _prefetch(self) -> None:
        """Read the next windows ahead, as far as there is room beside the open ones."""
        if self._next is None:
            return
        windows = self._order.windows(*self._next)
        if windows == self._open:
            return
        self._open = windows
        now = self._order.groups(windows)
        then = self._order.groups(self._order.following(windows))
        then = then[~np.isin(then, now)]
        room = self._cache_bytes - self._files.sizes[now].sum()
        self._cache.prefetch(then[np.cumsum(self._files.sizes[then]) <= room].tolist())


def on_grid(name: str) -> bool:
    return COLUMNS[name].on_grid


def crop(stored: Stored, whole: dict[str, list[np.ndarray]], keys: Tensor) -> Stored:
    """Images uint8 [C, H, W] and what is beside them, cropped just as in genimg.data.storage.

    stored: with room for the crops of what is `whole`
    """
    sides = torch.tensor([image.shape[1:] for image in whole["image"]])
    size = stored["image"].shape[-1]
    found = corners(sides, keys, size)
    for name, images in whole.items():
        for square, image, (top, left) in zip(
            stored[name].numpy(), images, found.tolist(), strict=True
        ):
            square[:] = image[:, top : top + size, left : left + size]
    return {
        name: values if name in whole else COLUMNS[name].cropped(values, found, size)
        for name, values in stored.items()
    }


def _digest(*parts: str) -> str:
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()
