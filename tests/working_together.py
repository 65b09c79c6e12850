"""Several workers as threads of this process."""

import threading
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor, nn

from genimg.training.sync import Alone


class Together(Alone):
    """One of several workers (see genimg.contracts.Sync)."""

    def __init__(self, rank: int, world: int, table: list[Any], barrier: threading.Barrier) -> None:
        self.rank, self.world = rank, world
        self._table, self._barrier = table, barrier

    def gather(self, rows: Tensor) -> Tensor:
        return torch.cat(self._all(rows.detach()))

    def mean(self, values: Tensor, share: float) -> Tensor:
        return torch.stack(self._all(values.detach() * share)).sum(dim=0)

    @torch.no_grad()
    def gradients(self, parameters: Iterable[nn.Parameter], share: float) -> None:
        for parameter in parameters:
            if parameter.grad is not None:
                parameter.grad.copy_(self.mean(parameter.grad, share))

    def _all(self, mine: Tensor) -> list[Tensor]:
        """What all workers have, by ranks."""
        self._table[self.rank] = mine
        self._barrier.wait(60)
        theirs = list(self._table)
        self._barrier.wait(60)
        return theirs


def together(world: int, work: Callable[[Together], Any]) -> list[Any]:
    """What work(sync) gives each of so many workers."""
    table: list[Any] = [None] * world
    barrier = threading.Barrier(world)
    with ThreadPoolExecutor(world) as pool:
        return list(
            pool.map(lambda rank: work(Together(rank, world, table, barrier)), range(world))
        )
