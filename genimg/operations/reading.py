"""Operations that say something of an image, or put it into a model's terms."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.drawing import Seeded
from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.plans import Fitted, Varied


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


class Vary(Seeded):
    """Draw images that are near one: its latents, and those of seeds by some part."""

    name: ClassVar[str] = "vary"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE}
    gives: ClassVar[Kind] = Kind.PICTURES

    n: int = Field(1, ge=1)
    """how many images"""
    strength: float = Field(0.5, ge=0, le=10)
    """how far they are from the image, in standard deviations of latents; 0: reconstructed"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Varied:
        from genimg.plans import Varied

        return Varied(ability, inputs["image"], self.seeds_of(self.n), self.strength)
