"""Operations that turn an image of any size into one of another kind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from genimg.operations.restoring import AnySize

if TYPE_CHECKING:
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
        from genimg.masks import coloured
        from genimg.pixels import with_channels
        from genimg.plans import opaque
        from genimg.tiled import Tiled

        image = inputs["image"]
        if ability.masked and not self.back:
            planes = image.shape[2] - (image.shape[2] in (2, 4))
            image = coloured(image[..., :planes], ability.masked)
        image = with_channels(opaque(image), ability.channels)
        plan = Tiled(ability, image, self.tile)
        return plan.told(back=int(self.back)) if "back" in ability.conditions else plan
