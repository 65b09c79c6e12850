"""Operations on images that follow one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.drawing import LAST_SEED, drawn_seed
from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.animated import Animated
    from genimg.contracts import Ability


class Animate(Operation):
    """Go on with a clip, or with an image that begins one: show it with the frames that follow."""

    name: ClassVar[str] = "animate"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.FRAMES}
    gives: ClassVar[Kind] = Kind.FRAMES
    conditions: ClassVar[frozenset[str]] = frozenset({"seed"})

    frames: int = Field(10, ge=1)
    """how many frames follow"""
    seed: int | None = Field(None, ge=0, le=LAST_SEED)
    """which future, for models that draw one; without it one at random, which is told"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Animated:
        from genimg.animated import Animated

        seed = self.seed
        if ability.latent and seed is None:
            seed = drawn_seed()
        return Animated(ability, inputs["image"], self.frames, seed)
