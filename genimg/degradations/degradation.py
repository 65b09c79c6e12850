"""What a degradation is: a section of ranges that damages images, each as its key says.

Each draw folds a word of its own into the key, so that all that is drawn for an image (the level of
the noise, the noise itself, crops, augmentation) is independent of one another.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field
from typing import Annotated, Any, Self, TypeVar

import torch
import torch.nn.functional as F
from pydantic import AfterValidator, BeforeValidator, Field, model_validator
from torch import Tensor

from genimg.pixels import to_bytes_range
from genimg.rng import fold, uniform
from genimg.section import Section

# what is told of an image that no degradation of a kind has damaged
UNDAMAGED = {"sigma": 0.0, "quality": 100.0, "mask": 0.0}

Number = TypeVar("Number", int, float)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


def _ascending(pair: tuple[Number, Number]) -> tuple[Number, Number]:
    if pair[0] > pair[1]:
        raise ValueError(f"a range has its smallest value first: [{pair[1]:g}, {pair[0]:g}]")
    return pair


Range = Annotated[tuple[Number, Number], BeforeValidator(_pair), AfterValidator(_ascending)]
"""Smallest and largest of a value that is drawn for each image; a single number is both."""


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


class Damage(Section):
    """One kind of damage: its ranges, and how often it befalls an image. Subclasses apply it."""

    probability: float = Field(1.0, ge=0, le=1)
    """share of the images that are damaged; the others keep their pixels exactly"""

    def told(self) -> str:
        """Itself in words: its kind and strength, then all else but what is off."""
        values = self.model_dump()
        words = [values.pop("kind")]
        if values.pop("probability") != 1:
            words.append(f"of {self.probability:g}")
        if "low" in values:
            words.append(between(values.pop("low"), values.pop("high")))
        for key, value in values.items():
            if value is True:
                words.append(key)
            elif isinstance(value, tuple):
                numbers = all(isinstance(each, float) for each in value)
                words.append(f"{key} {between(*value) if numbers else ' '.join(value)}")
            elif value:
                words.append(f"{key} {value}")
        return " ".join(words)

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
        if self.probability == 1:
            befallen = torch.ones_like(keys, dtype=torch.bool)
        else:
            befallen = uniform(fold(keys, word("chance"))) < self.probability
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


def between(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def word(text: str) -> int:
    """What a draw folds into its keys."""
    return int.from_bytes(text.encode())


def draw(keys: Tensor, name: str, low: float, high: float) -> Tensor:
    """float32 [N], uniform in [low, high], for keys int64 [N]; low = high gives that value."""
    assert low <= high, f"{name} from {low} to {high}"
    return (low + (high - low) * uniform(fold(keys, word(name)))).clamp_(max=high)


def to_levels(images: Tensor) -> Tensor:
    """float32 of any shape, clipped to [-1, 1] and rounded to the 256 levels of bytes."""
    return to_bytes_range(images).float().div_(127.5).sub_(1)
