"""What datasets have in common whose images, or clips, are each made of some gray images."""

from __future__ import annotations

import hashlib
from abc import ABC, abstractmethod
from collections.abc import Mapping

import numpy as np
import torch

from genimg.contracts import Splittable, Stored
from genimg.errors import InputError

MOST_HELD_OUT = 6  # one gray image in so many


class OfGray(ABC):
    """A Dataset (see genimg.contracts), each of which is made of gray images by its number; no seed
    of a training matters.

    length: how many there are; None: no end, and `epoch` count as all
    about: what else the fingerprint tells
    """

    epoch: int
    classes: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, gray: Splittable, size: int, length: int | None, about: str) -> None:
        assert gray.channels == 1, gray.channels
        self._gray = gray
        self._length = length
        self.size = size
        self.fingerprint = hashlib.sha256(f"{gray.fingerprint} {about}".encode()).hexdigest()

    @abstractmethod
    def parts(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N, P]: the gray images that those at int64 `indices` are made of."""

    @abstractmethod
    def fetch(self, indices: np.ndarray, keys: torch.Tensor) -> Stored: ...

    def __len__(self) -> int:
        return self._length or self.epoch

    @property
    def device(self) -> torch.device | None:
        return self._gray.device

    @property
    def at_hand(self) -> bool:
        return self._gray.at_hand

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        return positions % self._length if self._length else positions

    def whole(self, index: int) -> Stored:
        stored = self.fetch(np.array([index]), torch.tensor([index]))
        return {name: column[0] for name, column in stored.items()}

    def name(self, index: int) -> str:
        return "+".join(map(self._gray.name, self.parts(np.array([index]))[0].tolist()))

    def choose(self, count: int) -> np.ndarray:
        return np.arange(min(count, len(self)))  # drawn already

    def held_apart(self, count: int) -> tuple[Splittable, Splittable]:
        """(the other gray images, those of `count` that are held out), the latter a sixth at most.

        Raises InputError where there are no more than so many.
        """
        if self._length and count >= self._length:
            raise InputError(f"data.holdout={count}: must be below {self._length}")
        return self._gray.hold_out(max(1, min(count, len(self._gray) // MOST_HELD_OUT)))
