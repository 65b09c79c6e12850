"""Operations that say where what is in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from genimg.operations.operation import Kind
from genimg.operations.reading import Reading
from genimg.operations.restoring import AnySize

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.plans import Fitted
    from genimg.seen import Segmented


class Segment(AnySize):
    """Say of each pixel of an image of any size what it belongs to."""

    name: ClassVar[str] = "segment"

    show: Literal["overlay", "mask"] = "overlay"
    """overlay: classes in colours over the image; mask: gray, a pixel's value its class"""

    def exact(self) -> bool:
        return self.show == "mask"

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Segmented:
        from genimg.seen import Segmented

        return Segmented(ability, inputs["image"], self.tile, self.show)

    def pixel(self, ability: Ability, inputs: Mapping[str, Any]) -> Any:
        import numpy as np

        return np.zeros((1, 1, 1 if self.show == "mask" else 3), np.uint8)


class Detect(Reading):
    """Find objects in an image: what they are, and the boxes that they are in."""

    name: ClassVar[str] = "detect"
    gives: ClassVar[Kind] = Kind.VALUES
    shows: ClassVar[bool] = True

    threshold: float = Field(0.3, ge=0, le=1)
    """least score of an object that is told"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Fitted:
        from genimg.plans import Fitted
        from genimg.seen import boxes_in

        image = inputs["image"]
        return Fitted(ability, image, lambda made: boxes_in(image, made, ability, self.threshold))
