"""Procedural scenes that are made to be told: by genimg.data.grammar, each caption as often.

Numbers and relations are read off where objects are, not off what was meant.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
from torch import Tensor

from genimg import rng
from genimg.data.grammar import (
    RELATIONS,
    TOLD_COLOURS,
    TOLD_SHAPES,
    TOLD_TEXTURES,
    WORDS,
    Said,
    Thing,
    caption,
)
from genimg.data.layout import COLOURS, SLOTS, Layout, circle, surfaced, table
from genimg.data.motion import centres_of
from genimg.data.scenes import DRAWN, Draw, Scenes, boxes_of, written
from genimg.data.shapes import SHAPES
from genimg.data.textures import TEXTURES

Combinations = Literal["all", "seen", "held-out"]

PAIRS = [(colour, shape) for colour in TOLD_COLOURS for shape in TOLD_SHAPES]
KINDS = tuple(f"{colour} {shape}" for colour, shape in PAIRS)
"""Combinations of a colour and a shape: what boxes count."""
HELD_OUT = tuple(
    number
    for number, (colour, shape) in enumerate(PAIRS)
    if (3 * TOLD_COLOURS.index(colour) + TOLD_SHAPES.index(shape)) % len(TOLD_SHAPES) == 1
)
"""Those that are kept out of training: each colour once, and each shape."""
_EVERY = tuple(range(len(PAIRS)))
SEEN = tuple(number for number in _EVERY if number not in HELD_OUT)

# Eight cases, each as likely: one object, twice; two alike; three alike; and the four relations.
_NUMBERS = (1, 1, 2, 3, 2, 2, 2, 2)
_FIRST_RELATION = 4
_DEGREES = (180, 0, 270, 90)  # from the second object to the first, for each of RELATIONS
_ASIDE = 26  # degrees off that, at most: twice as far along it as across
# By number of objects: the least and the largest radius, half the frame being 1, and how far they
# are from their middle. Shapes reach 1.13 radii at most, so that none touches another.
_RADII = ((0.42, 0.62), (0.32, 0.38), (0.26, 0.3))
_FAR = ((0.0, 0.0), (0.45, 0.52), (0.44, 0.58))
_REACH = 1.13
_TURNS = ((0, 0, 0), (0, 180, 0), (0, 120, 240))  # of objects about their middle, degrees
_CAPTIONED = int.from_bytes(b"caption")


def compose_captioned(keys: Tensor, combinations: Combinations = "all") -> Layout:
    """Lay out one scene for each key (int64 [N]).

    seen: of pairs of colour and shape none is held out; held-out: at least one is
    """
    own = rng.fold(keys, _CAPTIONED)
    case = rng.integers(rng.fold(own, 0), len(_NUMBERS))
    number = table(_NUMBERS, keys.device)[case].long()
    related = case >= _FIRST_RELATION
    which = torch.arange(SLOTS, device=keys.device)
    other = (related[:, None] & (which == 1)).long()  # which slots hold the second thing
    things = _things(rng.fold(own, 1), combinations, related)
    colours, shapes = (part.gather(1, other) for part in things)
    shapes = torch.where(which < number[:, None], shapes, -1)
    named = [list(TEXTURES).index(name) for name in TOLD_TEXTURES]
    kinds = rng.integers(rng.fold(own, 2), len(named), (2,)).gather(1, other)
    textures = table(tuple(named), keys.device).long()[kinds]
    textures = torch.nn.functional.pad(textures, (0, 1))  # a plain background

    few = number - 1
    chance = rng.uniform(rng.fold(own, 3), (4,))
    (low, high), (near, far) = (table(each, keys.device)[few].unbind(-1) for each in (_RADII, _FAR))
    radius = low + (high - low) * chance[:, 0]
    away = near + (far - near) * chance[:, 1]
    degrees = table(_DEGREES, keys.device).long()[(case - _FIRST_RELATION).clamp(min=0)]
    aside = rng.integers(rng.fold(own, 4), 2 * _ASIDE + 1) - _ASIDE
    angle = torch.where(related, degrees + aside, rng.integers(rng.fold(own, 5), 360))
    angles = angle[:, None] + table(_TURNS, keys.device).long()[few]
    around = circle(angles) * away[:, None, None]
    room = 1 - _REACH * radius[:, None] - around.abs().amax(1)
    centres = around + ((2 * chance[:, 2:] - 1) * room)[:, None]
    radii = radius[:, None].expand(-1, SLOTS).contiguous()
    return surfaced(keys, shapes, colours, textures, radii, centres)


def _things(keys: Tensor, combinations: Combinations, related: Tensor) -> tuple[Tensor, Tensor]:
    """Colours and shapes, int64 [N, 2] each, of two things that are not the same pair of these.

    related: bool [N], where there is more than the first
    """
    allowed = table(SEEN if combinations == "seen" else _EVERY, keys.device).long()
    count = len(allowed)
    if combinations == "held-out":
        held = table(HELD_OUT, keys.device).long()
        first = held[rng.integers(rng.fold(keys, 0), len(held))]
    else:
        first = rng.integers(rng.fold(keys, 0), count)
    second = (first + 1 + rng.integers(rng.fold(keys, 1), count - 1)) % count
    swapped = related & (rng.integers(rng.fold(keys, 2), 2) == 1)
    places = torch.stack([first.where(~swapped, second), second.where(~swapped, first)], dim=1)
    pairs = allowed[places]
    return _COLOUR_OF.to(keys.device)[pairs], _SHAPE_OF.to(keys.device)[pairs]


_COLOUR_OF = torch.tensor([list(COLOURS).index(colour) for colour, _ in PAIRS])
_SHAPE_OF = torch.tensor([list(SHAPES).index(shape) for _, shape in PAIRS])


def said_of(layout: Layout) -> list[Said]:
    """What is true of captioned scenes, by where their objects are."""
    colours, shapes, textures = list(COLOURS), list(SHAPES), list(TEXTURES)
    found = []
    rows = zip(
        layout.shapes.tolist(), layout.colours.tolist(), layout.textures.tolist(),
        centres_of(layout).tolist(), strict=True,
    )  # fmt: skip
    for kinds, hues, surfaces, places in rows:
        things = [
            Thing(colours[hue], shapes[kind], textures[surface])
            for kind, hue, surface in zip(kinds, hues, surfaces, strict=False)
            if kind >= 0
        ]
        if len(set(things)) == 1:
            found.append(Said(things[0], len(things)))
        else:
            found.append(Said(things[0], 1, relation(*places[:2]), things[1]))
    return found


def relation(first: tuple[float, float], second: tuple[float, float]) -> str:
    """Where points (right, down) are: the first of the second, by the larger distance.

    >>> relation((0.1, 0.9), (0.2, 0.3))
    'below'
    """
    right, down = first[0] - second[0], first[1] - second[1]
    if abs(right) > abs(down):
        return RELATIONS[right > 0]
    return RELATIONS[2 + (down > 0)]


def captions_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """uint8 [N, T], as genimg.data.columns has texts."""
    return written(map(caption, said_of(layout)), device)


def boxes_drawn(layout: Layout, size: int, channels: int, device: torch.device) -> Tensor:
    """float32 [N, BOXES, 5]: classes are KINDS."""
    kinds = _KIND_OF[layout.colours, layout.shapes.clamp(min=0)]
    return boxes_of(layout, torch.where(layout.shapes >= 0, kinds, -1), size, device)


_KIND_OF = torch.full((len(COLOURS), len(SHAPES)), -1)
_KIND_OF[_COLOUR_OF, _SHAPE_OF] = torch.arange(len(PAIRS))


class Captioned(Scenes):
    """Captioned scenes, as genimg.data.scenes has others; boxes count pairs of colour and shape."""

    classes: Mapping[str, tuple[str, ...]] = {**Scenes.classes, "boxes": KINDS, "text": WORDS}
    drawn: ClassVar[Mapping[str, Draw]] = {
        **DRAWN, "text": captions_drawn, "boxes": boxes_drawn,
    }  # fmt: skip

    def __init__(
        self,
        size: int,
        channels: int,
        columns: tuple[str, ...] = ("image",),
        *,
        combinations: Combinations = "all",
        **others: Any,
    ) -> None:
        super().__init__(size, channels, columns, **others)
        self.combinations = combinations

    @property
    def kind(self) -> str:
        return f"captioned scenes, {self.combinations}"

    def laid_out(self, keys: Tensor) -> Layout:
        return compose_captioned(keys, self.combinations)
