"""What a layer of a scene is: pictures on surfaces, a label, and how it meets what lies below."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Annotated, Literal

import numpy as np
from pydantic import AfterValidator, BeforeValidator, Field
from torch import Tensor

from genimg.composition.gathered import Collage, Mosaic
from genimg.composition.pictures import File, Picture, Plain, from_text
from genimg.composition.surfaces import Surface
from genimg.ranges import Chance, Range, draw
from genimg.section import of_its_kind

BACKGROUND = "background"  # what masks call class 0


def _line(text: str) -> str:
    if text != text.strip() or len(text.splitlines()) != 1:
        raise ValueError("give words in one line, without space around them")
    return text


def _label(text: str) -> str:
    if _line(text) == BACKGROUND:
        raise ValueError("masks call class 0 so, where nothing with a label is seen; give another")
    return text


PICTURES: dict[str, type[Picture]] = {
    each.model_fields["kind"].default: each for each in (File, Plain, Collage, Mosaic)
}
_read = of_its_kind(PICTURES)

AnyPicture = Annotated[
    Annotated[File | Plain | Collage | Mosaic, Field(discriminator="kind")],
    BeforeValidator(lambda value: _read(from_text(value))),
]
"""A picture by its keys, or only named: a file, a folder, or a colour as #c8c8c8."""

Place = Annotated[float, Field(ge=-100_000, le=100_000)]
Point = tuple[Place, Place]
Degrees = Annotated[float, Field(ge=-360, le=360)]
Line = Annotated[str, Field(min_length=1, max_length=100)]
Label = Annotated[Line, AfterValidator(_label)]
Count = Annotated[int, Field(ge=0, le=100)]


class Layer(Chance):
    """One kind of layer. Lengths and places are pixels of the canvas, from its upper left.

    What is a range is drawn for each composed image; a single number is just that.
    """

    image: AnyPicture
    """its picture: a file, one of a folder, a colour as #c8c8c8, or the keys of a picture"""
    label: Label | None = None
    """its class in masks, boxes and captions; without one it only hides what lies below"""
    caption: str | None = Field(None, min_length=1, max_length=100)
    """what captions call it, as "a red cup"; left out: a, or an, and its label"""
    copies: Range[Count] = (1, 1)
    """how many there are, each with a picture and a place of its own"""
    feather: int = Field(0, ge=0, le=500)
    """pixels inwards from its border over which it fades in"""
    blend: Literal["over", "poisson", "mixed"] = "over"
    """over what lies below; or its gradients, or (mixed) the greater of both, with the colours of
    what surrounds it (Pérez et al. 2003)"""

    @abstractmethod
    def surfaces(
        self, pictures: Sequence[np.ndarray], canvas: tuple[int, int], key: Tensor
    ) -> list[Surface]:
        """Where its pictures, uint8 [H, W, 4] each, lie on a canvas of (width, height).

        key: int64 [1]. No two of the surfaces cover one place.
        """

    def pictures(self) -> Sequence[Picture]:
        """What `surfaces` takes."""
        return (self.image,)

    def called(self) -> str:
        """In captions."""
        if self.caption:
            return self.caption
        assert self.label, "without a label it is in no caption"
        return f"{'an' if self.label[0].lower() in 'aeiou' else 'a'} {self.label}"


def number(key: Tensor, name: str, between: tuple[float, float]) -> float:
    """One number of a range, for a key int64 [1]."""
    return draw(key, name, *between).item()


def middle(
    key: Tensor, name: str, between: tuple[float, float] | None, half: float, side: int
) -> float:
    """Where a middle lies along a side: as told, or anywhere that half a length has room."""
    if between is None:
        between = (half, side - half) if 2 * half < side else (side / 2, side / 2)
    return number(key, name, between)
