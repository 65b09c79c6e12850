"""What operations give."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """images: uint8 or uint16 [N, H, W, C]; seeds: of each, none where nothing was drawn.

    labels: what each is of, where a model was told that, as `--label` takes it
    """

    images: np.ndarray
    seeds: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()

    def only(self) -> np.ndarray:
        """The one picture [H, W, C]."""
        (image,) = self.images
        return image


@dataclass(frozen=True)
class Frames(Pictures):
    """Pictures that follow one another."""


@dataclass(frozen=True)
class Latents:
    """array: float32 [N, D]"""

    array: np.ndarray


@dataclass(frozen=True)
class Values:
    """values: as JSON has them; picture: draws what shows them, uint8 [H, W, 3]"""

    values: Any
    picture: Callable[[], np.ndarray] | None = None

    def only(self) -> np.ndarray:
        """The picture that shows them, of one image."""
        assert self.picture is not None, "an operation that `shows`"
        return self.picture()
