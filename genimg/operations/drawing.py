"""Operations that make images of nothing but numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import BeforeValidator, Field

from genimg.operations.operation import Kind, Operation

if TYPE_CHECKING:
    from genimg.contracts import Ability
    from genimg.drawn import Drawn, Manner

LAST_SEED = 2**53 - 1  # the last integer that every reader of JSON holds exactly
MOST_STEPS = 50
LONGEST = 2**16  # characters of an option that lists things: a server reads no more of a request
SEEDS = r"^\d{1,15}(,\d{1,15})*$"  # one after another


def _numbers_are_names(value: Any) -> Any:
    return str(value) if type(value) is int else value


Text = Annotated[str, Field(max_length=LONGEST)]
Label = Annotated[Text, BeforeValidator(_numbers_are_names, json_schema_input_type=Text | int)]
"""Classes by their names: where these are numbers, JSON may have them as such."""


def named(seeds: str) -> list[int]:
    """Those of a text as SEEDS has it."""
    return [int(seed) for seed in seeds.split(",")]


def drawn_seed() -> int:
    """One at random."""
    import secrets

    return secrets.randbelow(2**48)


class Seeded(Operation):
    """An operation whose images depend on seeds."""

    seed: int = Field(-1, ge=-1, le=LAST_SEED)
    """image i is that of seed + i; -1: drawn at random, and told"""

    def first_seed(self) -> int:
        """The seed, or one at random."""
        return self.seed if self.seed >= 0 else drawn_seed()

    def seeds_of(self, count: int) -> range:
        """Of so many images."""
        return range(first := self.first_seed(), first + count)


class Conditioned(Operation):
    """An operation that draws, of which some models can be told more."""

    conditions: ClassVar[frozenset[str]] = frozenset(
        {"label", "text", "steps", "guidance", "direction"}
    )

    label: Label | None = None
    """the class to draw, or shares of several (cat=0.5,dog=0.5), for models that have classes"""
    text: str | None = Field(None, max_length=LONGEST)
    """what to draw, for models that take a text"""
    steps: int | None = Field(None, ge=1, le=MOST_STEPS)
    """steps from noise to image, for models that take steps; more are finer and slower"""
    guidance: float | None = Field(None, ge=0, le=20)
    """how strongly class or text is insisted on, for models that can; 1: as it was learnt"""
    direction: str | None = Field(None, max_length=LONGEST)
    """steps of a standard deviation, as thickness=1.5,slant=-1, for models that know directions"""

    def suits(self, ability: Ability) -> None:
        if self.label or self.text or self.direction:
            self.manner(ability)

    def cautions(self, ability: Ability) -> Iterator[str]:
        from genimg.texts import off_grammar

        if self.text and (caution := off_grammar(self.text, ability)):
            yield caution

    def remedy(self, condition: str, ability: Ability) -> str:
        if condition == "label" and "text" in ability.conditions:
            return "it draws by text, which may name it"
        if condition == "text" and ability.classes:
            return "it draws by label"
        if condition == "direction" and "latent" in ability.takes:
            return "`genimg directions` finds those that it has"
        return super().remedy(condition, ability)

    def manner(self, ability: Ability) -> Manner:
        """How images are drawn by models of an ability; InputError for classes they do not know."""
        from genimg.directions import shift_of
        from genimg.drawn import Manner
        from genimg.labels import shares_of
        from genimg.texts import refuse_unknown

        label = self.label or ""
        if self.text:
            refuse_unknown(self.text, ability.vocabulary, ability.words)
        shares = shares_of(label, ability.classes) if label else ()
        shift = shift_of(self.direction, ability.directions) if self.direction else None
        return Manner(label, shares, self.steps, self.guidance, shift, self.text or "")


class Drawing(Conditioned, Seeded):
    """An operation that draws images of nothing else."""

    truncation: float = Field(1.0, ge=0, le=10)
    """factor on the latents; below 1 trades variety for typicality"""


class Sample(Drawing):
    """Draw images. The same seed gives the same image, whatever else is asked for with it."""

    name: ClassVar[str] = "sample"
    gives: ClassVar[Kind] = Kind.PICTURES

    n: int = Field(1, ge=1)
    """how many images"""

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.drawn import drawn

        return drawn(ability, self.seeds_of(self.n), self.truncation, self.manner(ability))


class Interpolate(Drawing):
    """Go from image to image through those between them: of seeds, or of latents."""

    name: ClassVar[str] = "interpolate"
    takes: ClassVar[Mapping[str, Kind]] = {"latents": Kind.LATENTS}
    optional: ClassVar[frozenset[str]] = frozenset({"latents"})
    gives: ClassVar[Kind] = Kind.FRAMES

    seeds: str | None = Field(None, pattern=SEEDS, max_length=LONGEST, examples=["3,14,15"])
    """go by the images of these seeds, as 3,14,15; without it, of seed and the next"""
    to_label: Label | None = None
    """the class at the end of a way that begins with label; several, one after another: cat;dog"""
    square: bool = False
    """lay the images out as a square, between four seeds at its corners"""
    frames: int = Field(16, ge=2)
    """how many images, those it goes by among them; of a square a square number"""

    def suits(self, ability: Ability) -> None:
        super().suits(ability)
        self.labels(ability)

    def labels(self, ability: Ability) -> list[str]:
        """Classes on the way; InputError for those that the model does not know."""
        from genimg.errors import InputError
        from genimg.labels import shares_of

        if not self.to_label:
            return [self.label] if self.label else []
        told = f"to_label={self.to_label!r}"
        if not ability.classes:
            raise InputError(f"{told}: this model takes no label; leave it out")
        if self.square or not self.label:
            why = "a square goes to no label" if self.square else "give label, where it begins, too"
            raise InputError(f"{told}: {why}")
        labels = [self.label, *(each.strip() for each in self.to_label.split(";"))]
        if len(labels) > self.frames:
            raise InputError(
                f"frames={self.frames}: fewer than the {len(labels)} classes that it goes through;"
                " give more"
            )
        for each in labels[1:]:
            shares_of(each, ability.classes, "to_label")
        return labels

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        import torch

        from genimg.drawn import checked
        from genimg.errors import InputError
        from genimg.inference import latents
        from genimg.ways import refuse_frames, square, way

        given = inputs.get("latents")
        if given is not None and self.seeds:
            raise InputError(f"seeds={self.seeds!r}: latents are given; leave one of them out")
        seeds: list[int] = []
        if given is None:
            seeds = [*self.seeds_on_the_way()]
            refuse_frames(self.frames, len(seeds))
            points = latents(torch.tensor(seeds), ability.latent)
        else:
            points = checked(given, ability)
        points, manner = points * self.truncation, self.manner(ability)
        if self.square:
            return square(ability, points, self.frames, seeds, self.label or "", manner)
        return way(ability, points, self.frames, seeds, self.labels(ability), manner)

    def seeds_on_the_way(self) -> Sequence[int]:
        if self.seeds:
            return named(self.seeds)
        return self.seeds_of(4 if self.square else 2)


class Decode(Conditioned):
    """Make the images of latents."""

    name: ClassVar[str] = "decode"
    takes: ClassVar[Mapping[str, Kind]] = {"latents": Kind.LATENTS}
    gives: ClassVar[Kind] = Kind.PICTURES

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Drawn:
        from genimg.drawn import decoded

        return decoded(ability, inputs["latents"], self.manner(ability))
