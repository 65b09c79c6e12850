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
    """Go on with a clip, or with an image that begins one: show it with the frames that follow.

    Without either a model that can begin by itself draws a clip.
    """

    name: ClassVar[str] = "animate"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.FRAMES}
    optional: ClassVar[frozenset[str]] = frozenset({"image"})
    gives: ClassVar[Kind] = Kind.FRAMES
    conditions: ClassVar[frozenset[str]] = frozenset({"seed"})

    frames: int = Field(10, ge=1)
    """how many frames follow"""
    seed: int | None = Field(None, ge=0, le=LAST_SEED)
    """which future, or clip, for models that draw one; without it one at random, which is told"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Animated:
        from genimg.animated import Animated
        from genimg.errors import InputError

        seed = self.seed
        if ability.latent and seed is None:
            seed = drawn_seed()
        given = inputs.get("image")
        if given is None and not ability.begins:
            raise InputError(
                "image: this model goes on with a clip or an image, and there is none; give one, or"
                " a model that begins by itself (frame-vae, of loss.hidden above 0)"
            )
        return Animated(ability, () if given is None else given, self.frames, seed)
