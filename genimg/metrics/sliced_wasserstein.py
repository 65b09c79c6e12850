"""Sliced Wasserstein distance between sets of images, scale by scale; needs no trained network.

Karras, Aila, Laine, Lehtinen 2018, "Progressive Growing of GANs", section 5.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.errors import InputError
from genimg.rng import fold, integers, normal

PATCH = 7  # pixels
SMALLEST = 16  # pixels, the side of the coarsest level
DIRECTIONS = 128
IMAGES_AT_ONCE = 256  # bounds the memory of the pyramids

_POSITIONS = int.from_bytes(b"patches")
_DIRECTIONS = int.from_bytes(b"slices")


def sliced_wasserstein(
    real: Tensor, fake: Tensor, seed: int = 0, patches_per_image: int = 128
) -> float:
    """The average over levels of `sliced_wasserstein_levels`, x 1000. Lower is better."""
    levels = sliced_wasserstein_levels(real, fake, seed, patches_per_image)
    return sum(levels.values()) / len(levels)


def sliced_wasserstein_levels(
    real: Tensor, fake: Tensor, seed: int = 0, patches_per_image: int = 128
) -> dict[int, float]:
    """{side in pixels: distance x 1000} of each level of the Laplacian pyramid, finest first.

    real, fake: uint8 [N, C, H, W], as many of each, H and W at least 7. Levels halve from full
    size while the shorter side stays at 16 pixels or more; the last holds the low frequencies.
    Each set's patches are normalised channel by channel, as in the paper: a change of overall
    brightness or contrast alone is not seen. The same seed gives the same value. Two samples of
    one distribution score above 0; print that floor beside a model's score.

    Keeps N * patches_per_image * 49 * C floats a level and set (N = 500, RGB: 38 MB).
    """
    assert real.dtype == fake.dtype == torch.uint8, "images are bytes here"
    if real.shape != fake.shape:
        raise InputError(
            f"{list(real.shape)} real and {list(fake.shape)} generated images ([number, channels, "
            "height, width]) cannot be compared; give as many of each, of one size"
        )
    if min(real.shape[-2:]) < PATCH:
        height, width = real.shape[-2:]
        raise InputError(f"images of {width}x{height} hold no {PATCH}x{PATCH} patch; enlarge them")
    distances = {}
    for level in range(_depth(min(real.shape[-2:]))):
        a = _descriptors(real, level, seed, patches_per_image)
        b = _descriptors(fake, level, seed, patches_per_image)
        side = -(-min(real.shape[-2:]) // 2**level)
        distances[side] = 1000 * sliced_distance(a, b, seed)
    return distances


def sliced_distance(a: Tensor, b: Tensor, seed: int = 0) -> float:
    """Mean 1-D Wasserstein-1 distance of points float32 [M, D] along random directions.

    In one dimension there is one direction, and the value is the Wasserstein distance itself.
    """
    assert a.shape == b.shape, "sorted points are compared one to one"
    keys = fold(seed, _DIRECTIONS, torch.arange(DIRECTIONS, device=a.device))
    directions = F.normalize(normal(keys, (a.shape[1],)), dim=1)
    gaps = (directions @ a.T).sort(dim=1).values - (directions @ b.T).sort(dim=1).values
    return float(gaps.abs().mean(dtype=torch.float64))


def _depth(side: int) -> int:
    """How many levels there are: at least one, even for images below 16 pixels."""
    depth = 1
    while (side := -(-side // 2)) >= SMALLEST:
        depth += 1
    return depth


def _descriptors(images: Tensor, level: int, seed: int, per_image: int) -> Tensor:
    """float32 [N * per_image, C * 49] of uint8 [N, C, H, W]: normalised patches of one level."""
    last = level + 1 == _depth(min(images.shape[-2:]))
    keys = fold(seed, _POSITIONS, level, torch.arange(len(images), device=images.device))
    parts = [
        _patches(_laplacian(batch.float(), level, last), batch_keys, per_image)
        for batch, batch_keys in zip(
            images.split(IMAGES_AT_ONCE), keys.split(IMAGES_AT_ONCE), strict=True
        )
    ]
    patches = torch.cat(parts)  # [M, C, 7, 7]
    variance, mean = torch.var_mean(patches, dim=(0, 2, 3), correction=0, keepdim=True)
    # a channel without contrast (every generated image black) stays 0 instead of becoming NaN
    return ((patches - mean) / variance.sqrt().clamp(min=1e-6)).flatten(1)


def _patches(planes: Tensor, keys: Tensor, per_image: int) -> Tensor:
    """float32 [N * per_image, C, 7, 7] at random places of float32 [N, C, H, W]."""
    windows = planes.unfold(2, PATCH, 1).unfold(3, PATCH, 1)  # a view [N, C, H-6, W-6, 7, 7]
    limits = torch.tensor(windows.shape[2:4], device=planes.device)
    places = integers(keys, limits, (per_image, 2))
    image = torch.arange(len(planes), device=planes.device)[:, None]
    return windows[image, :, places[..., 0], places[..., 1]].flatten(0, 1)


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
