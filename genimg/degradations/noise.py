"""Noise: white Gaussian, as the denoising literature has it, and that of photons counted."""

from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from genimg.degradations.degradation import Damaged, Levels, to_levels
from genimg.ranges import draw, word
from genimg.rng import fold, normal


class Noise(Levels):
    """White Gaussian noise, float, unless asked for neither clipped nor rounded."""

    kind: Literal["noise"] = "noise"
    """white Gaussian noise"""
    low: float = Field(0.0, ge=0, le=255)
    """smallest sigma, on the scale of 0 to 255"""
    high: float = Field(55.0, ge=0, le=255)
    """largest sigma"""
    shot: float = Field(0.0, ge=0, le=255)
    """largest sigma of shot noise at white; it falls with the root of the brightness to 0 at black,
    and is drawn from 0 on"""
    clip: bool = False
    """clip what is noisy to the range of images"""
    quantise: bool = False
    """clip and round what is noisy to bytes, as in a file"""

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        sigma = draw_sigma(keys, self.low, self.high)
        if self.shot:
            photons = draw(keys, "shot", 0, self.shot)
            noisy = shot_noise(images, keys, sigma, photons)
        else:
            noisy = gaussian_noise(images, keys, sigma)
        if self.quantise:
            noisy = to_levels(noisy)
        elif self.clip:
            noisy = noisy.clamp(-1, 1)
        return Damaged(noisy, {"sigma": sigma})


def draw_sigma(keys: Tensor, low: float, high: float) -> Tensor:
    """float32 [N], uniform in [low, high], for keys int64 [N]; low = high gives that level."""
    assert low >= 0, f"noise levels from {low} to {high}"
    return draw(keys, "sigma", low, high)


def gaussian_noise(images: Tensor, keys: Tensor, sigma: Tensor) -> Tensor:
    """Images plus white Gaussian noise: float32 [N, C, H, W], neither clipped nor rounded.

    images: float32 [N, C, H, W] in [-1, 1]; keys: int64 [N]; sigma: float32 [N], the standard
    deviation in steps of 0..255, as the denoising literature counts it (2 / 255 each in [-1, 1]).
    """
    noise = normal(fold(keys, word("noise")), images.shape[1:])
    return torch.addcmul(images, noise, (sigma * (2 / 255))[:, None, None, None])


def shot_noise(images: Tensor, keys: Tensor, sigma: Tensor, shot: Tensor) -> Tensor:
    """As gaussian_noise(), of a variance that grows with the brightness: [N, C, H, W].

    The Gaussian approximation of Poisson and Gaussian noise together (eq. 4, Foi, Trimeche,
    Katkovnik, Egiazarian 2008). shot: float32 [N], the standard deviation that counting photons
    adds at white, in steps of 0..255.
    """
    brightness = images.add(1).div_(2).clamp_(0, 1)
    variance = torch.addcmul(
        sigma.square()[:, None, None, None], brightness, shot.square()[:, None, None, None]
    )
    noise = normal(fold(keys, word("noise")), images.shape[1:])
    return torch.addcmul(images, noise, variance.sqrt_().mul_(2 / 255))
