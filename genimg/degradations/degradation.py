"""What a degradation is: a section of ranges that damages images, each as its key says."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Self

import torch
import torch.nn.functional as F
from pydantic import model_validator
from torch import Tensor

from genimg.pixels import to_bytes_range
from genimg.ranges import Chance

# what is told of an image that no degradation of a kind has damaged
UNDAMAGED = {"sigma": 0.0, "quality": 100.0, "mask": 0.0}


@dataclass(frozen=True)
class Damaged:
    """Images as a restorer finds them, and what it may be told of the damage.

    images: float32 [N, C, H, W]; in [-1, 1], but for noise that is not clipped
    tells: "sigma" float32 [N], of the last noise, 0 to 255; "quality" float32 [N], of the last
        JPEG, 1 to 100; "mask" float32 [N, 1, H, W], 1 where a pixel is missing. Those that a
        degradation of the list has something to say of.
    """

    images: Tensor
    tells: dict[str, Tensor] = field(default_factory=dict)


class Damage(Chance):
    """One kind of damage: its ranges, and how often it befalls an image. Subclasses apply it."""

    @abstractmethod
    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        """All images damaged, whatever the probability; shapes as in damage()."""

    def damage(self, images: Tensor, keys: Tensor) -> Damaged:
        """Images float32 [N, C, H, W] in [-1, 1] damaged as keys int64 [N], on their device, say.

        No pixel moves; only `shrink` changes the size.
        """
        return self.onto(Damaged(images), keys)

    def onto(self, before: Damaged, keys: Tensor) -> Damaged:
        """What becomes of images that others have damaged before; what was told goes on."""
        made = self.apply(before.images, keys)
        tells = dict(before.tells)
        sides = made.images.shape[-2:]
        if "mask" in tells and tells["mask"].shape[-2:] != sides:
            tells["mask"] = F.adaptive_max_pool2d(tells["mask"], sides)
        befallen = self.befallen(keys)
        for name, values in made.tells.items():
            earlier = tells.get(name, torch.full_like(values, UNDAMAGED[name]))
            latest = torch.where(befallen.view(-1, *[1] * (values.dim() - 1)), values, earlier)
            tells[name] = torch.maximum(latest, earlier) if name == "mask" else latest
        if self.probability == 1:
            return Damaged(made.images, tells)
        images = torch.where(befallen[:, None, None, None], made.images, before.images)
        return Damaged(images, tells)


class Levels(Damage):
    """Damage of one strength, which is drawn between two levels."""

    low: float
    high: float

    @model_validator(mode="after")
    def levels_are_a_range(self) -> Self:
        if self.low > self.high:
            raise ValueError(f"low={self.low:g}: must be at most high={self.high:g}")
        return self


def to_levels(images: Tensor) -> Tensor:
    """float32 of any shape, clipped to [-1, 1] and rounded to the 256 levels of bytes."""
    return to_bytes_range(images).float().div_(127.5).sub_(1)
