"""Operations that make an image of two."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.operation import Kind
from genimg.operations.restoring import AnySize

if TYPE_CHECKING:
    import numpy as np

    from genimg.contracts import Ability
    from genimg.stylised import Stylised


class Stylise(AnySize):
    """Give an image, or a part of it, the style of another: its colours and textures."""

    name: ClassVar[str] = "stylise"
    takes: ClassVar[Mapping[str, Kind]] = {
        "image": Kind.PICTURE, "style": Kind.PICTURE, "mask": Kind.MASK,
    }  # fmt: skip
    optional: ClassVar[frozenset[str]] = frozenset({"mask"})
    beside: ClassVar[Mapping[str, str]] = {
        "style": "the image whose style is taken; what is transparent of it is passed over",
        "mask": "white, or transparent, where an image is to have that style; left out: everywhere",
    }

    strength: float = Field(1.0, ge=0, le=1)
    """how far it goes from the image as the model draws it (0) to the style (1)"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Stylised:
        from genimg.stylised import Stylised

        mask = self.checked(inputs)
        image, style = (self.seen(ability, inputs[name]) for name in ("image", "style"))
        return Stylised(ability, image, style, self.tile, self.strength, mask)

    def pixel(self, ability: Ability, inputs: Mapping[str, Any]) -> Any:
        return self.seen(ability, super().pixel(ability, inputs))

    @staticmethod
    def seen(ability: Ability, image: np.ndarray) -> np.ndarray:
        """An image in the channels of the model, and its alpha."""
        from genimg.pixels import converted, in_colour

        return in_colour(image) if ability.channels == 3 else converted(image, 1)

    def check(self, inputs: Mapping[str, Any]) -> None:
        self.checked(inputs)

    @staticmethod
    def checked(inputs: Mapping[str, Any]) -> np.ndarray | None:
        """The mask, float32 [H, W] of 0 to 1, if there is one."""
        from genimg.errors import InputError
        from genimg.pixels import marked, transparent

        style, mask = inputs.get("style"), inputs.get("mask")
        if style is None:
            raise InputError("style is missing; give the image whose style is to be taken")
        if style.shape[2] in (2, 4) and transparent(style).min() == 1:
            raise InputError("style: is transparent all over; give an image that shows something")
        return None if mask is None else marked(mask, inputs["image"])
