"""Three gray images as the channels of one: of MNIST's ten digits a thousand kinds of images."""

from __future__ import annotations

from typing import ClassVar

import numpy as np
import torch

from genimg.contracts import Splittable, Stored
from genimg.data.of_gray import OfGray
from genimg.rng import fold, integers

LENGTH = 128_000  # images, as many as have been trained on since Lin et al. 2018 (PacGAN)

_STACKED = int.from_bytes(b"stacked")


class Stacked(OfGray):
    """A Dataset of images whose channels are three of gray ones each.

    Stacked-MNIST (Metz, Poole, Pfau, Sohl-Dickstein 2017, section 3.3.1), of any gray images. Which
    three an image has follows from its number; no seed of a training matters.
    """

    columns: ClassVar[tuple[str, ...]] = ("image",)
    channels = 3
    epoch = LENGTH

    def __init__(self, gray: Splittable, length: int = LENGTH) -> None:
        super().__init__(gray, gray.size, length, f"stacked {length}")

    def parts(self, indices: np.ndarray) -> np.ndarray:
        keys = fold(_STACKED, torch.from_numpy(indices))
        return integers(keys, len(self._gray), (3,)).numpy()

    def fetch(self, indices: np.ndarray, keys: torch.Tensor) -> Stored:
        layers = torch.arange(3, device=keys.device)
        gray = self._gray.fetch(
            self.parts(indices).reshape(-1), fold(keys[:, None], layers).flatten()
        )
        return {"image": gray["image"].reshape(len(indices), 3, self.size, self.size)}

    def hold_out(self, count: int) -> tuple[Stacked, Stacked]:
        """(the others, `count` images), made of gray ones that are held out."""
        rest, kept = self.held_apart(count)
        return Stacked(rest), Stacked(kept, count)
