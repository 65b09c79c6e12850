"""Whether images show what their captions say, as a detector sees it.

Captions are of genimg.data.grammar, and the detector's classes pairs of a colour and a shape, as
in captioned scenes. Textures are not looked at.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from itertools import permutations
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from genimg import rng
from genimg.contracts import Dataset, Rows
from genimg.data.captioned import KINDS, relation
from genimg.data.grammar import Said
from genimg.errors import InputError
from genimg.inference import to_floats
from genimg.judging import AT_ONCE

if TYPE_CHECKING:
    from genimg.engine import Engine

S = TypeVar("S")

SURE = 0.3  # score from which a box counts


class Found(NamedTuple):
    """An object: its pair of colour and shape, and its centre, right and down."""

    kind: str
    centre: tuple[float, float]

    @property
    def colour(self) -> str:
        return self.kind.split()[0]

    @property
    def shape(self) -> str:
        return self.kind.split()[1]


@dataclass(frozen=True)
class Right:
    """What of a caption is right; a relation always is where none is said."""

    colour: bool  # there are these colours and no others
    shape: bool  # likewise
    count: bool  # as many objects
    relation: bool  # what is most like the two things stands so
    all_right: bool  # the relation, and just the things that are said


def compared(said: Said, found: Sequence[Found]) -> Right:
    kinds = Counter(f"{thing.colour} {thing.shape}" for thing in said.things)
    stands = stands_so(said, found)
    return Right(
        colour={each.colour for each in found} == {thing.colour for thing in said.things},
        shape={each.shape for each in found} == {thing.shape for thing in said.things},
        count=len(found) == len(said.things),
        relation=stands,
        all_right=stands and Counter(each.kind for each in found) == kinds,
    )


def stands_so(said: Said, found: Sequence[Found]) -> bool:
    """Whether the two objects that are most like the things that are said stand as these do."""
    if said.other is None:
        return True
    pairs = list(permutations(found, 2))
    if not pairs:
        return False
    things = (said.thing, said.other)

    def likeness(pair: tuple[Found, ...]) -> int:
        both = zip(pair, things, strict=True)
        return sum((a.colour == b.colour) + (a.shape == b.shape) for a, b in both)

    first, second = max(pairs, key=likeness)
    return relation(first.centre, second.centre) == said.relation


def detected(detector: Engine, images: Tensor) -> list[list[Found]]:
    """What a detector finds in each of images uint8 [N, C, H, W]."""
    ability = detector.abilities["detect"]
    every: list[list[Found]] = []
    for few in images.split(AT_ONCE):
        rows: Rows = {"image": to_floats(few, detector.device)}
        made = detector.inference.rows(ability.compute, rows)
        for boxes, scores in zip(made["boxes"].tolist(), made["scores"].tolist(), strict=True):
            sure = [
                (score, int(kind), box)
                for (kind, *box), score in zip(boxes, scores, strict=True)
                if kind >= 0 and score >= SURE
            ]
            every.append(objects(sure, ability.classes))
    return every


def objects(sure: Sequence[tuple[float, int, list[float]]], kinds: Sequence[str]) -> list[Found]:
    """Of boxes (score, kind, [x0, y0, x1, y1]) the likeliest each where it is: those are left out
    whose centre is in the middle half of a likelier one, since objects do not touch one another."""
    found: list[Found] = []
    taken: list[list[float]] = []
    for _, kind, (x0, y0, x1, y1) in sorted(sure, reverse=True):
        x, y = (x0 + x1) / 2, (y0 + y1) / 2
        if not any(
            abs(2 * x - a0 - a1) < (a1 - a0) / 2 and abs(2 * y - b0 - b1) < (b1 - b0) / 2
            for a0, b0, a1, b1 in taken
        ):
            taken.append([x0, y0, x1, y1])
            found.append(Found(kinds[kind], (x, y)))
    return found


def scores(said: Sequence[Said], found: Sequence[Sequence[Found]]) -> dict[str, float]:
    """Parts of images of which this is right: colour, shape, count; relation, of those where one
    is said; all_right; and `product` of the first four, as if they had nothing to do with one
    another."""
    rights = [compared(*both) for both in zip(said, found, strict=True)]
    means = {
        field.name: float(np.mean([getattr(right, field.name) for right in rights]))
        for field in fields(Right)
    }
    product = means["colour"] * means["shape"] * means["count"] * means["relation"]
    pairs = zip(rights, said, strict=True)
    related = [right.relation for right, each in pairs if each.other is not None]
    if related:
        means["relation"] = float(np.mean(related))
    else:
        del means["relation"]
    return means | {"product": product}


def faithful(
    engine: Engine,
    data: Dataset,
    samples: int,
    read: Callable[[str], S | None],
    scored: Callable[[Sequence[S], Tensor], dict[str, float]],
) -> tuple[dict[str, float], dict[str, float]]:
    """Scores of what a model draws of the captions of a dataset, seeds 0, 1, ...; and of the
    dataset's own images.

    read: what a caption says; None where it is of another grammar, which is an InputError
    scored: of what captions say, and of as many images uint8 [N, C, H, W]
    """
    from genimg.recipes.synthesis import Synthesis

    indices = data.choose(samples)
    keys = rng.fold(0, torch.from_numpy(indices)).to(data.device or "cpu")
    stored = data.fetch(indices, keys)
    said: list[S] = []
    for row in stored["text"].cpu():
        text = bytes((row[row > 0] - 1).tolist()).decode()
        if (each := read(text)) is None:
            raise InputError(
                f"text={text!r}: no judge can tell whether that is shown; captions are to be of the"
                " grammar of captioned scenes (data.scenes=captioned), or of data.place=true"
            )
        said.append(each)
    recipe = engine.recipe
    assert isinstance(recipe, Synthesis)
    numbers = range(len(indices))
    drawn = recipe.generated(engine.inference, numbers, texts=stored["text"].long())
    made, real = (scored(said, images) for images in (drawn, stored["image"]))
    return made, real


def by_detector(detector: Engine) -> Callable[[Sequence[Said], Tensor], dict[str, float]]:
    return lambda said, images: scores(said, detected(detector, images))


def refuse_detector(engine: Engine, detector: Engine, named: str) -> None:
    """InputError where a detector cannot tell whether a model draws what texts say."""
    if "text" not in engine.recipe.wants:
        raise InputError(
            f"{named}: a detector tells whether what a text says is drawn, and this model takes no"
            " text; give a classifier"
        )
    mine, its = engine.recipe.data, detector.recipe.data
    if (mine.size, mine.channels) != (its.size, its.channels):
        raise InputError(
            f"{named} takes {its.channels} x {its.size} x {its.size} images, the model makes"
            f" {mine.channels} x {mine.size} x {mine.size}; train a detector of that size"
        )
    if unknown := set(KINDS) - set(detector.abilities["detect"].classes):
        raise InputError(
            f"{named}: does not tell {min(unknown)!r}; train one on captioned scenes"
            " (data.scenes=captioned)"
        )
