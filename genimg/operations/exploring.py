"""Operations that look around in a model's latents: one at a time, near a point, and mixed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from genimg.operations.drawing import LAST_SEED, LONGEST, SEEDS, Conditioned, Drawing, Seeded, named
from genimg.operations.operation import Kind

if TYPE_CHECKING:
    from genimg.contracts import Ability, Plan
    from genimg.drawn import Drawn
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
    """which latents, as 3,0,7; without it those that change the image most, the first foremost, of
    the 256 first ones, which are the coarsest where there are more"""
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


class Mix(Drawing):
    """Give images the styles of others in some layers: what is large by coarse ones, or details."""

    name: ClassVar[str] = "mix"
    takes: ClassVar[Mapping[str, Kind]] = {"latents": Kind.LATENTS}
    optional: ClassVar[frozenset[str]] = frozenset({"latents"})
    gives: ClassVar[Kind] = Kind.GRID

    seeds: str | None = Field(None, pattern=SEEDS, max_length=LONGEST, examples=["3,14,15"])
    """the images, a row each, are those of these seeds; without it, of n seeds from seed on"""
    styles: str | None = Field(None, pattern=SEEDS, max_length=LONGEST, examples=["92,65"])
    """seeds whose styles they are given, a column each; without it, they are given one another's"""
    layers: str | None = Field(
        None, pattern=r"^\d{1,4}(-\d{1,4})?(px)?$", examples=["0-3", "8-16px"]
    )
    """in which layers, as 0-3, or by what they draw, as 4-8px; without it, the finer half"""
    n: int = Field(2, ge=1)
    """how many images, where their seeds are not named"""
    alone: bool = False
    """leave out the images themselves, which else are in front of the rows, above the columns"""

    def suits(self, ability: Ability) -> None:
        super().suits(ability)
        self.layers_of(ability)

    def layers_of(self, ability: Ability) -> range:
        """Those that are meant; InputError where the model has none such."""
        from genimg.errors import InputError

        count, side = ability.layers, ability.side or 0
        if not self.layers:
            return range(count // 2, count)
        first, _, last = self.layers.removesuffix("px").partition("-")
        ends = int(first), int(last or first)
        sides = [side >> (count - 1 - number) // 2 for number in range(count)]
        names = sides if self.layers.endswith("px") else [*range(count)]
        meant = [number for number, name in enumerate(names) if ends[0] <= name <= ends[1]]
        if not meant or not {*ends} <= {*names}:
            raise InputError(
                f"layers={self.layers!r}: this model has the layers 0 to {count - 1}, two of each"
                f" of {', '.join(f'{each}px' for each in sides[::2])}; give some of them, as"
                f" {count // 2}-{count - 1} or {sides[0]}-{sides[2]}px"
            )
        return range(meant[0], meant[-1] + 1)

    @property
    def drawn(self) -> int:
        down = self.seeds.count(",") + 1 if self.seeds else self.n
        across = self.styles.count(",") + 1 if self.styles else down
        return down * across if self.alone else (down + 1) * (across + 1) - 1

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.errors import InputError
        from genimg.mixed import mixed, of_given, of_seeds

        given, manner = inputs.get("latents"), self.manner(ability)
        if given is not None and self.seeds:
            raise InputError(f"seeds={self.seeds!r}: latents are given; leave one of them out")
        if given is not None:
            rows = of_given(ability, given, self.truncation, manner)
        else:
            seeds = named(self.seeds) if self.seeds else self.seeds_of(self.n)
            rows = of_seeds(ability, seeds, self.truncation, manner)
        columns = None
        if self.styles:
            columns = of_seeds(ability, named(self.styles), self.truncation, manner)
        return mixed(ability, rows, columns, self.layers_of(ability), self.alone, manner)


class Vary(Conditioned, Seeded):
    """Draw images that are near one: near its latents, by those of seeds."""

    name: ClassVar[str] = "vary"
    takes: ClassVar[Mapping[str, Kind]] = {"image": Kind.PICTURE, "latents": Kind.LATENTS}
    optional: ClassVar[frozenset[str]] = frozenset({"image", "latents"})
    gives: ClassVar[Kind] = Kind.PICTURES
    reads: ClassVar[Mapping[str, str]] = {"image": "encode"}
    instead: ClassVar[Mapping[str, str]] = {
        "image": "give latents that `invert` has found of it, or the seed of one of the model's own"
        " (of=7)"
    }

    n: int = Field(1, ge=1)
    """how many images"""
    strength: float = Field(0.5, ge=0, le=10)
    """how far they are from the image, in standard deviations of latents; 0: as it is"""
    of: int | None = Field(None, ge=0, le=LAST_SEED)
    """the seed of the image that they are near, where neither image nor latents are given"""

    def check(self, inputs: Mapping[str, Any]) -> None:
        from genimg.errors import InputError, listed

        given = [name for name in self.takes if inputs.get(name) is not None]
        if not given and self.of is None:
            raise InputError(
                "of: neither an image nor latents are given; give one of them, or the seed of an"
                " image (of=7)"
            )
        if self.of is not None and given:
            raise InputError(f"of={self.of}: give either that or {listed(given)}, not both")
        if len(given) > 1:
            raise InputError("latents: give either these or an image, not both")

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Plan:
        from genimg.errors import InputError
        from genimg.explored import near, point_of
        from genimg.plans import Varied

        self.check(inputs)
        image, given = inputs.get("image"), inputs.get("latents")
        seeds, manner = self.seeds_of(self.n), self.manner(ability)
        if image is None:
            point = point_of(ability, manner, given, self.of or 0)
            return near(ability, point, seeds, self.strength, manner)
        if "image" not in ability.takes:
            raise InputError(f"image: this model reads none; {self.instead['image']}")
        return Varied(ability, image, seeds, self.strength, manner.shift)
