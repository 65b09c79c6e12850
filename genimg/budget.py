"""Images of any sizes in bounded memory and fair shares: counted in pixels, not in images."""

import heapq
from collections.abc import Iterable, Iterator, Sequence
from itertools import groupby

PIXELS = 2**20  # in one pass of a network that takes whole images


def shares(costs: Sequence[int], world: int) -> list[list[int]]:
    """For each of `world` workers: the numbers of the items that it does, ascending.

    The dearest first, each to the worker that has least to do so far (Graham 1969): nobody has
    more than 4/3 of the best possible. The same for everyone who knows the costs.
    """
    parts: list[list[int]] = [[] for _ in range(world)]
    loads = [(0, rank) for rank in range(world)]
    for item in sorted(range(len(costs)), key=lambda i: (-costs[i], i)):
        load, rank = heapq.heappop(loads)
        parts[rank].append(item)
        heapq.heappush(loads, (load + costs[item], rank))
    return [sorted(part) for part in parts]


def stacks(
    items: Iterable[int], shapes: Sequence[tuple[int, int]], pixels: int = PIXELS
) -> Iterator[list[int]]:
    """Items in lists of one shape (height, width), each of at most `pixels` together, or alone."""
    by_shape = sorted(items, key=lambda item: (shapes[item], item))
    for (height, width), group in groupby(by_shape, key=lambda item: shapes[item]):
        members = list(group)
        at_once = max(1, pixels // (height * width))
        for start in range(0, len(members), at_once):
            yield members[start : start + at_once]
