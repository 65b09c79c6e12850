"""How images are varied for training: a list of augmentations, in the order in which they are done.

    data.augmentations=[{kind: affine, rotate: 10}, {kind: cutmix, probability: 0.5, end: 0}]

A new one is a class, and a line here. What is beside an image follows those that move its pixels or
mix it with another (genimg.data.augment).
"""

from typing import Annotated

from pydantic import BeforeValidator, Field

from genimg.augmentations.geometry import Affine, Elastic, Geometric, Perspective, Warp
from genimg.augmentations.mixing import PAIR, CutMix, Mix, Mixing, Mixup, partners
from genimg.augmentations.pasting import CopyPaste, Places
from genimg.augmentations.values import Cutout, Light, Values
from genimg.section import of_its_kind

AnyKind = Affine | Perspective | Elastic | Light | Cutout | Mixup | CutMix | CopyPaste

KINDS: dict[str, type[AnyKind]] = {
    each.model_fields["kind"].default: each
    for each in (Affine, Perspective, Elastic, Light, Cutout, Mixup, CutMix, CopyPaste)
}

Augmentation = Annotated[
    Annotated[AnyKind, Field(discriminator="kind")], BeforeValidator(of_its_kind(KINDS))
]
"""One of a recipe's list: `augmentations: tuple[Augmentation, ...]`."""

__all__ = [
    "KINDS",
    "PAIR",
    "Augmentation",
    "Geometric",
    "Mix",
    "Mixing",
    "Places",
    "Values",
    "Warp",
    "partners",
]
