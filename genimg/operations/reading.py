"""Operations that say something of an image, or put it into a model's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.drawing import Conditioned
from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.inversion import Inverted
    from genimg.plans import Fitted


class Reading(Operation):
    """An operation on an image brought to the size that the model has learnt."""

    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE}


class Classify(Reading):
    """Say what an image shows."""

    name: ClassVar[str] = "classify"
    gives: ClassVar[Kind] = Kind.VALUES

    top: int = Field(5, ge=1)
    """classes that are told, the likeliest first"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Fitted:
        from genimg.plans import Fitted, likeliest

        return Fitted(ability, inputs["image"], lambda made: likeliest(made, ability, self.top))


class Encode(Reading):
    """Say where an image lies among the latents of a model."""

    name: ClassVar[str] = "encode"
    gives: ClassVar[Kind] = Kind.LATENTS

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Fitted:
        from genimg.plans import Fitted, latents_of

        return Fitted(ability, inputs["image"], latents_of)


class Reconstruct(Reading):
    """Encode an image and decode it again: what a model has understood of it."""

    name: ClassVar[str] = "reconstruct"

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Fitted:
        from genimg.plans import Fitted, picture_of

        return Fitted(ability, inputs["image"], picture_of)


class Invert(Conditioned):
    """Find latents from which a model draws an image, and tell how near it comes (PSNR)."""

    name: ClassVar[str] = "invert"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE}
    gives: ClassVar[Kind] = Kind.LATENTS
    conditions: ClassVar[frozenset[str]] = Conditioned.conditions | {"starts", "iterations"}
    unlike: ClassVar[float | None] = 15.0

    starts: int | None = Field(None, ge=1, le=64)
    """seeds with whose latents a search begins (8), for models that have no way back to them"""
    iterations: int | None = Field(None, ge=1, le=2000)
    """steps of that search (200)"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Inverted:
        from genimg.inversion import Inverted

        return Inverted(
            ability, inputs["image"], self.starts, self.iterations, self.manner(ability)
        )
