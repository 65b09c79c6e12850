"""Several workers as threads of this process, for what only gathers."""

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from genimg.training.sync import Alone


class Together(Alone):
    """One of several workers (see genimg.contracts.Sync)."""

    def __init__(self, rank: int, world: int, table: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.world = rank, world
        self._table, self._barrier = table, barrier

    def gather(self, rows: Tensor) -> Tensor:
        self._table[self.rank] = rows.detach()
        self._barrier.wait(60)
        whole = torch.cat(self._table)
        self._barrier.wait(60)
        return whole


def together(world: int, work: Callable[[Together], Any]) -> list[Any]:
    """What work(sync) gives each of so many workers."""
    table: list[Any] = [None] * world
    barrier = threading.Barrier(world)
    with ThreadPoolExecutor(world) as pool:
        return list(
            pool.map(lambda rank: work(Together(rank, world, table, barrier)), range(world))
        )
