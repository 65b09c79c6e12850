"""How strong an augmentation is, over the training."""

from __future__ import annotations

from pydantic import Field
from torch import Tensor

from genimg.ranges import Chance


class Strength(Chance):
    """What befalls images by chance, more or less of it as the training goes on.

    What an image's key draws (angles, shifts, how far factors are from 1, sides of squares, shares
    of another image) is scaled by a part: 1 is what ranges say, 0 leaves images as they are.
    """

    begin: float = Field(1.0, ge=0, le=1)
    """part of its strength at the beginning of the training; 0 leaves images as they are"""
    end: float = Field(1.0, ge=0, le=1)
    """likewise where train.burn_in ends; it goes there from `begin` along a straight line"""

    def belies(self, size: int) -> str:
        """What becomes untrue of images of `size` pixels, of which texts say what is where and how
        many; empty: nothing."""
        return ""

    def part(self, done: Tensor) -> Tensor:
        """float32 [N] in [0, 1], of its strength, where `done` of what changes lies behind."""
        return self.begin + (self.end - self.begin) * done

    @property
    def constant(self) -> bool:
        """Whether it is as strong as its ranges say from first to last."""
        return self.begin == self.end == 1
