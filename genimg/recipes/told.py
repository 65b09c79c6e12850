"""What a model's section has where it may be told what to draw."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Annotated, Self

from pydantic import Field, model_validator
from torch import nn

from genimg.augmentations.geometry import ASIDE, KEPT, TAKEN, WHERE, Geometric
from genimg.data.beside import BYTES
from genimg.models.text import TextReader
from genimg.recipe import Data
from genimg.section import Section
from genimg.texts import words_in


class ByClass(Section):
    """Which class to draw, if the model is told one."""

    conditional: bool = False
    """draw by class: learnt from images with labels, and asked for as --label"""
    classes: tuple[str, ...] = ()
    """names of the classes, of a conditional model; empty: taken from the data"""
    shares: tuple[Annotated[float, Field(ge=0)], ...] = ()
    """how often images of each class are drawn where none is asked for; empty: as in the data"""

    @model_validator(mode="after")
    def each_class_has_a_share(self) -> Self:
        if self.shares and (len(self.shares) != len(self.classes) or not sum(self.shares)):
            raise ValueError(
                f"model.shares={list(self.shares)}: give one for each of model.classes, not all 0"
            )
        return self


class ByText(ByClass):
    """Likewise, or which text in its place."""

    text: bool = False
    """draw by text: learnt from images with texts, and asked for as --text"""
    words: int = Field(24, ge=1, le=64)
    """of a text that are read, at most"""
    meaning: int = Field(64, ge=8, multiple_of=8)
    """numbers that a text is taken for"""
    vocabulary: tuple[str, ...] = ()
    """words that a model knows that draws by text; empty: taken from the data"""

    @property
    def told(self) -> int:
        """Numbers that networks are told."""
        return self.meaning if self.text else len(self.classes)

    def reading(self, network: nn.Module, every: bool = False) -> nn.Module:
        """A network, with a reader of its own where it draws by text. every: of each word"""
        if self.text:
            reader = TextReader(self.vocabulary, self.words, self.meaning, BYTES, every)
            network.add_module("reader", reader)
        return network

    @model_validator(mode="after")
    def one_of_the_two_is_told(self) -> Self:
        if self.text and self.conditional:
            raise ValueError(
                "model.text=true: takes the place of classes, which a text can name; leave"
                " model.conditional out"
            )
        if self.vocabulary and not self.text:
            raise ValueError("model.vocabulary: only with model.text=true")
        for word in self.vocabulary:
            if words_in(word) != [word]:
                raise ValueError(
                    f"model.vocabulary: {word!r} is never read; words are of small letters, digits"
                    " and all that is not ASCII, one each"
                )
        return self


def refuse_untrue(data: Data) -> None:
    """ValueError for variations of images after which it is not true what texts of them say, which
    tell how many objects there are, of which colours, and where."""
    if data.augment != "none":
        raise ValueError(
            f"data.augment={data.augment}: mirrors images of which texts say what is on the left;"
            " leave it out"
        )
    for number, each in enumerate(data.augmentations):
        if untrue := each.belies(data.size):
            raise ValueError(
                f"data.augmentations.{number}: kind={each.kind}: {untrue}, and what texts say of"
                " these images would not be true any more; give less, or leave it out"
            )
    moving = [each for each in data.augmentations if isinstance(each, Geometric)]
    if ASIDE + (turned := sum(each.turns for each in moving)) >= TAKEN:
        raise ValueError(
            f"data.augmentations: one after the other they turn {WHERE}, by up to"
            f" {math.degrees(turned):.0f} degrees, and texts of these images tell where; give less,"
            " or leave some out"
        )
    if data.translate / data.size + sum(each.shifts for each in moving) > KEPT:
        which = f"data.translate={data.translate}" + (" with data.augmentations" if moving else "")
        raise ValueError(
            f"{which}: objects are shifted out of sight that texts tell of; give"
            f" {int(KEPT * data.size)} pixels or less in all"
        )


def untrue_sides(data: Data, vocabulary: Collection[str]) -> Iterator[str]:
    """What a person should know who mirrors images of which nobody knows what texts mean."""
    sides = [word for word in ("left", "right") if word in vocabulary]
    if data.augment != "none" and sides:
        yield (
            f"data.augment={data.augment} mirrors images of which texts say {' and '.join(sides)};"
            " data.augment=none leaves these true"
        )
