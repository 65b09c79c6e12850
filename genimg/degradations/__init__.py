"""What restorers learn to undo: a list of degradations, in the order in which they befall an image.

    degradations=[{kind: blur, sigma: [0.2, 3]}, {kind: noise, high: 50}, {kind: jpeg, low: 10}]

A new one is a class, and a line here.
"""

from collections.abc import Sequence
from typing import Annotated

from pydantic import BeforeValidator, Field
from torch import Tensor

from genimg.degradations.blur import Blur
from genimg.degradations.degradation import Damage, Damaged
from genimg.degradations.holes import Holes
from genimg.degradations.jpeg import JPEG
from genimg.degradations.light import Gray, Light
from genimg.degradations.noise import Noise
from genimg.degradations.resampling import Shrink, bicubic
from genimg.rng import fold
from genimg.section import of_its_kind

KINDS: dict[str, type[Damage]] = {
    each.model_fields["kind"].default: each
    for each in (Noise, Blur, JPEG, Shrink, Holes, Light, Gray)
}


Degradation = Annotated[
    Annotated[Noise | Blur | JPEG | Shrink | Holes | Light | Gray, Field(discriminator="kind")],
    BeforeValidator(of_its_kind(KINDS)),
]
"""One of a recipe's list: `degradations: tuple[Degradation, ...]`."""


def degrade(degradations: Sequence[Damage], images: Tensor, keys: Tensor) -> Damaged:
    """Images float32 [N, C, H, W] in [-1, 1], damaged by all in order, as keys int64 [N] say.

    Each draws by keys of its place in the list: of two of a kind (second-order degradations, Wang,
    Xie, Dong, Shan 2021) either has its own luck.
    """
    damaged = Damaged(images)
    for place, degradation in enumerate(degradations):
        damaged = degradation.onto(damaged, fold(keys, place) if place else keys)
    return damaged


__all__ = ["KINDS", "Damage", "Damaged", "Degradation", "bicubic", "degrade"]
