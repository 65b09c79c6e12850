"""What a worker asks of whatever makes its results: an engine of this process, or a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from jobs.offline.job import Item

if TYPE_CHECKING:
    import numpy as np


class Done(Protocol):
    """An image of which a result was made."""

    @property
    def item(self) -> Item: ...

    def picture(self, key: str) -> bytes:
        """What it became, as the file of a key. Raises InputError where that cannot hold it."""
        ...

    def told(self) -> dict[str, Any]:
        """What was told of it, by the operation's name, as JSON has it."""
        ...


@dataclass(frozen=True)
class Failure:
    item: Item
    reason: str


@dataclass(frozen=True)
class Image:
    """One that was drawn: uint8 [H, W, C], and what it is of, where the model was told that."""

    number: int
    pixels: np.ndarray
    label: str


class Maker(Protocol):
    """Makes what a job wants. Raises InputError where nothing more of it can be made."""

    def of_items(
        self, items: Sequence[Item], coders: ThreadPoolExecutor
    ) -> Iterator[Done | Failure]:
        """Of images that are read, in any order. coders: threads to read and decode in."""
        ...

    def of_numbers(self, numbers: Iterable[int]) -> Iterator[Image]:
        """Images that are drawn, in the order of their ascending numbers."""
        ...

    def classes(self) -> tuple[str, ...]:
        """Names of the classes that the model can be told to draw, by their numbers."""
        ...


def in_a_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300] or type(error).__name__
