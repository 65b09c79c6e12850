"""What restorers learn to undo: a list of degradations, in the order in which they befall an image.

    degradations=[{kind: blur, sigma: [0.2, 3]}, {kind: noise, high: 50}, {kind: jpeg, low: 10}]

A new one is a class, and a line here.
"""

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

from pydantic import BeforeValidator, Field
from torch import Tensor

from genimg.degradations.blur import Blur
from genimg.degradations.degradation import Damage, Damaged
from genimg.degradations.holes import Holes
from genimg.degradations.jpeg import JPEG
from genimg.degradations.light import Gray, Light
from genimg.degradations.noise import Noise
from genimg.degradations.resampling import Shrink, bicubic
from genimg.errors import InputError, nearest
from genimg.rng import fold

KINDS: dict[str, type[Damage]] = {
    each.model_fields["kind"].default: each
    for each in (Noise, Blur, JPEG, Shrink, Holes, Light, Gray)
}


def _of_its_kind(value: Any) -> Any:
    """A tree of keys as the degradation of its kind, so that errors are about its own keys."""
    if not isinstance(value, Mapping):
        return value
    if "kind" not in value:
        raise InputError(f"kind is missing; known: {', '.join(sorted(KINDS))}")
    kind = str(value["kind"])
    if kind not in KINDS:
        raise InputError(f"kind={kind!r}: {nearest(kind, KINDS)}")
    return KINDS[kind].validated(value)


Degradation = Annotated[
    Annotated[Noise | Blur | JPEG | Shrink | Holes | Light | Gray, Field(discriminator="kind")],
    BeforeValidator(_of_its_kind),
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
