"""Three gray images as the channels of one: of MNIST's ten digits a thousand kinds of images."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import ClassVar

import numpy as np
import torch

from genimg.contracts import Splittable, Stored
from genimg.errors import InputError
from genimg.rng import fold, integers

LENGTH = 128_000  # images, as many as have been trained on since Lin et al. 2018 (PacGAN)
MOST_HELD_OUT = 6  # one gray image in so many

_STACKED = int.from_bytes(b"stacked")


class Stacked:
    """A Dataset (see genimg.contracts) of images, whose channels are three of gray ones each.

    Stacked-MNIST (Metz, Poole, Pfau, Sohl-Dickstein 2017, section 3.3.1), of any gray images. Which
    three an image has follows from its number; no seed of a training matters.
    """

    columns: ClassVar[tuple[str, ...]] = ("image",)
    channels = 3
    classes: Mapping[str, tuple[str, ...]] = {}

    def __init__(self, gray: Splittable, length: int = LENGTH) -> None:
        assert gray.channels == 1, gray.channels
        self._gray = gray
        self._length = length
        self.size = gray.size
        about = f"{gray.fingerprint} stacked {length}"
        self.fingerprint = hashlib.sha256(about.encode()).hexdigest()

    def __len__(self) -> int:
        return self._length

    @property
    def device(self) -> torch.device | None:
        return self._gray.device

    @property
    def at_hand(self) -> bool:
        return self._gray.at_hand

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        return positions % self._length

    def layers(self, indices: np.ndarray) -> np.ndarray:
        """int64 [N, 3]: the gray images that images at int64 `indices` are made of."""
        keys = fold(_STACKED, torch.from_numpy(indices))
        return integers(keys, len(self._gray), (3,)).numpy()

    def fetch(self, indices: np.ndarray, keys: torch.Tensor) -> Stored:
        layers = torch.arange(3, device=keys.device)
        gray = self._gray.fetch(
            self.layers(indices).reshape(-1), fold(keys[:, None], layers).flatten()
        )
        return {"image": gray["image"].reshape(len(indices), 3, self.size, self.size)}

    def whole(self, index: int) -> Stored:
        stored = self.fetch(np.array([index]), torch.tensor([index]))
        return {"image": stored["image"][0]}

    def name(self, index: int) -> str:
        return "+".join(map(self._gray.name, self.layers(np.array([index]))[0].tolist()))

    def choose(self, count: int) -> np.ndarray:
        return np.arange(min(count, self._length))  # drawn already

    def hold_out(self, count: int) -> tuple[Stacked, Stacked]:
        """(the others, `count` images), made of gray ones that are held out, a sixth at most."""
        if count >= self._length:
            raise InputError(f"data.holdout={count}: must be below {self._length}")
        rest, kept = self._gray.hold_out(max(1, min(count, len(self._gray) // MOST_HELD_OUT)))
        return Stacked(rest), Stacked(kept, count)
