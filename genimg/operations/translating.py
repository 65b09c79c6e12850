"""Operations that turn an image of any size into one of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from genimg.operations.restoring import AnySize

if TYPE_CHECKING:
    import numpy as np

    from genimg.contracts import Ability
    from genimg.tiled import Tiled


class Translate(AnySize):
    """Turn an image of one kind into one of another, as the model has learnt to: day into night."""

    name: ClassVar[str] = "translate"

    back: bool = False
    """the way back, from the second kind to the first, for models that learn both"""

    def suits(self, ability: Ability) -> None:
        from genimg.errors import InputError

        if self.back and "back" not in ability.conditions:
            raise InputError("back=true: this model has learnt one way only; leave it out")

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Tiled:
        from genimg.tiled import Tiled

        plan = Tiled(ability, self.seen(ability, inputs["image"]), self.tile)
        return plan.told(back=int(self.back)) if "back" in ability.conditions else plan

    def pixel(self, ability: Ability, inputs: Mapping[str, Any]) -> Any:
        from genimg.masks import palette

        pixel = super().pixel(ability, inputs)
        if self.of_masks(ability):  # whatever its class is
            pixel = palette()[:1, None]
        return self.seen(ability, pixel)

    def of_masks(self, ability: Ability) -> bool:
        return bool(ability.masked) and not self.back

    def seen(self, ability: Ability, image: np.ndarray) -> np.ndarray:
        """uint8 [H, W, C]: an image as the model takes it, and its alpha; masks have none."""
        from genimg.masks import coloured
        from genimg.pixels import converted, in_bytes

        if self.of_masks(ability):
            planes = image.shape[2] - (image.shape[2] in (2, 4))
            image = coloured(image[..., :planes], ability.masked)
        return converted(in_bytes(image), ability.channels)
