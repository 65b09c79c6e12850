"""What operations give."""

from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """images: uint8 or uint16 [N, H, W, C]; seeds: of each, none where nothing was drawn."""

    images: np.ndarray
    seeds: tuple[int, ...] = ()


@dataclass(frozen=True)
class Frames(Pictures):
    """Pictures that follow one another."""


@dataclass(frozen=True)
class Latents:
    """array: float32 [N, D]"""

    array: np.ndarray


@dataclass(frozen=True)
class Values:
    """values: as JSON has them"""

    values: Any
