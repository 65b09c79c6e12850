"""What an operation is: options, and what it takes and gives. No PyTorch: help is made of it."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from enum import StrEnum
from typing import TYPE_CHECKING, Any, ClassVar

from genimg.section import Section

if TYPE_CHECKING:
    from genimg.contracts import Ability, Plan


class Kind(StrEnum):
    """What goes into an operation, and what comes out."""

    PICTURE = "picture"  # [H, W, C], uint8 or uint16; any size, with or without alpha
    MASK = "mask"  # a picture as large as another: white, or transparent, is what it marks
    PICTURES = "pictures"  # uint8 [N, H, W, C], each of a seed
    FRAMES = "frames"  # likewise, one after the other; what goes in may be a single one
    GRID = "grid"  # likewise, in rows, which are one picture
    LATENTS = "latents"  # float32 [N, D]
    VALUES = "values"  # plain values, as JSON has them


DRAWN = frozenset({Kind.PICTURES, Kind.FRAMES, Kind.GRID})  # of as many as a person asks for


class Operation(Section):
    """One thing that models do. A subclass declares it; its keys are the options."""

    name: ClassVar[str]  # the verb, the route, the key of Recipe.abilities
    takes: ClassVar[Mapping[str, Kind]] = {}
    optional: ClassVar[frozenset[str]] = frozenset()  # of what it takes: what may be left out
    beside: ClassVar[Mapping[str, str]] = {}  # pictures that go with the image: what each is
    gives: ClassVar[Kind] = Kind.PICTURE
    shows: ClassVar[bool] = False  # a picture can show the values that it gives
    conditions: ClassVar[frozenset[str]] = frozenset()  # options that only some models honour
    reads: ClassVar[Mapping[str, str]] = {}  # of what it takes what only some models read: those
    # that can do this operation too
    instead: ClassVar[Mapping[str, str]] = {}  # what to do about each of these with others

    def plan(self, ability: Ability, inputs: Mapping[str, Any]) -> Plan:
        """What is to be computed for these inputs. Raises InputError where they cannot be used."""
        raise NotImplementedError(f"{self.name} is asked of a model by a name of its own")

    def suits(self, ability: Ability) -> None:
        """InputError for options with which a model of this ability can do nothing."""

    def cautions(self, ability: Ability) -> Iterator[str]:
        """What a person should know of options of which a model of this ability will not make what
        they may expect."""
        yield from ()

    def check(self, inputs: Mapping[str, Any]) -> None:
        """What is wrong with the inputs, whichever model computes: told before one is loaded."""

    def exact(self) -> bool:
        """Whether each value of its pictures means something, so that none may be changed."""
        return False

    @property
    def drawn(self) -> int:
        """How many images it draws, where it draws some."""
        return int(self.option("n", self.option("frames", 1)))

    def option(self, name: str, otherwise: Any = None) -> Any:
        """The value of an option that only some operations have; `otherwise` where this has none.

        Pydantic's getattr takes ten times as long for what is not there.
        """
        return self.__dict__.get(name, otherwise)

    def asks(self, given: Collection[str]) -> str:
        """The operation that a model must be able to do for this one on given inputs."""
        return next((self.reads[name] for name in given if name in self.reads), self.name)

    def told(self) -> frozenset[str]:
        """Those of `conditions` that are given."""
        return frozenset(name for name in self.conditions if self.option(name) not in (None, ""))

    def remedy(self, condition: str, ability: Ability) -> str:
        """What to do about one of `conditions` that models of an ability do not honour."""
        return "leave it out"

    @classmethod
    def needs(cls) -> bool:
        """Whether there is nothing to be done without a file."""
        return bool(cls.takes.keys() - cls.optional)

    @classmethod
    def must_have(cls) -> tuple[str, ...]:
        """Of the pictures that go with the image those that may not be left out."""
        return tuple(name for name in cls.beside if name not in cls.optional)

    @classmethod
    def about(cls) -> str:
        """What it does: the first paragraph of its docstring, in a line."""
        return " ".join((cls.__doc__ or "").split("\n\n")[0].split())
