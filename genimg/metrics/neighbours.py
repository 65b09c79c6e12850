"""Nearest neighbours of features: how alike two sets are, and whether one was learnt by heart.

Distances are computed in blocks of a few queries beside all points, and of one block at a time
there are 16 MiB (on a GPU 512 MiB), a few times over, whatever the sizes of the sets. Blocks begin
at the same places however many workers share them: a distance is the same, to the bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from genimg.contracts import Sync
from genimg.errors import InputError
from genimg.training.sync import Alone, share

K_PRECISION = 3  # Kynkäänniemi et al. 2019, section 3
K_DENSITY = 5  # Naeem et al. 2020, section 4
VALUES_AT_ONCE = {"cpu": 2**22, "cuda": 2**27}  # of a block of distances, float32
SUMMED_AT_ONCE = 4096  # features of which there are copies in float64


class Manifolds(NamedTuple):
    """How two sets lie in one another: shares, but for density, which may exceed 1."""

    precision: float  # of generated images, those that lie among real ones
    recall: float  # of real images, those that lie among generated ones
    density: float  # real balls around a generated image, in units of k
    coverage: float  # of real images, those that have a generated one near


class Authenticity(NamedTuple):
    """How near N images come to what was trained on.

    nearest: int64 [N], the training image that each is nearest to
    ratios:  float32 [N], that distance, in units of the training image's own to its nearest other
    """

    nearest: Tensor
    ratios: Tensor

    @property
    def share(self) -> float:
        """Of images that are further from their training image than its nearest other is."""
        return float((self.ratios > 1).double().mean())


def neighbours(
    queries: Tensor,
    points: Tensor,
    k: int,
    selves: Tensor | None = None,
    sync: Sync | None = None,
) -> tuple[Tensor, Tensor]:
    """(distances float32 [N, k], ascending, places int64 [N, k]) of the points nearest to queries.

    queries, points: float32 [N, D] and [M, D] on one device, M > k
    selves: int64 [N], the point that each query itself is, which does not count
    sync:   the workers that share the queries; all have the same, and get the same
    """
    sync = sync or Alone()
    queries, points = centred(queries, points)
    lengths, own = points.square().sum(dim=1), queries.square().sum(dim=1)
    parts = [torch.empty(0, k, device=queries.device)]
    places = [torch.empty(0, k, device=queries.device, dtype=torch.int64)]
    for block in blocks(len(queries), len(points), queries.device, sync):
        squared = torch.addmm(lengths, queries[block], points.T, alpha=-2)  # but for own lengths
        if selves is not None:
            squared.scatter_(1, selves[block, None], torch.inf)
        # the least alone is found faster than the k least
        found = squared.min(dim=1, keepdim=True) if k == 1 else squared.topk(k, largest=False)
        parts.append(found[0].add_(own[block, None]).clamp_(min=0).sqrt_())
        places.append(found[1])
    return sync.gather(torch.cat(parts)), sync.gather(torch.cat(places))


def manifolds(real: Tensor, fake: Tensor, sync: Sync | None = None) -> Manifolds:
    """Improved precision and recall, density and coverage of features float32 [N, D], [M, D].

    A set is taken for the union of balls around its images, as wide as to their k-th neighbours of
    the same set: eq. 1 and 2 of Kynkäänniemi et al. 2019 with k = 3; eq. 3 and 4 of Naeem et al.
    2020 with k = 5. Raises InputError for fewer than six images of either.
    """
    sync = sync or Alone()
    if min(len(real), len(fake)) <= K_DENSITY:
        raise InputError(
            f"{len(real)} real and {len(fake)} generated images have no {K_DENSITY} neighbours "
            f"each; give {K_DENSITY + 1} or more of both"
        )
    around = within_set(real, K_DENSITY, sync).square()
    real_narrow, real_wide = around[:, K_PRECISION - 1], around[:, K_DENSITY - 1]
    fake_narrow = within_set(fake, K_PRECISION, sync).square()[:, -1]
    fake, real = centred(fake, real)
    lengths, own = real.square().sum(dim=1), fake.square().sum(dim=1)
    counts = [torch.empty(0, 2, device=real.device)]
    nearest = torch.full((len(real),), torch.inf, device=real.device)
    recalled = torch.zeros(len(real), device=real.device)
    for block in blocks(len(fake), len(real), real.device, sync):
        squared = torch.addmm(lengths, fake[block], real.T, alpha=-2).add_(own[block, None])
        within = (squared <= real_narrow).any(dim=1).float()
        counts.append(torch.stack([within, (squared <= real_wide).sum(dim=1).float()], dim=1))
        nearest = torch.minimum(nearest, squared.amin(dim=0))
        recalled += (squared <= fake_narrow[block, None]).any(dim=0)
    precision, density = sync.gather(torch.cat(counts)).double().mean(dim=0).tolist()
    covered = sync.gather(nearest[None]).amin(dim=0) <= real_wide
    found = sync.gather(recalled[None]).sum(dim=0) > 0
    return Manifolds(
        precision, float(found.double().mean()), density / K_DENSITY, float(covered.double().mean())
    )


def authenticity(fake: Tensor, training: Tensor, sync: Sync | None = None) -> Authenticity:
    """How far features float32 [N, D] are from those trained on, float32 [M, D], M >= 2.

    Section 4.3, Alaa et al. 2022: an image is authentic where it is further from its nearest
    training image than that one is from its own nearest other. About half of the images that a
    perfect generator makes are; of copies none.
    """
    distances, places = (each[:, 0] for each in neighbours(fake, training, 1, sync=sync))
    hosts, back = places.unique(return_inverse=True)
    own, _ = neighbours(training[hosts], training, 1, hosts, sync)
    # where an image was trained on twice, only its copy is as near
    return Authenticity(places, distances / own[back, 0].clamp(min=torch.finfo(own.dtype).tiny))


def within_set(features: Tensor, k: int, sync: Sync) -> Tensor:
    """float32 [N, k]: distances from each of float32 [N, D] to its nearest others."""
    selves = torch.arange(len(features), device=features.device)
    return neighbours(features, features, k, selves, sync)[0]


def centred(queries: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """Both about the mean of the points: distances stay, and less cancels in their expansion."""
    sums = torch.stack([few.double().sum(dim=0) for few in points.split(SUMMED_AT_ONCE)])
    mean = (sums.sum(dim=0) / len(points)).float()
    return queries - mean, points - mean


def blocks(count: int, points: int, device: torch.device, sync: Sync) -> Iterator[slice]:
    """This worker's blocks of `count` queries, each of which meets so many points."""
    values = VALUES_AT_ONCE["cpu" if device.type == "cpu" else "cuda"]
    rows = max(1, values // points)
    for block in share(sync, -(-count // rows)):
        yield slice(block * rows, min((block + 1) * rows, count))
