"""What befalls images by chance: sections of ranges, out of which each image's key draws.

Each draw folds a word of its own into the key, so that all that is drawn for an image (the level of
the noise, the noise itself, crops, augmentation) is independent of one another.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeVar

import torch
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor

from genimg.rng import fold, uniform
from genimg.section import Section

Number = TypeVar("Number", int, float)


def _pair(value: Any) -> Any:
    return (value, value) if isinstance(value, int | float) else value


def _ascending(pair: tuple[Number, Number]) -> tuple[Number, Number]:
    if pair[0] > pair[1]:
        raise ValueError(f"a range has its smallest value first: [{pair[1]:g}, {pair[0]:g}]")
    return pair


Range = Annotated[tuple[Number, Number], BeforeValidator(_pair), AfterValidator(_ascending)]
"""Smallest and largest of a value that is drawn for each image; a single number is both."""


class Chance(Section):
    """One kind of thing that befalls images: its ranges, and how often it does."""

    probability: float = Field(1.0, ge=0, le=1)
    """share of the images that it befalls; the others keep their pixels exactly"""

    def befallen(self, keys: Tensor) -> Tensor:
        """bool [N], for keys int64 [N]."""
        if self.probability == 1:
            return torch.ones_like(keys, dtype=torch.bool)
        return uniform(fold(keys, word("chance"))) < self.probability

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


def between(low: float, high: float) -> str:
    return f"{low:g}" if low == high else f"{low:g} to {high:g}"


def word(text: str) -> int:
    """What a draw folds into its keys."""
    return int.from_bytes(text.encode())


def draw(keys: Tensor, name: str, low: float, high: float) -> Tensor:
    """float32 [N], uniform in [low, high], for keys int64 [N]; low = high gives that value."""
    assert low <= high, f"{name} from {low} to {high}"
    return (low + (high - low) * uniform(fold(keys, word(name)))).clamp_(max=high)
