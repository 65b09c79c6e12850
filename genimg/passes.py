"""Passes: of how many rows, for the same bits in any, bounded memory and the most rows a second."""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import lru_cache

import torch
from torch import Tensor

Compute = Callable[[dict[str, Tensor]], dict[str, Tensor]]  # rows of any names

CHUNK = 64  # rows in one forward pass, at most
PASS_PIXELS = {"cpu": 2**18, "cuda": 2**22}  # of images in one pass, at most
PROBED = (*range(1, 17), 32, CHUNK)  # sizes of passes that are tried before they are relied on
PACES = (16, 32, CHUNK, 3 * CHUNK, 16 * CHUNK)  # sizes of which one is the fastest, for many rows
TRIES = 3  # of each size: the first pass warms up
FASTER = 0.95  # of the usual size's time: what is less may be chance
TRIED_OF = 4  # sizes are tried where at least so many passes of them are left


@lru_cache(1024)  # asked for each pass, of which small networks make thousands a second
def rows_at_once(pixels: int, device: torch.device) -> int:
    """Rows in one pass, at most, where a row is an image of so many pixels: bounds its memory."""
    most = min(CHUNK, fitting(pixels, device))
    return max((size for size in PROBED if size <= most), default=1)  # which needs no second pass


def fitting(pixels: int, device: torch.device) -> int:
    """Images of so many pixels that fit into a pass."""
    return PASS_PIXELS.get(device.type, PASS_PIXELS["cuda"]) // pixels


class Pace:
    """Finds out, while many rows are computed, in passes of what size that goes fastest.

    More rows share what a pass costs by itself; but what lies between layers may then be too much
    for a processor's cache, or for memory that is kept from pass to pass. Which weighs more depends
    on the network and the machine.

    usual: the size until that is found out
    others: to choose from as well, by the fastest of a few passes: the smaller ones, and of the
        larger ones those before which none was slower than a smaller one.
    """

    def __init__(self, usual: int, others: Sequence[int] = ()) -> None:
        self.usual = usual
        smaller = sorted((size for size in others if size < usual), reverse=True)
        larger = sorted(size for size in others if size > usual)
        order = [usual, *smaller, *larger] if others else []
        self._untried = [size for size in order for _ in range(TRIES)]
        self._seconds: dict[int, float] = {}  # for a row
        self._lock = threading.Lock()

    def size(self, left: int) -> int:
        """Of the next pass, where so many rows are left."""
        with self._lock:
            if self._untried:
                few = TRIED_OF * self._untried[0] > left
                return self._best() if few else self._untried[0]
        return self._best()

    def _best(self) -> int:
        best = min(self._seconds, key=self._seconds.__getitem__, default=self.usual)
        clearly = best in self._seconds and self._seconds[best] < FASTER * self._seconds[self.usual]
        return best if clearly else self.usual

    @contextmanager
    def timed(self, rows: int) -> Iterator[None]:
        """Around a pass of so many rows; where it fails, none so large is asked for again."""
        began = time.perf_counter()
        try:
            yield
        except (RuntimeError, MemoryError):
            self.failed(rows)
            raise
        self.took(rows, time.perf_counter() - began)

    def failed(self, rows: int) -> None:
        with self._lock:
            if rows > self.usual:
                self._untried = [size for size in self._untried if size < rows]
                self._seconds = {n: each for n, each in self._seconds.items() if n < rows}

    def took(self, rows: int, seconds: float) -> None:
        with self._lock:
            if not self._untried or rows != self._untried[0]:
                return
            self._seconds[rows] = min(seconds / rows, self._seconds.get(rows, math.inf))
            del self._untried[0]
            largest = max(self._seconds)
            if self._untried and self._untried[0] > largest > self._best():
                self._untried.clear()


class Sizes:
    """Sizes of passes that give a row the same bits on this machine.

    Numerical libraries choose their kernels by the size of a pass, by the hardware and by its
    settings. A full pass counts as right; a smaller one is compared with it when it is first
    wanted: a program that restores one image need not wait for what others need. So is a larger
    one, of PACES.
    """

    def __init__(
        self,
        most: int,
        once: Callable[[Compute, dict[str, Tensor]], dict[str, Tensor]],
        examples: Sequence[tuple[Compute, dict[str, Tensor]]],
    ) -> None:
        """once: makes a pass. examples: what is computed in passes, with rows for a full one"""
        self.tried = tuple(size for size in PROBED if size < most)
        self.full = most
        self._once = once
        self._examples = examples
        self._expected: list[dict[str, Tensor]] = []
        self._agree = {most: True}
        self._best: dict[tuple[int, int], int] = {}
        self._lock = threading.Lock()

    def agrees(self, size: int) -> bool:
        with self._lock:
            if size not in self._agree:
                self._expected = self._expected or [self._once(*each) for each in self._examples]
                self._agree[size] = all(
                    self._agrees(size, *both)
                    for both in zip(self._examples, self._expected, strict=True)
                )
            return self._agree[size]

    def all(self, alive: Callable[[], bool] = lambda: True) -> tuple[int, ...]:
        """Every size that agrees, ascending; all are tried. alive: asked before each."""
        for size in self.tried:
            if not alive():
                break
            self.agrees(size)
        with self._lock:
            return tuple(sorted(size for size, agrees in self._agree.items() if agrees))

    def best(self, count: int, most: int) -> int:
        """The largest size for at most `count` rows, or the smallest for more, up to `most`."""
        if (count, most) not in self._best:
            self._best[count, most] = self._found(count, most)
        return self._best[count, most]

    def _found(self, count: int, most: int) -> int:
        larger = (size for size in PACES if size > self.full)
        sizes = [size for size in (*self.tried, self.full, *larger) if size <= most]
        fitting = [size for size in sizes if size <= count]
        for size in (*fitting[::-1], *sizes[len(fitting) :]):
            if self.agrees(size):
                return size
        return min(most, self.full)  # all passes have this one, then

    def _agrees(
        self,
        size: int,
        example: tuple[Compute, dict[str, Tensor]],
        expected: dict[str, Tensor],
    ) -> bool:
        """Whether rows that stood last in the full pass come out alike where they stand first; in a
        larger one, again and again."""
        compute, rows = example
        made = self._once(compute, {name: last(each, size) for name, each in rows.items()})
        return all(torch.equal(each, last(expected[name], size)) for name, each in made.items())


def last(rows: Tensor, count: int) -> Tensor:
    """The last `count` of rows [N, ...] that come again and again."""
    times = -(-count // len(rows))
    return (torch.cat([rows] * times) if times > 1 else rows)[-count:]


def division(count: int, sizes: Sizes | None, most: int = CHUNK) -> Iterator[tuple[int, int]]:
    """`count` rows in passes: (rows, size) of each, the size being one of `sizes` if given.

    The largest that fits comes first; only where none does is a pass larger than its rows.
    """
    while count:
        size = min(count, most) if sizes is None else sizes.best(count, most)
        rows = min(count, size)
        yield rows, size
        count -= rows


def filled(rows: Tensor, size: int) -> Tensor:
    """Rows [N, ...] and the first of them again, up to `size`."""
    missing = size - len(rows)
    return torch.cat([rows, rows[:1].expand(missing, *rows.shape[1:])]) if missing else rows
