"""What restoration models learn to undo, drawn on the device and decided by the images' keys.

Each draw folds a word of its own into the key, so that the level of the noise, the noise itself,
crops and augmentation are independent of one another.
"""

import torch
from torch import Tensor

from genimg.rng import fold, normal, uniform

_SIGMA = int.from_bytes(b"sigma")
_NOISE = int.from_bytes(b"noise")


def draw_sigma(keys: Tensor, low: float, high: float) -> Tensor:
    """float32 [N], uniform in [low, high], for keys int64 [N]; low = high gives that level."""
    assert 0 <= low <= high, f"noise levels from {low} to {high}"
    return (low + (high - low) * uniform(fold(keys, _SIGMA))).clamp_(max=high)


def gaussian_noise(images: Tensor, keys: Tensor, sigma: Tensor) -> Tensor:
    """Images plus white Gaussian noise: float32 [N, C, H, W], neither clipped nor rounded.

    images: float32 [N, C, H, W] in [-1, 1]; keys: int64 [N]; sigma: float32 [N], the standard
    deviation in steps of 0..255, as the denoising literature counts it (2 / 255 each in [-1, 1]).
    """
    noise = normal(fold(keys, _NOISE), images.shape[1:])
    return torch.addcmul(images, noise, (sigma * (2 / 255))[:, None, None, None])
