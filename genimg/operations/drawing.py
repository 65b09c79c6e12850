"""Operations that make images of nothing but numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.plans import Drawn

LAST_SEED = 2**53 - 1  # the last integer that every reader of JSON holds exactly


class Seeded(Operation):
    """An operation whose images depend on seeds."""

    seed: int = Field(-1, ge=-1, le=LAST_SEED)
    """image i is that of seed + i; -1: drawn at random, and told"""

    def first_seed(self) -> int:
        """The seed, or one at random."""
        if self.seed >= 0:
            return self.seed
        import secrets

        return secrets.randbelow(2**48)

    def seeds(self, count: int) -> range:
        """Of so many images."""
        return range(first := self.first_seed(), first + count)


class Drawing(Seeded):
    """An operation that draws images of nothing else."""

    truncation: float = Field(1.0, ge=0, le=10)
    """factor on the latents; below 1 trades variety for typicality"""


class Sample(Drawing):
    """Draw images. The same seed gives the same image, whatever else is asked for with it."""

    name: ClassVar[str] = "sample"
    gives: ClassVar[Kind] = Kind.PICTURES
    conditions: ClassVar[frozenset[str]] = frozenset({"label", "text"})

    n: int = Field(1, ge=1)
    """how many images"""
    label: str | None = None
    """the class to draw, for models that have classes"""
    text: str | None = None
    """what to draw, for models that take a text"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.plans import drawn

        return drawn(ability, self.seeds(self.n), self.truncation)


class Interpolate(Drawing):
    """Go from one image to another through the images between them."""

    name: ClassVar[str] = "interpolate"
    gives: ClassVar[Kind] = Kind.FRAMES

    frames: int = Field(16, ge=2)
    """how many images, both ends among them"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.plans import between

        first = self.first_seed()
        return between(ability, first, first + 1, self.frames, self.truncation)


class Decode(Operation):
    """Make the images of latents."""

    name: ClassVar[str] = "decode"
    takes: ClassVar[Mapping[str, Kind]] = {"latents": Kind.LATENTS}
    gives: ClassVar[Kind] = Kind.PICTURES

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.plans import decoded

        return decoded(ability, inputs["latents"])
