"""What lies about a point among latents: along each axis, and near it."""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Ability, Rows
from genimg.drawn import PLAIN, Drawn, Manner, checked, of_latents
from genimg.errors import InputError
from genimg.inference import latents
from genimg.plans import Alike
from genimg.results import Frames, Pictures

MOST_TRIED = 256  # latents


@dataclass(frozen=True)
class Point:
    """latents: float32 [D]; seeds: the one that they are of, if any

    classes: float32 [K], how much of each is wanted; None: of a model without classes
    label: what a person calls that
    """

    latents: Tensor
    classes: Tensor | None
    seeds: tuple[int, ...] = ()
    label: str = ""

    def times(self, factor: float) -> Self:
        return replace(self, latents=self.latents * factor)


def point_of(ability: Ability, manner: Manner, given: np.ndarray | None, seed: int) -> Point:
    """Of one row of latents that a person gave, or else of a seed, which may draw its class too."""
    own = None if given is not None else torch.tensor([seed], dtype=torch.int64)
    classes = manner.classes(ability, 1, own)[0] if ability.classes else None
    labels = manner.labels(ability, 1, () if own is None else (seed,))
    label = labels[0] if labels else ""
    if own is not None:
        return Point(latents(own, ability.latent)[0], classes, (seed,), label)
    assert given is not None
    rows = checked(given, ability)
    if len(rows) != 1:
        raise InputError(f"latents={list(rows.shape)}: give those of one image, [1, D]")
    return Point(rows[0], classes, (), label)


def near(
    ability: Ability, point: Point, seeds: Sequence[int], strength: float, manner: Manner = PLAIN
) -> Drawn:
    """Images by seeds whose latents are as far from the origin as the point, and near it.

    strength: standard deviations of latents that are added, before these are brought to its length
    """
    noise = latents(torch.tensor(seeds, dtype=torch.int64), ability.latent)
    moved = point.latents + strength * noise
    moved *= point.latents.norm() / moved.norm(dim=1, keepdim=True).clamp_min(1e-12)
    moved = moved if strength else point.latents.expand_as(noise)

    def result(images: np.ndarray) -> Pictures:
        labels = (point.label,) * len(images) if point.label else ()
        return Pictures(images, tuple(seeds), labels)

    return of_latents(ability, moved, repeated(point.classes, len(moved)), result, manner)


class Traversed(Alike):
    """Rows of images, along each of which one latent of a point changes.

    dims: which latents; None: those `count` that change the image most when they go from -reach to
        reach, by the mean square of the difference in bytes, which is found out first, of the first
        MOST_TRIED: where latents have levels, of the coarse ones
    """

    def __init__(
        self,
        ability: Ability,
        point: Point,
        dims: Sequence[int] | None,
        count: int,
        frames: int,
        reach: float,
        manner: Manner = PLAIN,
    ) -> None:
        self._ability, self._point, self._manner = ability, point, manner
        self._values = torch.linspace(-reach, reach, frames)
        self._probe: Drawn | None = None
        self._dims = dims
        if dims is None:
            every = range(min(ability.latent, MOST_TRIED))
            self._probe = self._along(every, torch.tensor([-reach, reach]))
            count = min(count, len(every))
        else:
            for dim in dims:
                if dim >= ability.latent:
                    raise InputError(
                        f"dims={dim}: this model has the latents 0 to {ability.latent - 1}"
                    )
            count = len(dims)
        self._probed = self._probe.count if self._probe else 0
        self._shown: Drawn | None = None
        self.count = self._probed + count * frames
        self._rows = count
        self._first = self._along([0], self._values)
        self.key, self.pixels = self._first.key, self._first.pixels
        self.steps = self._first.steps

    def lap(self, row: int) -> tuple[Hashable, int]:
        if row < self._probed:  # what is shown is known when these are made, and no sooner
            return ("probe", self.key), self._probed
        return self.key, self.count

    def rows(self, start: int, stop: int) -> Rows:
        return self._at(start).rows(start - self._before(start), stop - self._before(start))

    def converted(self, made: Rows) -> Rows:
        return self._first.converted(made)

    def put(self, start: int, made: Rows) -> None:
        self._at(start).put(start - self._before(start), made)

    def result(self) -> Pictures:
        return self._at(self._probed).result()

    def _before(self, row: int) -> int:
        return 0 if row < self._probed else self._probed

    def _at(self, row: int) -> Drawn:
        """The plan that a row is in."""
        if row < self._probed:
            assert self._probe is not None
            return self._probe
        if self._shown is None:
            if self._dims is None:
                assert self._probe is not None
                ends = self._probe.result().images
                effects = [
                    np.square(low.astype(np.int32) - high).sum(dtype=np.int64)
                    for low, high in zip(ends[0::2], ends[1::2], strict=True)
                ]
                self._dims = np.argsort(np.negative(effects), kind="stable")[: self._rows].tolist()
            self._shown = self._along(self._dims, self._values)
        return self._shown

    def _along(self, dims: Sequence[int], values: Tensor) -> Drawn:
        """Images of each value of each of the latents, one by one."""
        count = len(dims) * len(values)
        points = self._point.latents.repeat(count, 1)
        places = torch.tensor(dims).repeat_interleave(len(values))
        points[torch.arange(count), places] = values.repeat(len(dims))
        classes = repeated(self._point.classes, count)

        def result(images: np.ndarray) -> Frames:
            rows = tuple(f"latent {dim}" for dim in dims)
            return Frames(images, self._point.seeds, columns=len(values), rows=rows)

        return of_latents(self._ability, points, classes, result, self._manner)


def repeated(row: Tensor | None, count: int) -> Tensor | None:
    return None if row is None else row.expand(count, -1)
