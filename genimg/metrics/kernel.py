"""Kernel distance between sets of features: KID on Inception features (Binkowski et al. 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from genimg.contracts import Sync
from genimg.errors import InputError
from genimg.rng import fold, uniform
from genimg.training.sync import Alone, share

SUBSETS = 100  # section 4.4, and the size, as in the authors' program
SIZE = 1000  # images of a subset

_SUBSETS = int.from_bytes(b"subsets")


def kernel_distance(
    real: Tensor,
    fake: Tensor,
    seed: int = 0,
    subsets: int = SUBSETS,
    size: int = SIZE,
    sync: Sync | None = None,
) -> tuple[float, float]:
    """(mean, standard deviation) over subsets of `squared_mmd`. Lower is better.

    real, fake: float [N, D] and [M, D] on one device, N, M >= 2. Its expectation does not depend
    on the numbers of images, and is 0 for two samples of one distribution: a value may be below.
    Subsets are drawn by the seed, without repetition inside one, of all images where a set has
    fewer than `size`; where both have no more, there is one, and no deviation (NaN).

    sync: the workers that share the subsets; all have the same features, and get the same values.
    """
    sync = sync or Alone()
    size = min(size, len(real), len(fake))
    if size < 2:
        raise InputError(
            f"{len(real)} real and {len(fake)} generated images have no kernel distance; give 2 "
            "or more of each"
        )
    if size == len(real) == len(fake):  # of which there is but one subset
        subsets = 1
    found = [real.new_empty(0, dtype=torch.float64)]
    for number in share(sync, subsets):
        x, y = (
            features[chosen(len(features), size, seed, number, side).to(features.device)]
            for side, features in enumerate((real, fake))
        )
        found.append(squared_mmd(x, y)[None])
    values = sync.gather(torch.cat(found))
    spread = float(values.std(correction=0)) if subsets > 1 else math.nan
    return float(values.mean()), spread


def squared_mmd(x: Tensor, y: Tensor) -> Tensor:
    """float64: the unbiased estimate of the squared maximum mean discrepancy, eq. 4.

    x, y: float [N, D], [M, D]. With the cubic kernel (x'y / D + 1)^3, section 4.
    """
    x, y = x.double(), y.double()
    one = x.new_ones(1)

    def products(a: Tensor, b: Tensor) -> Tensor:
        return torch.addmm(one, a, b.T, alpha=1 / a.shape[1])

    def cubes(values: Tensor) -> Tensor:
        return torch.dot(values.square().flatten(), values.flatten())

    def within(a: Tensor) -> Tensor:
        values = products(a, a)
        return (cubes(values) - cubes(values.diagonal())) / (len(a) * (len(a) - 1))

    return within(x) + within(y) - 2 * cubes(products(x, y)) / (len(x) * len(y))


def chosen(count: int, size: int, seed: int, number: int, side: int) -> Tensor:
    """int64 [size]: which of `count` images are in a subset."""
    keys = fold(seed, _SUBSETS, number, side, torch.arange(count))
    return uniform(keys).argsort(stable=True)[:size]
