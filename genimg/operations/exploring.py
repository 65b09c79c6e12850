"""Operations that look around in a model's latents: one at a time, and near a point."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.drawing import LAST_SEED, LONGEST, Conditioned, Drawing, Seeded
from genimg.operations.operation import Kind

if TYPE_CHECKING:
    from genimg.contracts import Ability, Plan
    from genimg.explored import Traversed


class Traverse(Drawing):
    """Show what each latent does: a row each, in which it alone changes."""

    name: ClassVar[str] = "traverse"
    takes: ClassVar[Mapping[str, Kind]] = {"latents": Kind.LATENTS}
    optional: ClassVar[frozenset[str]] = frozenset({"latents"})
    gives: ClassVar[Kind] = Kind.FRAMES

    dims: str | None = Field(
        None, pattern=r"^\d{1,6}(,\d{1,6})*$", max_length=LONGEST, examples=["3,0,7"]
    )
    """which latents, as 3,0,7; without it those that change the image most, the first foremost"""
    n: int = Field(8, ge=1)
    """how many latents, where they are not named"""
    frames: int = Field(7, ge=2)
    """images in a row"""
    reach: float = Field(2.0, gt=0, le=10)
    """a row goes from minus this to this, in standard deviations of latents"""

    @property
    def drawn(self) -> int:
        rows = len(self.dims.split(",")) if self.dims else self.n
        return rows * self.frames

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Traversed:
        from genimg.explored import Traversed, point_of

        manner, given = self.manner(ability), inputs.get("latents")
        point = point_of(ability, manner, given, self.first_seed()).times(self.truncation)
        dims = None if self.dims is None else [int(each) for each in self.dims.split(",")]
        return Traversed(ability, point, dims, self.n, self.frames, self.reach, manner)


class Vary(Conditioned, Seeded):
    """Draw images that are near one: near its latents, by those of seeds."""

    name: ClassVar[str] = "vary"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE, "latents": Kind.LATENTS}
    optional: ClassVar[frozenset[str]] = frozenset({"image", "latents"})
    gives: ClassVar[Kind] = Kind.PICTURES

    n: int = Field(1, ge=1)
    """how many images"""
    strength: float = Field(0.5, ge=0, le=10)
    """how far they are from the image, in standard deviations of latents; 0: as it is"""
    of: int | None = Field(None, ge=0, le=LAST_SEED)
    """the seed of the image that they are near, where neither image nor latents are given"""

    def asks(self, given: Collection[str]) -> str:
        return "encode" if "image" in given else self.name

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Plan:
        from genimg.errors import InputError
        from genimg.explored import near, point_of
        from genimg.plans import Varied

        image, given = inputs.get("image"), inputs.get("latents")
        if [image is None, given is None, self.of is None].count(False) != 1:
            raise InputError(
                f"of={self.of}: give one of an image, latents, or the seed of an image (of=7)"
            )
        seeds, manner = self.seeds_of(self.n), self.manner(ability)
        if image is None:
            point = point_of(ability, manner, given, self.of or 0)
            return near(ability, point, seeds, self.strength, manner)
        if "image" not in ability.takes:
            raise InputError(
                "image: this model reads none; give latents that `invert` has found of it, or the"
                " seed of one of the model's own (of=7)"
            )
        return Varied(ability, image, seeds, self.strength, manner.shift)
