"""Styles of some images given to others: a picture of all, as figure 3 of the StyleGAN paper is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Ability, Rows
from genimg.drawn import PLAIN, Drawn, Manner, checked
from genimg.errors import InputError
from genimg.inference import latents
from genimg.results import Grid

WHITE = 255  # of the corner, where no image is


@dataclass(frozen=True)
class Sources:
    """latents: float32 [N, D]; seeds: those that they are of, if any

    classes: float32 [N, K], how much of each is wanted; None: of a model without classes
    """

    latents: Tensor
    classes: Tensor | None
    seeds: tuple[int, ...] = ()

    def __len__(self) -> int:
        return len(self.latents)


def of_seeds(ability: Ability, seeds: Sequence[int], truncation: float, manner: Manner) -> Sources:
    """Each of the class that it draws, unless all are of one."""
    own = torch.tensor(seeds, dtype=torch.int64)
    points = latents(own, ability.latent) * truncation
    classes = manner.classes(ability, len(points), own) if ability.classes else None
    return Sources(points, classes, tuple(seeds))


def of_given(ability: Ability, given: np.ndarray, truncation: float, manner: Manner) -> Sources:
    """Of latents [N, D] that a person gave."""
    points = checked(given, ability) * truncation
    return Sources(points, manner.classes(ability, len(points)) if ability.classes else None)


def mixed(
    ability: Ability,
    rows: Sources,
    columns: Sources | None,
    layers: range,
    alone: bool = False,
    manner: Manner = PLAIN,
) -> Drawn:
    """Each image of `rows` with the styles of each of `columns` in these layers.

    columns: None: those of `rows`
    alone: without the images themselves, which else are in front of each row and above each column
    """
    if columns is None:
        if len(rows) < 2:
            raise InputError(
                "seeds: one image has no other to take styles from; give two or more, or styles"
            )
        columns = rows
    across, down = len(columns), len(rows)
    every = torch.arange(across + down)  # above, and in front
    above, front = every[:across], every[across:]
    to, of = front.repeat_interleave(across), above.repeat(down)
    if not alone:
        to = torch.cat([above, torch.cat([front[:, None], to.view(down, -1)], dim=1).flatten()])
        of = torch.cat([above, torch.cat([front[:, None], of.view(down, -1)], dim=1).flatten()])
    points = torch.cat([columns.latents, rows.latents])
    points = points if manner.shift is None else points + manner.shift
    classes = None
    if columns.classes is not None and rows.classes is not None:
        classes = torch.cat([columns.classes, rows.classes])
    taken = torch.zeros(ability.layers)
    taken[list(layers)] = 1

    def rows_of(start: int, stop: int) -> Rows:
        first, second = to[start:stop], of[start:stop]
        made: Rows = {
            "latent": points[first],
            "second": points[second],
            "layers": (first != second).float()[:, None] * taken,
        }
        if classes is not None:
            made["classes"], made["second_classes"] = classes[first], classes[second]
        return made

    def result(images: np.ndarray) -> Grid:
        if not alone:
            images = np.concatenate([np.full_like(images[:1], WHITE), images])
        return Grid(images, rows.seeds, columns=across + (not alone))

    return Drawn(ability, rows_of, len(to), result, replace(manner, shift=None))
