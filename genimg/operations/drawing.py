"""Operations that make images of nothing but numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.drawn import Drawn, Manner

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


class Conditioned(Operation):
    """An operation that draws, of which some models can be told more."""

    conditions: ClassVar[frozenset[str]] = frozenset({"label", "steps", "guidance"})

    label: str | None = None
    """the class to draw, or shares of several (cat=0.5,dog=0.5), for models that have classes"""
    steps: int | None = Field(None, ge=1, le=50)
    """steps from noise to image, for models that take steps; more are finer and slower"""
    guidance: float | None = Field(None, ge=0, le=20)
    """how strongly the class is insisted on, for models that can; 1: as it was learnt"""

    def suits(self, ability: Ability) -> None:
        self.manner(ability)

    def manner(self, ability: Ability) -> Manner:
        """How images are drawn by models of an ability; InputError for classes they do not know."""
        from genimg.drawn import Manner
        from genimg.labels import shares_of

        label = self.label or ""
        shares = shares_of(label, ability.classes) if label else ()
        return Manner(label, shares, self.steps, self.guidance)


class Drawing(Conditioned, Seeded):
    """An operation that draws images of nothing else."""

    truncation: float = Field(1.0, ge=0, le=10)
    """factor on the latents; below 1 trades variety for typicality"""


class Sample(Drawing):
    """Draw images. The same seed gives the same image, whatever else is asked for with it."""

    name: ClassVar[str] = "sample"
    gives: ClassVar[Kind] = Kind.PICTURES
    conditions: ClassVar[frozenset[str]] = Conditioned.conditions | {"text"}

    n: int = Field(1, ge=1)
    """how many images"""
    text: str | None = None
    """what to draw, for models that take a text"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.drawn import drawn

        return drawn(ability, self.seeds(self.n), self.truncation, self.manner(ability))


class Interpolate(Drawing):
    """Go from one image to another through the images between them."""

    name: ClassVar[str] = "interpolate"
    gives: ClassVar[Kind] = Kind.FRAMES

    frames: int = Field(16, ge=2)
    """how many images, both ends among them"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.drawn import between

        first, manner = self.first_seed(), self.manner(ability)
        return between(ability, first, first + 1, self.frames, self.truncation, manner)


class Decode(Conditioned):
    """Make the images of latents."""

    name: ClassVar[str] = "decode"
    takes: ClassVar[Mapping[str, Kind]] = {"latents": Kind.LATENTS}
    gives: ClassVar[Kind] = Kind.PICTURES

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.drawn import decoded

        return decoded(ability, inputs["latents"], self.manner(ability))
