"""Things in their order: done in threads some before they are asked for; numbers as ranges."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")
AHEAD = 4  # things that are done before they are needed


def ahead(
    function: Callable[[T], R], things: Iterable[T], pool: ThreadPoolExecutor, count: int = AHEAD
) -> Iterator[R]:
    """function(thing) of each, in order; in threads, and some before they are asked for."""
    waiting: deque[Future[R]] = deque()
    for thing in things:
        waiting.append(pool.submit(function, thing))
        if len(waiting) > count:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def runs(numbers: Iterable[int], most: int) -> Iterator[tuple[int, int]]:
    """Ascending numbers as ranges start to stop, of at most so many each."""
    start = stop = -1
    for number in numbers:
        if number != stop or stop - start == most:
            if stop > start:
                yield start, stop
            start = number
        stop = number + 1
    if stop > start:
        yield start, stop
