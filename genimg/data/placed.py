"""One or two gray images of known classes on black, and a text that says which are where.

The captioned MNIST of Mansimov, Parisotto, Ba, Salakhutdinov 2016 (alignDRAW, section 4.1):

the digit 7 is on the left of the digit 2
the digit 7 is at the top right of the image
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Splittable, Stored
from genimg.data.bouncing import drawn
from genimg.data.captioned import Combinations
from genimg.data.of_gray import OfGray
from genimg.data.scenes import written
from genimg.data.transfer import to_device
from genimg.errors import InputError
from genimg.rng import fold, integers, uniform
from genimg.texts import words_in

LENGTH = 10_000  # images that count as an epoch, and those of a test set
AT_ONCE = 4096  # gray images whose labels are read together

# By case: what is said, and where the first image stands and the second, if there is one.
CASES = (
    ("the digit {} is on the left of the digit {}", "left", "right"),
    ("the digit {} is on the right of the digit {}", "right", "left"),
    ("the digit {} is at the top of the digit {}", "top", "bottom"),
    ("the digit {} is at the bottom of the digit {}", "bottom", "top"),
    ("the digit {} is at the top left of the image", "top left", None),
    ("the digit {} is at the top right of the image", "top right", None),
    ("the digit {} is at the bottom left of the image", "bottom left", None),
    ("the digit {} is at the bottom right of the image", "bottom right", None),
)
GRAMMAR = "caption = " + " | ".join(said.replace("{}", "digit") for said, *_ in CASES)
# Of the room that an image has to move in, down and across: from where to where it may stand.
_TOP, _BOTTOM, _MIDDLE = (0, 1 / 16), (15 / 16, 1), (1 / 2, 9 / 16)
_LEFT, _RIGHT = (0, 1 / 8), (7 / 8, 1)
PLACES = {
    "left": (_MIDDLE, _LEFT),
    "right": (_MIDDLE, _RIGHT),
    "top": (_TOP, _MIDDLE),
    "bottom": (_BOTTOM, _MIDDLE),
    "top left": (_TOP, _LEFT),
    "top right": (_TOP, _RIGHT),
    "bottom left": (_BOTTOM, _LEFT),
    "bottom right": (_BOTTOM, _RIGHT),
}
_NAMES = tuple(PLACES)
_WHERE = torch.tensor([
    [_NAMES.index(first), _NAMES.index(second or first)] for _, first, second in CASES
])  # fmt: skip
_TWO = torch.tensor([second is not None for *_, second in CASES])
_CAPTIONS = tuple(
    (re.compile(said.replace("{}", "(.+)")), first, second) for said, first, second in CASES
)
_PLACED = int.from_bytes(b"placed")


class Stands(NamedTuple):
    """A class, by name, and one of PLACES."""

    name: str
    place: str


def side_of(size: int) -> int:
    """Of the images on a canvas of that side: 28 on 60."""
    return size * 28 // 60


def bounds(place: str, room: int) -> tuple[tuple[int, int], tuple[int, int]]:
    """First and last pixel, down and across, at which an image may begin that stands there.

    >>> bounds("top right", 32)
    ((0, 2), (28, 32))
    """
    down, across = PLACES[place]
    return _whole(down, room), _whole(across, room)


def _whole(part: tuple[float, float], room: int) -> tuple[int, int]:
    return int(room * part[0]), int(room * part[1])


def read(text: str) -> tuple[Stands, ...] | None:
    """What a text says; None where it is none of these.

    >>> read("the digit 3 is at the bottom of the digit 8")
    (Stands(name='3', place='bottom'), Stands(name='8', place='top'))
    """
    for pattern, first, second in _CAPTIONS:
        if found := pattern.fullmatch(text):
            said = Stands(found[1], first)
            return (said,) if second is None else (said, Stands(found[2], second))
    return None


def held_out(count: int) -> Tensor:
    """bool [places, count]: the places in which each class is not seen, one for each class."""
    classes = torch.arange(count)
    table = torch.zeros(len(PLACES), count, dtype=torch.bool)
    table[3 * classes % len(PLACES), classes] = True
    return table


def words_of(names: Sequence[str]) -> tuple[str, ...]:
    """All that texts about these classes are made of."""
    every = {word for said, *_ in CASES for word in words_in(said.replace("{}", ""))}
    return tuple(sorted(every.union(*map(words_in, names))))


class Placed(OfGray):
    """A Dataset of canvases, each with its text.

    Eight cases are as likely: one of two images is left of, right of, above or below the other, or
    one stands by itself in a corner; each may be off by an eighth of the room that it has. Where
    two overlap the brighter pixel is seen. What is where follows from the canvas's number; without
    a bound there is no end of these.

    gray: images of `side_of(size)` with their labels
    combinations: seen: no class stands in its `held_out` place; held-out: at least one does
    """

    channels = 1
    epoch = LENGTH
    all_columns: ClassVar[tuple[str, ...]] = ("image", "text")

    def __init__(
        self,
        gray: Splittable,
        size: int,
        combinations: Combinations = "all",
        length: int | None = None,
        columns: tuple[str, ...] = ("image",),
    ) -> None:
        """length: how many there are; None: no end"""
        assert gray.size == side_of(size), gray.size
        super().__init__(gray, size, length, f"placed {size} {combinations} {length}")
        self.combinations = combinations
        self.columns = columns
        self.names = gray.classes["label"]
        refuse_few(self.names, combinations)
        labels = _labels(gray)
        self._order = labels.argsort(stable=True)
        self._counts = labels.bincount(minlength=len(self.names))
        self._starts = self._counts.cumsum(dim=0) - self._counts  # of each class in that order
        if not self._counts.all():
            empty = self.names[int(self._counts.argmin())]
            raise InputError(f"data.place=true: there is no image of {empty!r}")
        self.classes: Mapping[str, tuple[str, ...]] = {"text": words_of(self.names)}

    def parts(self, indices: np.ndarray) -> np.ndarray:
        _, _, pair = self._laid_out(indices)
        return pair.numpy()

    def fetch(self, indices: np.ndarray, keys: Tensor) -> Stored:
        case, labels, pair = self._laid_out(indices)
        which = torch.arange(2, device=keys.device)
        gray = self._gray.fetch(pair.numpy().reshape(-1), fold(keys[:, None], which).flatten())[
            "image"
        ]
        gray = gray.unflatten(0, (-1, 2))[:, :, 0]
        there = torch.stack([torch.ones_like(case), _TWO[case]], dim=1)
        gray = gray * to_device(there.to(gray.dtype), gray.device)[..., None, None]
        corners = to_device(self._corners(indices, case)[:, :, None], gray.device)
        texts = [
            CASES[each][0].format(*(self.names[label] for label in both))
            for each, both in zip(case.tolist(), labels.tolist(), strict=True)
        ]
        stored = {"image": drawn(gray, corners, self.size), "text": written(texts, gray.device)}
        return {name: stored[name] for name in self.columns}

    def hold_out(self, count: int) -> tuple[Placed, Placed]:
        """(the others, `count` canvases), of gray images that are held out."""
        rest, kept = self.held_apart(count)
        return (
            Placed(rest, self.size, self.combinations, self._length, self.columns),
            Placed(kept, self.size, self.combinations, count, self.columns),
        )

    def _laid_out(self, indices: np.ndarray) -> tuple[Tensor, Tensor, Tensor]:
        """Cases int64 [N]; classes, and gray images of these, int64 [N, 2]."""
        keys = _keys(indices)
        case = integers(fold(keys, 0), len(CASES))
        unseen = held_out(len(self.names))[_WHERE[case]]  # [N, 2, classes]
        allowed = torch.ones_like(unseen)
        if self.combinations == "seen":
            allowed = ~unseen
        elif self.combinations == "held-out":
            second = _TWO[case] & (integers(fold(keys, 1), 2) == 1)  # which of the two it is
            mine = torch.stack([~second, second], dim=1)[..., None]
            allowed = unseen | ~mine
        order = allowed.long().cumsum(dim=2)
        chance = uniform(fold(keys, 2), (2, 2)).double()
        number = (chance[:, 0] * order[..., -1]).long()  # among those that are allowed
        labels = (order == number[..., None] + 1).long().argmax(dim=2)
        within = (chance[:, 1] * self._counts[labels]).long()
        return case, labels, self._order[self._starts[labels] + within]

    def _corners(self, indices: np.ndarray, case: Tensor) -> Tensor:
        """int64 [N, 2, 2]: top and left of both images."""
        room = self.size - self._gray.size
        table = torch.tensor([bounds(name, room) for name in PLACES])[_WHERE[case]]
        chance = uniform(fold(_keys(indices), 3), (2, 2)).double()
        low, high = table.unbind(dim=-1)
        return low + (chance * (high - low + 1)).long()


def refuse_few(names: Sequence[str], combinations: Combinations) -> None:
    """InputError where there are places without a class that is held out."""
    if combinations != "all" and len(names) < len(PLACES):
        raise InputError(
            f"data.combinations={combinations}: with data.place=true of {len(PLACES)} classes or"
            f" more; the data has {len(names)}"
        )


def _keys(indices: np.ndarray) -> Tensor:
    return fold(_PLACED, torch.from_numpy(indices))


def _labels(gray: Splittable) -> Tensor:
    """int64 [N], of all images."""
    every = np.array_split(np.arange(len(gray)), -(-len(gray) // AT_ONCE))
    device = gray.device or "cpu"
    return torch.cat([
        gray.fetch(few, torch.from_numpy(few).to(device))["label"].cpu().long() for few in every
    ])  # fmt: skip
