"""Images that are drawn, as rows: of seeds, or of latents (genimg.ways: of many on a way)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal, cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Ability, Plan, Rows
from genimg.errors import InputError
from genimg.inference import classes_of, latents
from genimg.passes import CHUNK
from genimg.plans import Alike, to_arrays
from genimg.results import Pictures
from genimg.texts import tokens_of


@dataclass(frozen=True)
class Manner:
    """How the images of a plan are drawn, but for their latents; what is None is the model's own.

    label: what a person called the class, and `shares` of each class that this means; none of
        both: of images with seeds each one's own class, of others none in particular
    steps: of the way from latents to images, of models that take steps
    guidance: how strongly the class is insisted on
    shift: float32 [D], what is added to the latents of all
    text: what all are of, of models that take one; empty: of none in particular
    """

    label: str = ""
    shares: tuple[float, ...] = ()
    steps: int | None = None
    guidance: float | None = None
    shift: Tensor | None = None
    text: str = ""

    def columns(self, ability: Ability, count: int) -> Rows:
        """What all of so many rows are told alike."""
        columns: Rows = {}
        if "text" in ability.takes:
            columns["text"] = tokens_of([self.text]).expand(count, -1)
        if self.steps is not None:
            columns["steps"] = torch.full((count,), self.steps)
        if self.guidance is not None:
            columns["guidance"] = torch.full((count,), self.guidance)
        return columns

    def classes(self, ability: Ability, count: int, seeds: Tensor | None = None) -> Tensor:
        """float32 [N, K]: how much of each class is wanted of so many images, perhaps with seeds
        int64 [N]."""
        if self.shares:
            return torch.tensor(self.shares).expand(count, -1)
        if seeds is None:
            return torch.zeros(count, len(ability.classes))
        return F.one_hot(own_classes(ability, seeds), len(ability.classes)).float()

    def labels(self, ability: Ability, count: int, seeds: Sequence[int] = ()) -> tuple[str, ...]:
        """What so many images are of, perhaps with seeds, if the model is told that."""
        if self.label:
            return (self.label,) * count
        if not (ability.classes and seeds):
            return ()
        numbers = own_classes(ability, torch.tensor(seeds, dtype=torch.int64))
        return tuple(ability.classes[number] for number in numbers.tolist())


def own_classes(ability: Ability, seeds: Tensor) -> Tensor:
    """int64 [N]: the class of each of seeds int64 [N] where none is asked for."""
    return classes_of(seeds, len(ability.classes), ability.shares)


PLAIN = Manner()


AHEAD = 1024  # rows of which latents and classes are made at once: those of a few take as long
NUMBERS = 2**22  # of latents that are made at once, unless a pass takes more


class Drawn(Alike):
    """Images of latents, which are made as they are needed."""

    def __init__(
        self,
        ability: Ability,
        rows_of: Callable[[int, int], Rows],
        count: int,
        result: Callable[[np.ndarray], Pictures],
        manner: Manner = PLAIN,
        column: Literal["latent", "seed"] = "latent",
        seeds: Sequence[int] = (),
        truncation: float = 1.0,
    ) -> None:
        """rows_of(start, stop): with latents, or with seeds and truncations of these

        column: which of the two
        seeds, truncation: where the rows say no more than these
        """
        self.count = count
        self.key = (ability.latent, column, manner.steps, manner.guidance)
        self.pixels = (ability.side or 1) ** 2
        self.steps = manner.steps or ability.steps
        self._ability = ability
        self._rows_of = rows_of
        self._ahead = min(AHEAD, NUMBERS // max(ability.latent, 1))
        self._made: tuple[int, int, Rows] = (0, 0, {})  # rows from the first up to the second
        self._manner = manner
        self._result = result
        self._images: np.ndarray | None = None
        self.seeds, self.truncation = seeds, truncation

    def rows(self, start: int, stop: int) -> Rows:
        first, last, rows = self._made
        if not first <= start <= stop <= last:
            first, last = start, min(max(stop, start + self._ahead), self.count)
            rows = {
                **self._rows_of(first, last),
                **self._manner.columns(self._ability, last - first),
            }
            if self._manner.shift is not None:
                rows["latent"] = rows["latent"] + self._manner.shift
            self._made = first, last, rows
        every = cast("dict[str, Tensor]", rows).items()
        # copies, which lie in memory as others do: by how they lie libraries choose kernels, too
        few = ((name, each[start - first : stop - first].clone()) for name, each in every)
        return cast(Rows, dict(few))

    def converted(self, made: Rows) -> Rows:
        return {"image": torch.from_numpy(to_arrays(made["image"]))}

    def put(self, start: int, made: Rows) -> None:
        images = made["image"].numpy()
        if self._images is None:
            self._images = np.empty((self.count, *images.shape[1:]), np.uint8)
        self._images[start : start + len(images)] = images

    def result(self) -> Pictures:
        assert self._images is not None, "all rows are made"
        return self._result(self._images)


def seeded(parts: Sequence[tuple[Plan, int, int]]) -> Rows | None:
    """Rows start to stop of each plan, one after the other, made at once; None where any says more
    than seeds. Of many requests for an image each this saves most of what is done beside drawing.
    """
    seeds: list[int] = []
    truncations: list[float] = []
    for plan, start, stop in parts:
        if not (isinstance(plan, Drawn) and plan.seeds):
            return None
        seeds += plan.seeds[start:stop]
        truncations += [plan.truncation] * (stop - start)
    return {
        "seed": torch.tensor(seeds, dtype=torch.int64),
        "truncation": torch.tensor(truncations, dtype=torch.float32),
    }


def drawn(
    ability: Ability, seeds: Sequence[int], truncation: float = 1.0, manner: Manner = PLAIN
) -> Drawn:
    """The image of each seed."""
    whole = manner.shift is not None or len(seeds) > CHUNK  # of more than a pass

    def rows_of(start: int, stop: int) -> Rows:
        few = torch.tensor(seeds[start:stop], dtype=torch.int64)
        rows: Rows = {"seed": few, "truncation": torch.full((len(few),), truncation)}
        if whole:
            rows = {"latent": latents(few, ability.latent) * truncation}
        if ability.classes:
            rows["classes"] = manner.classes(ability, len(few), few)
        return rows

    def result(images: np.ndarray) -> Pictures:
        return Pictures(images, tuple(seeds), manner.labels(ability, len(seeds), seeds))

    column: Literal["latent", "seed"] = "latent" if whole else "seed"
    told = whole or ability.classes or manner.columns(ability, 1)  # more than seeds
    return Drawn(
        ability, rows_of, len(seeds), result, manner, column, () if told else seeds, truncation
    )


def decoded(ability: Ability, given: np.ndarray, manner: Manner = PLAIN) -> Drawn:
    """The image of each of latents float32 [N, D]."""
    points = checked(given, ability)
    classes = manner.classes(ability, len(points)) if ability.classes else None

    def result(images: np.ndarray) -> Pictures:
        return Pictures(images, labels=manner.labels(ability, len(images)))

    return of_latents(ability, points, classes, result, manner)


def of_latents(
    ability: Ability,
    points: Tensor,
    classes: Tensor | None,
    result: Callable[[np.ndarray], Pictures],
    manner: Manner = PLAIN,
) -> Drawn:
    """The image of each of points float32 [N, D] as classes float32 [N, K] say, if any."""

    def rows_of(start: int, stop: int) -> Rows:
        rows: Rows = {"latent": points[start:stop]}
        if classes is not None:
            rows["classes"] = classes[start:stop]
        return rows

    return Drawn(ability, rows_of, len(points), result, manner)


def checked(given: np.ndarray, ability: Ability) -> Tensor:
    """Latents float32 [N, D] that a person gave, or InputError."""
    array = torch.from_numpy(np.asarray(given, np.float32))
    if array.dim() != 2 or array.shape[1] != ability.latent or not len(array):
        raise InputError(
            f"latents={list(array.shape)}: this model takes [N, {ability.latent}], at least one"
        )
    if not array.isfinite().all():
        raise InputError("latents=nan: some are no finite numbers")
    return array
