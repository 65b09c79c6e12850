"""How images are varied for training: a list of augmentations, in the order in which they are done.

    data.augmentations=[{kind: affine, rotate: 10}, {kind: cutout, probability: 0.5}]

A new one is a class, and a line here. What is beside an image follows those that move its pixels
(genimg.data.augment).
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from genimg.augmentations.geometry import Affine, Elastic, Geometric, Perspective, Warp
from genimg.augmentations.values import Cutout, Light, Values
from genimg.section import of_its_kind

KINDS: dict[str, type[Geometric] | type[Values]] = {
    each.model_fields["kind"].default: each
    for each in (Affine, Perspective, Elastic, Light, Cutout)
}

Augmentation = Annotated[
    Annotated[Affine | Perspective | Elastic | Light | Cutout, Field(discriminator="kind")],
    BeforeValidator(of_its_kind(KINDS)),
]
"""One of a recipe's list: `augmentations: tuple[Augmentation, ...]`."""

__all__ = ["KINDS", "Augmentation", "Geometric", "Values", "Warp"]
