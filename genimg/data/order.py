"""The order in which the rows of many row groups are walked: streamed, seeded, one for all workers.

A global batch is made of streams: each of the STREAMS parts of a batch, in the order of its places,
is fed by a stream of its own, which walks its own row groups. A worker that takes every W-th part
of each batch so reads every W-th part of the row groups, and still there is one order, whatever
the number of workers. W workers together read a set of G row groups at most
1 + (W - gcd(W, S)) / S + (S - 1) / G times, with S streams; W = 64 and S = 64: once.

Measured (`python tests/bench --only order`) on a million images of 100 kB, batches of 256: of 64
workers none reads more than 1.01 times a 64th. Where the images are stored class after class,
which `genimg prepare` never does, the share of a class in a batch has 2.0 times the standard
deviation that a full shuffle gives; stored neighbours come 6,600 positions apart, not a third of
the set; the positions in two epochs correlate by 0.004. Shards of `genimg prepare` were shuffled
once already: their batches are those of a full shuffle.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch

from genimg.rng import fold, seed_from

VERSION = 2  # of the order that a seed stands for; part of the fingerprint of sets that have it
STREAMS = 64  # in a batch, at most; independent of the workers, or the order would not be
WINDOW_BYTES = 512 << 20  # of row groups that are open at a time, in all streams together
WINDOW_ROWS = 1 << 15  # or fewer, where so many rows are less than that


class Window(NamedTuple):
    """Rows of one stream that are shuffled with one another."""

    seed: int
    epoch: int
    batch_size: int
    number: int  # within the epoch, over all streams


@dataclass(frozen=True)
class Epoch:
    """One epoch's walk: rows on a line, shuffled by row groups, cut into streams and windows.

    The line is cut where streams end; so a piece is a row group, or a part of one. Window w holds
    pieces [cuts[w], cuts[w + 1]) and begins at starts[w] of the line.
    """

    key: int
    batch_size: int
    places: np.ndarray  # int64 [S + 1], the places of a batch that each stream feeds
    before: np.ndarray  # int64 [S], how many rows each stream gave in the epochs before
    streams: np.ndarray  # int64 [S + 1], where each stream begins on the line
    groups: np.ndarray  # int64 [P], the row group of each piece
    firsts: np.ndarray  # int64 [P], the first row of each piece
    counts: np.ndarray  # int64 [P], its rows
    cuts: np.ndarray  # int64 [W + 1]
    starts: np.ndarray  # int64 [W + 1]

    def on_line(self, positions: np.ndarray) -> np.ndarray:
        """Where on the line positions (int64, of the endless order, in this epoch) are."""
        places = positions % self.batch_size
        stream = np.searchsorted(self.places, places, side="right") - 1
        given = given_by(self.places, self.batch_size, positions, stream)
        return self.streams[stream] + given - self.before[stream]


class StreamedOrder:
    """An endless seeded order of rows that can be streamed: each epoch is a permutation.

    Row groups are shuffled and divided among the streams, so that each has just the rows that its
    places of the epoch's batches ask for: all streams end with the epoch. Each stream shuffles the
    rows of a window with one another: a row group, or several small ones. It is a pure function
    of group sizes, seed, position and batch size, whatever was asked before; nothing of the size
    of the set is computed.

    rows:  int64 [G] in each row group; rows are numbered group after group
    sizes: int64 [G], bytes
    """

    def __init__(self, rows: np.ndarray, sizes: np.ndarray) -> None:
        self.rows = rows
        self.starts = np.cumsum(rows) - rows
        self.total = int(rows.sum())
        self.streams = streams_for(sizes[rows > 0])
        self._sizes = sizes
        self.epoch = lru_cache(2)(self._epoch)  # a batch may reach into the next one
        self._open = lru_cache(2)(self._opened)  # as a rule those of the last batch
        self._window = lru_cache(4 * self.streams)(self._shuffled_window)

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        """int64 rows at int64 `positions` of the endless order."""
        found = np.empty(positions.shape, np.int64)
        numbers = positions // self.total
        for number in np.unique(numbers).tolist():
            here = numbers == number
            epoch = self.epoch(seed, number, batch_size)
            line = epoch.on_line(positions[here])
            windows = np.searchsorted(epoch.starts, line, side="right") - 1
            opened, inside = np.unique(windows, return_inverse=True)
            rows, begins = self._open(Window(seed, number, batch_size, 0), tuple(opened.tolist()))
            found[here] = rows[begins[inside] + line - epoch.starts[windows]]
        return found

    def windows(self, positions: np.ndarray, seed: int, batch_size: int) -> list[Window]:
        """The windows that ascending positions are in, those that are left soonest first."""
        found: list[Window] = []
        numbers = positions // self.total
        for number in np.unique(numbers).tolist():
            epoch = self.epoch(seed, number, batch_size)
            line = epoch.on_line(positions[numbers == number])[::-1]
            inside = np.searchsorted(epoch.starts, line, side="right") - 1
            windows, last = np.unique(inside, return_index=True)
            left = epoch.starts[windows + 1] - line[last]
            by_need = windows[np.argsort(left, kind="stable")]
            found += [Window(seed, number, batch_size, window) for window in by_need.tolist()]
        return found

    def following(self, windows: Iterable[Window]) -> list[Window]:
        """The next window of the stream of each."""
        return [self._following(window) for window in windows]

    def groups(self, windows: Iterable[Window]) -> np.ndarray:
        """The row groups of windows, int64, each once, in their order."""
        found = [np.empty(0, np.int64)]
        for seed, number, batch_size, window in windows:
            epoch = self.epoch(seed, number, batch_size)
            found.append(epoch.groups[epoch.cuts[window] : epoch.cuts[window + 1]])
        groups, first = np.unique(np.concatenate(found), return_index=True)
        return groups[np.argsort(first)]

    def _following(self, window: Window) -> Window:
        epoch = self.epoch(*window[:3])
        stream = int(np.searchsorted(epoch.streams, epoch.starts[window.number], side="right")) - 1
        if epoch.starts[window.number + 1] < epoch.streams[stream + 1]:
            return window._replace(number=window.number + 1)
        follower = self.epoch(window.seed, window.epoch + 1, window.batch_size)
        first = int(np.searchsorted(follower.starts, follower.streams[stream], side="right")) - 1
        number = min(first, len(follower.starts) - 2)  # a stream may have nothing in an epoch
        return window._replace(epoch=window.epoch + 1, number=number)

    def _epoch(self, seed: int, number: int, batch_size: int) -> Epoch:
        key = seed_from(seed, number)
        order = np.flatnonzero(self.rows)
        order = order[permutation(len(order), key)]
        begins = np.cumsum(self.rows[order]) - self.rows[order]  # of each group, on the line

        every = np.arange(self.streams)
        places = np.arange(self.streams + 1) * batch_size // self.streams
        before, after = (
            given_by(places, batch_size, np.array(position), every)
            for position in (number * self.total, (number + 1) * self.total)
        )
        streams = np.append(0, np.cumsum(after - before))

        edges = np.unique(np.concatenate([begins, streams]))
        inside = np.searchsorted(begins, edges[:-1], side="right") - 1
        groups, counts = order[inside], np.diff(edges)
        firsts = self.starts[groups] + edges[:-1] - begins[inside]
        cuts = self._cuts(groups, counts, np.searchsorted(streams, edges[:-1], side="right"))
        return Epoch(
            key, batch_size, places, before, streams, groups, firsts, counts, cuts, edges[cuts]
        )

    def _cuts(self, groups: np.ndarray, counts: np.ndarray, streams: np.ndarray) -> np.ndarray:
        """Where windows begin among the pieces: none is of two streams, nor more than its share,
        which only a single group may exceed."""
        share = WINDOW_BYTES // self.streams
        weights = np.maximum(counts * (WINDOW_BYTES // WINDOW_ROWS), self._sizes[groups])
        cuts: list[int] = []
        held = last = -1
        for piece, (weight, stream) in enumerate(
            zip(weights.tolist(), streams.tolist(), strict=True)
        ):
            if stream != last or held + weight > share:
                cuts.append(piece)
                held, last = 0, stream
            held += weight
        return np.array([*cuts, len(groups)])

    def _opened(self, any: Window, numbers: tuple[int, ...]) -> tuple[np.ndarray, np.ndarray]:
        """The rows of several windows of an epoch end to end, and where each begins."""
        rows = [self._window(any._replace(number=number)) for number in numbers]
        return np.concatenate(rows), np.cumsum([0, *map(len, rows[:-1])])

    def _shuffled_window(self, window: Window) -> np.ndarray:
        """The rows of a window, int64, in the order in which they come."""
        epoch = self.epoch(*window[:3])
        pieces = slice(epoch.cuts[window.number], epoch.cuts[window.number + 1])
        firsts, counts = epoch.firsts[pieces], epoch.counts[pieces]
        inside = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)
        rows = np.repeat(firsts, counts) + inside
        return rows[permutation(len(rows), seed_from(epoch.key, window.number))]


def streams_for(sizes: np.ndarray) -> int:
    """How many streams there are: as many as may have a row group open at a time, on average."""
    streams = STREAMS
    while streams > 1 and streams * int(sizes.sum()) > WINDOW_BYTES * len(sizes):
        streams //= 2
    return streams


def given_by(
    places: np.ndarray, batch_size: int, positions: np.ndarray, streams: np.ndarray
) -> np.ndarray:
    """How many of the positions before `positions` belong to `streams` (int64, broadcast)."""
    low, width = places[streams], np.diff(places)[streams]
    batches, inside = np.divmod(positions, batch_size)
    return batches * width + np.clip(inside - low, 0, width)


def permutation(count: int, key: int) -> np.ndarray:
    """int64 [count], by sorting one random number each: no library's shuffle, which may change."""
    return np.argsort(fold(key, torch.arange(count)).numpy(), kind="stable")
