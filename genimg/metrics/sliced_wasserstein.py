"""Sliced Wasserstein distance between sets of images, scale by scale; needs no trained network.

Karras, Aila, Laine, Lehtinen 2018, "Progressive Growing of GANs", section 5.
"""

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Sync
from genimg.errors import InputError
from genimg.rng import fold, integers, normal
from genimg.training.sync import Alone

PATCH = 7  # pixels
SMALLEST = 16  # pixels, the side of the coarsest level
PATCHES = 2**17  # of each set and level
DIRECTIONS = 128
# Of pyramids, and of projections: bounds the memory of both. More are no faster on a CPU.
VALUES_AT_ONCE = {"cpu": 2**20, "cuda": 2**24}

_POSITIONS = int.from_bytes(b"patches")
_DIRECTIONS = int.from_bytes(b"slices")


def sliced_wasserstein(
    real: Tensor, fake: Tensor, seed: int = 0, patches: int = PATCHES, sync: Sync | None = None
) -> float:
    """The average over levels of `sliced_wasserstein_levels`, x 1000. Lower is better."""
    levels = sliced_wasserstein_levels(real, fake, seed, patches, sync)
    return sum(levels.values()) / len(levels)


def sliced_wasserstein_levels(
    real: Tensor, fake: Tensor, seed: int = 0, patches: int = PATCHES, sync: Sync | None = None
) -> dict[int, float]:
    """{side in pixels: distance x 1000} of each level of the Laplacian pyramid, finest first.

    real, fake: uint8 [N, C, H, W] on one device, of one size, H and W at least 7; their numbers
    may differ. Levels halve from full size while the shorter side stays at 16 pixels or more; the
    last holds the low frequencies. Each set's patches are normalised channel by channel, as in
    the paper: a change of overall brightness or contrast alone is not seen. The same seed gives
    the same value. Two samples of one distribution score above 0; print that floor beside a
    model's score.

    patches: how many of each set, taken in turn from its images
    sync:    the workers that measure together: each gives its part of both sets (it may be
             empty), in the order of the ranks, and gets the value for all of them. They divide
             images and directions among them; each keeps patches * 49 * C floats of either set.
    """
    assert real.dtype == fake.dtype == torch.uint8, "images are bytes here"
    sync = sync or Alone()
    if real.shape[1:] != fake.shape[1:]:
        raise InputError(
            f"{list(real.shape)} real and {list(fake.shape)} generated images ([number, channels, "
            "height, width]) cannot be compared; give images of one size"
        )
    if min(real.shape[-2:]) < PATCH:
        height, width = real.shape[-2:]
        raise InputError(f"images of {width}x{height} hold no {PATCH}x{PATCH} patch; enlarge them")
    distances = {}
    for level in range(_depth(min(real.shape[-2:]))):
        a = _descriptors(real, level, seed, patches, sync)
        b = _descriptors(fake, level, seed, patches, sync)
        side = -(-min(real.shape[-2:]) // 2**level)
        distances[side] = 1000 * sliced_distance(a, b, seed, sync)
    return distances


def sliced_distance(a: Tensor, b: Tensor, seed: int = 0, sync: Sync | None = None) -> float:
    """Mean 1-D Wasserstein-1 distance of points float32 [M, D] along random directions.

    In one dimension there is one direction, and the value is the Wasserstein distance itself.
    All workers of `sync` have the same points, and share the directions.
    """
    assert a.shape == b.shape, "sorted points are compared one to one"
    sync = sync or Alone()
    mine = torch.arange(DIRECTIONS)[sync.rank :: sync.world]
    directions = normal(fold(seed, _DIRECTIONS, mine), (a.shape[1],)).to(a.device)
    parts = [
        (_sorted(few @ a.T) - _sorted(few @ b.T)).abs().mean(dim=1, dtype=torch.float64)
        for few in F.normalize(directions, dim=1).split(max(1, values_at_once(a) // len(a)))
    ]
    distances = torch.cat([a.new_empty(0, dtype=torch.float64), *parts])
    return float(sync.gather(distances).mean())


def values_at_once(tensor: Tensor) -> int:
    return VALUES_AT_ONCE["cpu" if tensor.device.type == "cpu" else "cuda"]


def _sorted(rows: Tensor) -> Tensor:
    """Each row of float32 [N, M] in ascending order; NumPy's sort is many times faster on CPUs."""
    if rows.device.type == "cpu":
        return torch.from_numpy(np.sort(rows.numpy(), axis=1))
    return rows.sort(dim=1).values


def _depth(side: int) -> int:
    """How many levels there are: at least one, even for images below 16 pixels."""
    depth = 1
    while (side := -(-side // 2)) >= SMALLEST:
        depth += 1
    return depth


def _descriptors(images: Tensor, level: int, seed: int, patches: int, sync: Sync) -> Tensor:
    """float32 [patches, C * 49]: normalised patches of one level of all workers' images.

    Image i of N gives patches i, i + N, i + 2 N, ... below `patches`.
    """
    counts = sync.gather(torch.tensor([len(images)], device=images.device)).tolist()
    total = sum(counts)
    if not total:
        raise InputError("no images to compare; give at least one of each set")
    last = level + 1 == _depth(min(images.shape[-2:]))
    numbers = torch.arange(len(images)) + sum(counts[: sync.rank])
    at_once = max(1, values_at_once(images) // images.shape[1:].numel())
    parts = [
        _patches(
            _laplacian(batch.float(), level, last),
            fold(seed, _POSITIONS, level, few),
            (patches - few + total - 1) // total,
            -(-patches // total),
        )
        for batch, few in zip(images.split(at_once), numbers.split(at_once), strict=True)
        if len(batch)
    ]
    none = torch.empty(0, images.shape[1], PATCH, PATCH, device=images.device)
    found = sync.gather(torch.cat([none, *parts]))  # [patches, C, 7, 7]
    variance, mean = torch.var_mean(found, dim=(0, 2, 3), correction=0, keepdim=True)
    # a channel without contrast (every generated image black) stays 0 instead of becoming NaN
    return found.sub_(mean).div_(variance.sqrt().clamp(min=1e-6)).flatten(1)


def _patches(planes: Tensor, keys: Tensor, counts: Tensor, most: int) -> Tensor:
    """float32 [sum of counts, C, 7, 7] at random places of float32 [N, C, H, W].

    keys, counts: int64 [N] on the CPU; `most` is the largest that a count can be.
    """
    windows = planes.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # a view [N, C, H-6, W-6, 7, 7]
    places = integers(keys, torch.tensor(windows.shape[2:4]), (most, 2))
    image, number = torch.nonzero(torch.arange(most) < counts[:, None], as_tuple=True)
    y, x = places[image, number].to(planes.device).unbind(1)
    return windows[image.to(planes.device), :, y, x]


def _laplacian(images: Tensor, level: int, last: bool) -> Tensor:
    """Level `level` of the pyramid of Burt and Adelson 1983; `last` keeps the low frequencies."""
    for _ in range(level):
        images = _down(images)
    return images if last else images - _up(_down(images), images.shape[-2:])


def _down(images: Tensor) -> Tensor:
    return _blur(images)[..., ::2, ::2]


def _up(images: Tensor, size: torch.Size) -> Tensor:
    spread = images.new_zeros(*images.shape[:2], *size)
    spread[..., ::2, ::2] = images
    return 4 * _blur(spread)


def _blur(images: Tensor) -> Tensor:
    """Binomial 5 x 5, mirrored at the borders without repeating the edge."""
    weights = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0], device=images.device) / 16
    kernel = torch.outer(weights, weights).expand(images.shape[1], 1, 5, 5)
    padded = F.pad(images, (2, 2, 2, 2), mode="reflect")
    return F.conv2d(padded, kernel, groups=images.shape[1])
