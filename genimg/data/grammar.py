"""The grammar of captions that say how many objects there are, what they are like, and where.

a red striped star left of a blue disc
three green crosses
"""

from __future__ import annotations

import re
from typing import NamedTuple

from genimg.data.layout import COLOURS
from genimg.data.shapes import SHAPES

TOLD_SHAPES = tuple(name for name in SHAPES if name != "hexagon")  # nearly a disc, where small
TOLD_COLOURS = tuple(name for name in COLOURS if name != "pink")  # nearly a lightened red
TOLD_TEXTURES = ("plain", "striped", "checkered", "dotted")  # the first is not said
NUMBERS = ("two", "three")
RELATIONS = ("left of", "right of", "above", "below")
PLURALS = {name: f"{name}es" if name == "cross" else f"{name}s" for name in TOLD_SHAPES}

GRAMMAR = f"""\
caption   = thing | thing relation thing | number things
thing     = ("a" | "an") colour [texture] shape
things    = colour [texture] shape in the plural
number    = {" | ".join(NUMBERS)}
relation  = {" | ".join(RELATIONS)}
colour    = {" | ".join(TOLD_COLOURS)}
texture   = {" | ".join(TOLD_TEXTURES[1:])}
shape     = {" | ".join(TOLD_SHAPES)}"""

_ONE_OF = [
    "|".join(each) for each in (NUMBERS, TOLD_COLOURS, TOLD_TEXTURES[1:], TOLD_SHAPES, RELATIONS)
]
_MANY, _COLOUR, _TEXTURE, _SHAPE, _RELATION = _ONE_OF
_LOOKS = rf"({_COLOUR})(?: ({_TEXTURE}))?"
_THING = rf"an? {_LOOKS} ({_SHAPE})"
_SEVERAL = re.compile(rf"({_MANY}) {_LOOKS} ({'|'.join(PLURALS.values())})")
_OTHERS = re.compile(rf"{_THING}(?: ({_RELATION}) {_THING})?")
_SINGULARS = {plural: name for name, plural in PLURALS.items()}

WORDS = tuple(
    sorted({
        "a", "an", *NUMBERS, *TOLD_COLOURS, *TOLD_TEXTURES[1:], *TOLD_SHAPES, *PLURALS.values(),
        *(word for relation in RELATIONS for word in relation.split()),
    })
)  # fmt: skip
"""All that captions are made of."""


class Thing(NamedTuple):
    colour: str
    shape: str
    texture: str = "plain"

    @property
    def looks(self) -> str:
        return self.colour if self.texture == "plain" else f"{self.colour} {self.texture}"


class Said(NamedTuple):
    """What a caption says: a thing; several alike; or a thing and where it is of another."""

    thing: Thing
    number: int = 1  # of this thing
    relation: str | None = None
    other: Thing | None = None

    @property
    def things(self) -> tuple[Thing, ...]:
        """Every object by itself."""
        return (self.thing,) * self.number + ((self.other,) if self.other else ())


def caption(said: Said) -> str:
    """
    >>> caption(Said(Thing("orange", "cross", "dotted"), 2))
    'two orange dotted crosses'
    """
    if said.number > 1:
        thing = said.thing
        return f"{NUMBERS[said.number - 2]} {thing.looks} {PLURALS[thing.shape]}"
    first = f"{article(said.thing)} {said.thing.looks} {said.thing.shape}"
    if said.other is None:
        return first
    second = f"{article(said.other)} {said.other.looks} {said.other.shape}"
    return f"{first} {said.relation} {second}"


def article(thing: Thing) -> str:
    return "an" if thing.colour[0] in "aeiou" else "a"


def read(text: str) -> Said | None:
    """What a text says; None where it is none of the grammar.

    >>> read("a red striped star left of a blue disc").other
    Thing(colour='blue', shape='disc', texture='plain')
    """
    if several := _SEVERAL.fullmatch(text):
        many, colour, texture, shape = several.groups()
        thing = Thing(colour, _SINGULARS[shape], texture or TOLD_TEXTURES[0])
        return Said(thing, 2 + NUMBERS.index(many))
    if not (others := _OTHERS.fullmatch(text)):
        return None
    colour, texture, shape, relation, *second = others.groups()
    thing = Thing(colour, shape, texture or TOLD_TEXTURES[0])
    if relation is None:
        return Said(thing)
    colour, texture, shape = second
    return Said(thing, 1, relation, Thing(colour, shape, texture or TOLD_TEXTURES[0]))
