"""Whether images show which digits stand where, as their texts say and a classifier reads them.

Of the canvases of genimg.data.placed: each digit is looked at where it is said to stand, with its
centre of mass in the middle, as MNIST's digits have it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Rows
from genimg.data.placed import PLACES, Stands, bounds, side_of
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.inference import to_floats
from genimg.judging import AT_ONCE

SIDE = 28  # of MNIST's digits, pixels
STRAY = 0.05  # of the brightness, which may be elsewhere
DARK = 8  # of 255: what is not brighter is taken for the ground


def scores(
    classifier: Engine, said: Sequence[tuple[Stands, ...]], images: Tensor
) -> dict[str, float]:
    """Parts of images uint8 [N, 1, size, size] of which this is right.

    digit: of what is said to stand somewhere, what is read there; clear: there is nothing
    elsewhere; all_right: every digit that is said, and nothing elsewhere
    """
    names = classifier.abilities["classify"].classes
    read = read_at(classifier, said, images)
    right = [
        [names[label] == each.name for label, each in zip(labels, stands, strict=True)]
        for labels, stands in zip(read, said, strict=True)
    ]
    clear = stray(said, images) <= STRAY
    return {
        "digit": float(np.mean([each for every in right for each in every])),
        "clear": float(clear.float().mean()),
        "all_right": float(
            np.mean(
                [all(both) and alone for both, alone in zip(right, clear.tolist(), strict=True)]
            )
        ),
    }


def read_at(
    classifier: Engine, said: Sequence[tuple[Stands, ...]], images: Tensor
) -> list[list[int]]:
    """Classes that are read in each image, in the order in which it is said what stands there."""
    read = [[-1] * len(stands) for stands in said]
    ability, data = classifier.abilities["classify"], classifier.recipe.data
    inner = min(SIDE, data.size) if data.fit == "pad" else data.size  # as it has learnt them
    for place in PLACES:
        asked = [
            (number, which)
            for number, stands in enumerate(said)
            for which, each in enumerate(stands)
            if each.place == place
        ]
        for start in range(0, len(asked), AT_ONCE):
            few = asked[start : start + AT_ONCE]
            cut = window(images[[number for number, _ in few]], place)
            seen = centred(cut, side_of(images.shape[-1]))
            seen = F.interpolate(seen, (inner, inner), mode="bilinear", antialias=True)
            border = data.size - inner
            seen = F.pad(seen, [border // 2, border - border // 2] * 2)
            rows: Rows = {"image": to_floats(seen.round().to(torch.uint8), classifier.device)}
            made = classifier.inference.rows(ability.compute, rows)["scores"]
            for (number, which), label in zip(few, made.argmax(dim=1).tolist(), strict=True):
                read[number][which] = label
    return read


def frame(place: str, size: int) -> tuple[slice, slice]:
    """Rows and columns of a canvas in which what stands there can be."""
    side = side_of(size)
    (top, down), (left, right) = bounds(place, size - side)
    return slice(top, down + side), slice(left, right + side)


def window(images: Tensor, place: str) -> Tensor:
    rows, columns = frame(place, images.shape[-1])
    return images[..., rows, columns]


def centred(images: Tensor, side: int) -> Tensor:
    """float32 [N, 1, side, side] of uint8 [N, 1, h, w]: the pixels about their centre of mass, what
    lies beyond the borders black."""
    mass = images[:, 0].float()
    whole = mass.sum(dim=(1, 2)).clamp_min(1)
    steps = torch.arange(max(*mass.shape[1:], side), device=images.device)

    def places(sums: Tensor) -> Tensor:
        """int64 [N, side], in what is padded, of sums along the other side [N, pixels]."""
        centre = sums @ steps[: sums.shape[1]].float() / whole
        return (centre - (side - 1) / 2).round().long()[:, None] + side + steps[:side]

    rows, columns = places(mass.sum(dim=2)), places(mass.sum(dim=1))
    padded = F.pad(mass, [side] * 4)
    numbers = torch.arange(len(images), device=images.device)[:, None, None]
    return padded[numbers, rows[:, :, None], columns[:, None]][:, None]


def stray(said: Sequence[tuple[Stands, ...]], images: Tensor) -> Tensor:
    """float32 [N]: the part of each image's brightness that lies where nothing is said to stand."""
    bright = images[:, 0].float() * (images[:, 0] > DARK)
    size = images.shape[-1]
    known = torch.zeros(len(PLACES), size, size, dtype=torch.bool)
    for number, place in enumerate(PLACES):
        known[(number, *frame(place, size))] = True
    names = list(PLACES)
    there = torch.stack([
        known[[names.index(each.place) for each in stands]].any(dim=0) for stands in said
    ])  # fmt: skip
    outside = (bright * ~there.to(images.device)).sum(dim=(1, 2))
    return outside / bright.sum(dim=(1, 2)).clamp_min(1)


def refuse_reader(classifier: Engine, names: Sequence[str], named: str) -> None:
    """InputError where a classifier cannot read what may stand on canvases, by its names."""
    if classifier.recipe.data.channels != 1:
        raise InputError(
            f"{named} takes colour images, the model makes gray ones; train one of gray"
        )
    unknown = set(names) - set(classifier.abilities["classify"].classes)
    if unknown:
        raise InputError(
            f"{named}: does not know the class {min(unknown)!r}; train one on the images that are"
            " placed"
        )
