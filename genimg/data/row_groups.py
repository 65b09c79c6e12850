"""In which order row groups are walked, and which of them are in memory."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from threading import Lock

import numpy as np
import torch

from genimg.data.shard_files import RowGroup
from genimg.rng import fold, seed_from

WINDOW_ROWS = 4096  # rows that are shuffled with one another
WINDOW_BYTES = 256 << 20  # or fewer, where so many rows are more than that


@dataclass(frozen=True)
class Epoch:
    """One epoch's walk. Window w holds groups[cuts[w] : cuts[w + 1]], from position starts[w]."""

    key: int
    groups: np.ndarray  # int64, the row groups, shuffled
    cuts: np.ndarray  # int64 [W + 1]
    starts: np.ndarray  # int64 [W]

    def window(self, number: int) -> np.ndarray:
        """The row groups of a window."""
        return self.groups[self.cuts[number] : self.cuts[number + 1]]


class WindowedOrder:
    """An endless seeded order of rows that can be streamed: each epoch is a permutation.

    Row groups are shuffled, then cut into windows of about WINDOW_ROWS rows and at most
    WINDOW_BYTES bytes (and one group); the rows of a window are shuffled with one another. A
    window is thus all that has to be in memory. It is a pure function of group sizes, seed and
    position, whatever was asked before; nothing of the size of the set is computed.

    rows:  int64 [G] in each row group; rows are numbered group after group
    sizes: int64 [G], bytes
    """

    def __init__(self, rows: np.ndarray, sizes: np.ndarray) -> None:
        self.rows = rows
        self.starts = np.cumsum(rows) - rows
        self.total = int(rows.sum())
        self._weights = np.maximum(rows * (WINDOW_BYTES // WINDOW_ROWS), sizes)
        self.epoch = lru_cache(2)(self._epoch)  # a batch may reach into the next one
        self._window = lru_cache(4)(self._shuffled_window)

    def locate(self, positions: np.ndarray, seed: int) -> np.ndarray:
        """int64 rows at int64 `positions` of the endless order."""
        epochs, places = np.divmod(positions, self.total)
        found = np.empty(positions.shape, np.int64)
        for epoch in np.unique(epochs).tolist():
            here = epochs == epoch
            found[here] = self._locate(places[here], seed, epoch)
        return found

    def around(self, position: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """The row groups of the window that holds a position, and of the window after it."""
        number, place = divmod(position, self.total)
        epoch = self.epoch(seed, number)
        window = int(np.searchsorted(epoch.starts, place, side="right")) - 1
        if window + 1 < len(epoch.starts):
            return epoch.window(window), epoch.window(window + 1)
        return epoch.window(window), self.epoch(seed, number + 1).window(0)

    def _locate(self, places: np.ndarray, seed: int, epoch: int) -> np.ndarray:
        starts = self.epoch(seed, epoch).starts
        windows = np.searchsorted(starts, places, side="right") - 1
        found = np.empty(places.shape, np.int64)
        for window in np.unique(windows).tolist():
            here = windows == window
            found[here] = self._window(seed, epoch, window)[places[here] - starts[window]]
        return found

    def _epoch(self, seed: int, number: int) -> Epoch:
        key = seed_from(seed, number)
        groups = np.flatnonzero(self.rows)
        groups = groups[permutation(len(groups), key)]
        weights = self._weights[groups]
        windows = (np.cumsum(weights) - weights) // WINDOW_BYTES
        firsts = np.flatnonzero(np.diff(windows, prepend=-1))
        rows = self.rows[groups]
        starts = (np.cumsum(rows) - rows)[firsts]
        return Epoch(key, groups, np.append(firsts, len(groups)), starts)

    def _shuffled_window(self, seed: int, number: int, window: int) -> np.ndarray:
        """The rows of a window, int64, in the order in which they come."""
        epoch = self.epoch(seed, number)
        groups = epoch.window(window)
        counts = self.rows[groups]
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(self.starts[groups], counts) + inside
        return rows[permutation(len(rows), seed_from(epoch.key, window))]


def permutation(count: int, key: int) -> np.ndarray:
    """int64 [count], by sorting one random number each: no library's shuffle, which may change."""
    return np.argsort(fold(key, torch.arange(count)).numpy(), kind="stable")


class GroupCache:
    """Row groups in memory, at most `capacity` bytes of them; the least recently used go first.

    A single group larger than that is held alone. Every method is safe from several threads; a
    group that two of them want is read once.
    """

    def __init__(self, read: Callable[[int], RowGroup], capacity: int) -> None:
        self._read = read
        self._capacity = capacity
        self._held: OrderedDict[int, Future[RowGroup]] = OrderedDict()
        self._lock = Lock()
        self._ahead = ThreadPoolExecutor(1, thread_name_prefix="row-groups")
        self._queued: list[Future[RowGroup]] = []
        self.bytes = 0  # in memory now
        self.reads = 0  # since the beginning

    def get(self, group: int) -> RowGroup:
        """A row group, read now unless it is held or being read."""
        with self._lock:
            future = self._held.get(group)
            absent = future is None
            if future is None:
                future = self._held[group] = Future()
                self.reads += 1
            self._held.move_to_end(group)
        if absent:
            self._fill(group, future)
        return future.result()

    def prefetch(self, groups: Iterable[int]) -> None:
        """Read these in the background, one after the other, instead of what was yet to be read."""
        with self._lock:
            for future in self._queued:
                future.cancel()
            absent = [group for group in groups if group not in self._held]
            self._queued = [self._ahead.submit(self.get, group) for group in absent]

    def _fill(self, group: int, future: Future[RowGroup]) -> None:
        try:
            table = self._read(group)
        except BaseException as error:
            with self._lock:
                del self._held[group]  # so that the next one tries again
            future.set_exception(error)
            return
        with self._lock:
            self.bytes += table.nbytes
            for other in [g for g, held in self._held.items() if g != group and held.done()]:
                if self.bytes <= self._capacity:
                    break
                self.bytes -= self._held.pop(other).result().nbytes
            future.set_result(table)
