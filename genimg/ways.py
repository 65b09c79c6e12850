"""Ways through latents: from point to point, and between the four corners of a square."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from genimg.contracts import Ability
from genimg.drawn import PLAIN, Drawn, Manner, of_latents
from genimg.errors import InputError
from genimg.labels import shares_of
from genimg.results import Frames

Mix = Callable[[Tensor, Tensor, Tensor], Tensor]  # of two [N, D], parts [N, 1] of the way

ROW = 10  # images of a way that lie in one row, in a picture of them all


def way(
    ability: Ability,
    points: Tensor,
    frames: int,
    seeds: Sequence[int] = (),
    labels: Sequence[str] = (),
    manner: Manner = PLAIN,
) -> Drawn:
    """Images on the way through points float32 [K, D], all of which are among them.

    seeds: of the points, if they have some; without labels they also go from class to class
    labels: classes that they go through, at an even pace, or stay in where it is one
    """
    if len(points) < 2 and len(labels) < 2:
        raise InputError(
            "seeds: one image leads nowhere; give two or more, or a class that it goes to"
            " (to_label)"
        )
    refuse_frames(frames, len(points))
    classes = corners_of(ability, seeds, labels, len(points))
    ends = None if classes is None else along(classes, places(len(classes), frames), torch.lerp)
    latents = along(points, places(len(points), frames), spherical)
    row = frames if frames <= ROW else 0

    def shown(made: np.ndarray) -> Frames:
        return Frames(made, tuple(seeds), columns=row)

    return of_latents(ability, latents, ends, shown, manner)


def refuse_frames(frames: int, points: int) -> None:
    """InputError for fewer images than there are to go by."""
    if frames < points:
        raise InputError(
            f"frames={frames}: fewer than the {points} images that it goes by; give more"
        )


def square(
    ability: Ability,
    points: Tensor,
    frames: int,
    seeds: Sequence[int] = (),
    label: str = "",
    manner: Manner = PLAIN,
) -> Drawn:
    """Images of a square, row by row, whose corners are points float32 [4, D]."""
    side = math.isqrt(frames)
    if len(points) != 4:
        raise InputError(f"square=True: has four corners, not {len(points)}; give four seeds")
    if side**2 != frames or side < 2:
        nearest = max(round(math.sqrt(frames)), 2)
        raise InputError(
            f"frames={frames}: a square has a square number of images, as {nearest**2}"
        )
    right = torch.linspace(0, 1, side).repeat(side)
    down = torch.linspace(0, 1, side).repeat_interleave(side)

    def between(corners: Tensor, mix: Mix) -> Tensor:
        a, b, c, d = (corner.expand(frames, -1) for corner in corners)
        return mix(mix(a, b, right[:, None]), mix(c, d, right[:, None]), down[:, None])

    classes = corners_of(ability, seeds, [label] if label else [], 4)
    if classes is not None:
        classes = between(classes.expand(4, -1), torch.lerp)
    latents = between(points, spherical)
    return of_latents(
        ability, latents, classes, lambda made: Frames(made, tuple(seeds), columns=side), manner
    )


def corners_of(
    ability: Ability, seeds: Sequence[int], labels: Sequence[str], count: int
) -> Tensor | None:
    """float32 [labels or points, K]: how much of each class is wanted at each; None: no classes."""
    if not ability.classes:
        return None
    if labels:
        return torch.tensor([shares_of(label, ability.classes) for label in labels])
    own = torch.tensor(seeds, dtype=torch.int64) if seeds else None
    return PLAIN.classes(ability, count, own)


def places(points: int, frames: int) -> Tensor:
    """float32 [frames] from 0 to points - 1, evenly from each whole number to the next.

    Each of these is among them.
    """
    at = np.linspace(0, frames - 1, points).round()
    made = np.interp(np.arange(frames), at, np.arange(points))
    return torch.from_numpy(made.astype(np.float32))


def along(points: Tensor, at: Tensor, mix: Mix) -> Tensor:
    """float32 [N, D]: what lies between points [K, D] at places [N] of 0 to K - 1."""
    first = at.long().clamp_max(max(len(points) - 2, 0))
    second = (first + 1).clamp_max(len(points) - 1)
    return mix(points[first], points[second], (at - first)[:, None])


def spherical(one: Tensor, other: Tensor, parts: Tensor) -> Tensor:
    """float32 [N, D]: on the great circles from `one` to `other` [N, D], at `parts` [N, 1] of the
    way.

    (Section 2.1, White 2016, Sampling Generative Networks.) Where the two point the same way, or
    opposite ways, between which there are many circles, straight.
    """
    norms = one.norm(dim=1, keepdim=True) * other.norm(dim=1, keepdim=True)
    cosine = (one * other).sum(dim=1, keepdim=True) / norms.clamp_min(1e-12)
    angle = cosine.clamp(-1, 1).acos()
    sine = angle.sin()
    curved = (((1 - parts) * angle).sin() * one + (parts * angle).sin() * other) / sine
    return torch.where(sine < 1e-4, torch.lerp(one, other, parts), curved)
