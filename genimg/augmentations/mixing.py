"""Augmentations that mix an image with another of its batch, and what is beside both.

An image's partner is its neighbour in the global batch, place 0 with 1, 2 with 3 and so on, as it
is by then: turned, shifted, and varied by what comes before in the list. The loader divides batches
among workers between such pairs and never within one (Recipe.together). So who mixes with whom, and
how, follows from the position alone: it is the same on any number of workers, and after a training
was resumed. Nothing is read for it that is not in the batch anyway, also of sets that are streamed.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar, Literal

from pydantic import Field
from torch import Tensor

from genimg.augmentations.strength import Strength
from genimg.augmentations.values import squares
from genimg.contracts import Stored
from genimg.ranges import word
from genimg.rng import fold, uniform

PAIR = 2  # neighbours in a batch that are each other's partners

CAPTION = "a caption would no longer tell what is seen"


@dataclass(frozen=True)
class Mix:
    """What N images become with their partners.

    weights: float32 [N, 1, H, W] in [0, 1], or of sides of 1: the partner's at each pixel
    share:   float32 [N] in [0, 1], of the partner's label
    given:   bool [N, K], which of the partner's boxes come along
    objects: bool [N, H, W], where an image showed objects before
    """

    weights: Tensor
    share: Tensor | None = None
    given: Tensor | None = None
    objects: Tensor | None = None


class Mixing(Strength):
    """One kind that mixes images with their partners.

    refuses: columns that cannot follow, and why
    needs: columns that it goes by, whatever is learnt from
    """

    refuses: ClassVar[Mapping[str, str]]
    needs: ClassVar[tuple[str, ...]] = ()

    @abstractmethod
    def mix(self, stored: Stored, keys: Tensor, part: Tensor) -> Mix:
        """Of N images with one another, for keys int64 [N]; part: float32 [N], of the strength."""


class Mixup(Mixing):
    """All of both, as if one shone through the other (Zhang et al. 2018); labels likewise."""

    kind: Literal["mixup"] = "mixup"
    """an image shines through another; labels in the same shares"""
    alpha: float = Field(0.2, gt=0, le=100)
    """shares are of the distribution Beta(alpha, alpha): 1: all alike; small: of one almost all"""

    refuses: ClassVar[Mapping[str, str]] = {
        "mask": "a pixel is of one class, not of two in part",
        "boxes": "an object is there or is not, and boxes cannot tell how faintly it is seen",
        "text": CAPTION,
    }

    def mix(self, stored: Stored, keys: Tensor, part: Tensor) -> Mix:
        share = beta(fold(keys, word("mixup")), self.alpha) * part
        return Mix(share[:, None, None, None], share)


class CutMix(Mixing):
    """A square shows the partner (Yun et al. 2019); labels by area, masks as the pixels.

    Its area is drawn from Beta(alpha, alpha), its middle anywhere; what lies beyond a border is
    missing, and labels go by what is left.
    """

    kind: Literal["cutmix"] = "cutmix"
    """a square of another image; labels by its area"""
    alpha: float = Field(1.0, gt=0, le=100)
    """areas of squares are of the distribution Beta(alpha, alpha), as shares of the image's"""

    refuses: ClassVar[Mapping[str, str]] = {
        "boxes": "it cuts through objects, and boxes do not tell what is left; use copy-paste",
        "text": CAPTION,
    }

    def mix(self, stored: Stored, keys: Tensor, part: Tensor) -> Mix:
        area = beta(fold(keys, word("cutmix")), self.alpha) * part
        centres = uniform(fold(keys, word("middle")), (2, 1))
        seen = squares(centres, area.sqrt(), stored["image"].shape).float()
        return Mix(seen, seen.mean(dim=(1, 2, 3)))


def partners(values: Tensor) -> Tensor:
    """Those of N rows, N being even: neighbours change places."""
    return values.unflatten(0, (-1, PAIR)).flip(1).flatten(0, 1)


def beta(keys: Tensor, alpha: float) -> Tensor:
    """float32 [N] in [0, 1] of Beta(alpha, alpha), for keys int64 [N].

    Of Student's t by Bailey's polar method (eq. 4, Devroye 1996, Random variate generation in one
    line of code).
    """
    chance, turn = uniform(keys, (2,)).unbind(1)
    across = (turn * (2 * math.pi)).cos()
    power = ((1 - chance).log() / alpha).exp()
    root = ((1 - power) / (power + (1 - power) * across.square())).sqrt()
    return (0.5 + 0.5 * across * root).clamp_(0, 1)
