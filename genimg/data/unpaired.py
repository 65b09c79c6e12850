"""Images of two kinds without pairs: a folder for each kind."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import ClassVar

import numpy as np
import torch

from genimg.contracts import Stored
from genimg.data.choice import balanced_choice
from genimg.data.listing import SPLITS
from genimg.data.memory import Images, order_held_out, shuffled
from genimg.errors import InputError
from genimg.rng import fold, seed_from

KINDS = ("image", "label")  # what is asked of a set that is to be divided into two kinds

_OTHER = int.from_bytes(b"other")


class Unpaired:
    """A Dataset (see genimg.contracts) that has beside each image one of the other kind.

    `image` is of the first of two classes, `other` of the second. Which images come together says
    nothing, and changes from epoch to epoch. In one each comes at least once, those of the smaller
    class more often. Index i + n * len(self) is i with the image of the other kind that is n
    further on.
    """

    columns: ClassVar[tuple[str, ...]] = ("image", "other")
    classes: Mapping[str, tuple[str, ...]] = {}
    at_hand = True

    def __init__(self, images: Images) -> None:
        """images: with labels, of two classes"""
        assert images.labels is not None, "which kind an image is of"
        names, labels = images.classes["label"], images.labels.cpu().numpy()
        self._images = images
        self._kinds = kinds_in(labels, names)
        self.channels, self.size = images.channels, images.size
        about = f"{images.fingerprint} unpaired"
        self.fingerprint = hashlib.sha256(about.encode()).hexdigest()

    def __len__(self) -> int:
        return max(map(len, self._kinds))

    @property
    def device(self) -> torch.device:
        return self._images.device

    def locate(self, positions: np.ndarray, seed: int, batch_size: int) -> np.ndarray:
        found = shuffled(positions, len(self), seed)
        epochs = positions // len(self)
        for epoch in np.unique(epochs):
            further = seed_from(seed, _OTHER, int(epoch)) % len(self._kinds[1])
            found[epochs == epoch] += further * len(self)
        return found

    def fetch(self, indices: np.ndarray, keys: torch.Tensor) -> Stored:
        further, indices = np.divmod(indices, len(self))
        first, second = self._kinds
        rows = np.concatenate([
            first[indices % len(first)], second[(indices + further) % len(second)]
        ])  # fmt: skip
        both = self._images.fetch(rows, torch.cat([keys, fold(keys, _OTHER)]))["image"]
        return dict(zip(self.columns, both.chunk(2), strict=True))

    def whole(self, index: int) -> Stored:
        both = (self._images.whole(int(kind[index % len(kind)])) for kind in self._kinds)
        return {name: each["image"] for name, each in zip(self.columns, both, strict=True)}

    def name(self, index: int) -> str:
        first = self._kinds[0]
        return self._images.name(int(first[index % len(first)]))

    def choose(self, count: int) -> np.ndarray:
        return balanced_choice(count, len(self), None)

    def hold_out(self, count: int) -> tuple[Unpaired, Unpaired]:
        """(the others, `count` images of both kinds together), each with its share of both."""
        rest, kept = self._images.hold_out(count)
        return Unpaired(rest), Unpaired(kept)


def kinds_in(labels: np.ndarray, names: Sequence[str]) -> list[np.ndarray]:
    """Places of both kinds among labels int64 [N]; InputError where there is none of one."""
    kinds = [np.flatnonzero(labels == kind) for kind in range(2)]
    for name, rows in zip(names, kinds, strict=True):
        if not len(rows):
            raise InputError(
                f"none of {len(labels)} images is of {name}; give more of that, or change"
                " data.holdout"
            )
    return kinds


def refuse_division(labels: np.ndarray, names: Sequence[str], count: int) -> None:
    """InputError where `count` images that are held out, or the others, are of one kind alone."""
    order = order_held_out(labels, len(labels))
    for part in (order[count:], order[:count]):
        kinds_in(labels[part], names)


def refuse_kinds(where: str, classes: tuple[str, ...]) -> None:
    """InputError where images are not of two kinds."""
    if len(classes) == 2:
        return
    few = ", ".join(classes[:4]) + (", …" if len(classes) > 4 else "")
    remedy = "leave two, or name a folder that has two"
    if ends := sorted({name[-1] for name in classes if name[:-1] in SPLITS}):
        below = " and ".join(f"train/{end}/" for end in ends)
        remedy = f"put splits on top, as {below}"
    raise InputError(
        f"{where}: its folders are {few}, but two are wanted, one for each kind of images; {remedy}"
    )
