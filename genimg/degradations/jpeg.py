"""Damage by JPEG: computed in batches on the device, or by libjpeg itself.

The batch computes nearly what libjpeg's default encoder and decoder do (ITU-T T.81; JFIF 1.02): its
scaled tables, its whole numbers, its averaged and interpolated chroma; some coefficients of a
hundred are rounded otherwise, and chroma of a few pixels across is interpolated otherwise. All sums
are exact: an image loses the same in any batch and on any device.
"""

import io
import math
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from pydantic import Field
from torch import Tensor

from genimg.degradations.colour import from_ycc, halved, to_ycc, twice
from genimg.degradations.degradation import Damaged, Levels
from genimg.pixels import to_bytes_range
from genimg.ranges import word
from genimg.rng import fold, integers, uniform

# T.81, tables K.1 (luma) and K.2 (chroma): what quality 50 divides the coefficients by
_LUMA = [
    [16, 11, 10, 16, 24, 40, 51, 61],
    [12, 12, 14, 19, 26, 58, 60, 55],
    [14, 13, 16, 24, 40, 57, 69, 56],
    [14, 17, 22, 29, 51, 87, 80, 62],
    [18, 22, 37, 56, 68, 109, 103, 77],
    [24, 35, 55, 64, 81, 104, 113, 92],
    [49, 64, 78, 87, 103, 121, 120, 101],
    [72, 92, 95, 98, 112, 100, 103, 99],
]
_CHROMA = [
    [17, 18, 24, 47, 99, 99, 99, 99],
    [18, 21, 26, 66, 99, 99, 99, 99],
    [24, 26, 56, 99, 99, 99, 99, 99],
    [47, 66, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
    [99, 99, 99, 99, 99, 99, 99, 99],
]
_COSINE = 2.0**-13  # what libjpeg rounds cosines to,
_KEPT = 4  # what it multiplies by between the two passes of a transform, which it rounds,
_SCALE = 8  # and what its coefficients are multiplied by


class JPEG(Levels):
    """Saved as JPEG, and read again."""

    kind: Literal["jpeg"] = "jpeg"
    """saved as JPEG"""
    low: int = Field(10, ge=1, le=100)
    """lowest quality, as libjpeg counts it"""
    high: int = Field(95, ge=1, le=100)
    """highest quality"""
    shifted: float = Field(0.0, ge=0, le=1)
    """share of the images that have been saved once before, of a quality of their own, their blocks
    0 to 7 pixels off in either direction"""
    subsample: bool = True
    """keep chroma at half the resolution (4:2:0)"""
    exact: bool = False
    """by libjpeg itself, image by image on the CPU"""

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        if self.shifted:
            befallen = uniform(fold(keys, word("saved before"))) < self.shifted
            before = self._before(images, keys)
            images = torch.where(befallen[:, None, None, None], before, images)
        quality = self._quality(keys, "quality")
        return Damaged(self._saved(images, quality), {"quality": quality.float()})

    def _quality(self, keys: Tensor, name: str) -> Tensor:
        return self.low + integers(fold(keys, word(name)), self.high - self.low + 1)

    def _saved(self, images: Tensor, quality: Tensor) -> Tensor:
        return (real if self.exact else jpeg)(images, quality, self.subsample)

    def _before(self, images: Tensor, keys: Tensor) -> Tensor:
        """Saved with their upper left corner anywhere in a block, and moved back."""
        shift = integers(fold(keys, word("shift")), 8, (2, 1))
        height, width = images.shape[-2:]
        y = (torch.arange(height + 7, device=keys.device) - shift[:, 0]).clamp_(0, height - 1)
        x = (torch.arange(width + 7, device=keys.device) - shift[:, 1]).clamp_(0, width - 1)
        saved = self._saved(_taken(images, y, x), self._quality(keys, "quality before"))
        y = torch.arange(height, device=keys.device) + shift[:, 0]
        x = torch.arange(width, device=keys.device) + shift[:, 1]
        return _taken(saved, y, x)


def jpeg(images: Tensor, quality: Tensor, subsample: bool = True) -> Tensor:
    """Images as they are read from JPEG files, float32 [N, C, H, W] in [-1, 1].

    images: likewise, clipped and rounded to bytes first; gray (C = 1) or RGB (C = 3), any H and W
    quality: int64 [N], 1 to 100, as libjpeg counts it
    subsample: chroma at half the resolution (4:2:0), or at the full one
    """
    height, width = images.shape[-2:]
    levels = to_bytes_range(images).float()
    if images.shape[1] == 1:
        pixels = _coded(levels[:, 0], _tables(quality, "luma"))[:, None]
    else:
        luma, *chroma = to_ycc(levels)
        luma = _coded(luma, _tables(quality, "luma"))
        table = _tables(quality, "chroma")
        if subsample:
            columns = (width + 1) // 2
            chroma = [_coded(halved(plane), table)[..., :columns] for plane in chroma]
            chroma = [twice(plane)[:, :height, :width] for plane in chroma]
        else:
            chroma = [_coded(plane, table) for plane in chroma]
        pixels = from_ycc(luma, *chroma)
    return pixels.div_(127.5).sub_(1)


def real(images: Tensor, quality: Tensor, subsample: bool = True) -> Tensor:
    """As jpeg(), by libjpeg: on the CPU, images side by side in PyTorch's number of threads."""
    pixels = to_bytes_range(images).cpu().permute(0, 2, 3, 1).numpy()
    sampling = 2 if subsample else 0

    def saved(image: np.ndarray, quality: int) -> np.ndarray:
        file = io.BytesIO()
        picture = Image.fromarray(image[..., 0] if image.shape[-1] == 1 else image)
        picture.save(file, "JPEG", quality=quality, subsampling=sampling)
        return np.asarray(Image.open(file)).reshape(image.shape)

    with ThreadPoolExecutor(torch.get_num_threads()) as pool:
        read = np.stack(list(pool.map(saved, pixels, quality.tolist())))
    made = torch.from_numpy(read).permute(0, 3, 1, 2).contiguous().to(images.device)
    return made.float().div_(127.5).sub_(1)


def _tables(quality: Tensor, of: Literal["luma", "chroma"]) -> Tensor:
    """float64 [N, 8, 8]: what coefficients are divided by, as libjpeg scales its tables."""
    base = _base(of, quality.device)
    percent = torch.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    return ((base * percent[:, None, None] + 50) // 100).clamp_(1, 255).double()


@lru_cache(maxsize=8)
def _base(of: Literal["luma", "chroma"], device: torch.device) -> Tensor:
    """int64 [8, 8]"""
    return torch.tensor(_LUMA if of == "luma" else _CHROMA, device=device)


def _coded(planes: Tensor, tables: Tensor) -> Tensor:
    """Planes of bytes, float32 [N, H, W], transformed, divided by [N, 8, 8], and all that back.

    In float64, which holds all sums exactly: so no order of summing rounds a coefficient otherwise.
    """
    height, width = planes.shape[-2:]
    planes = F.pad(planes[:, None], (0, -width % 8, 0, -height % 8), mode="replicate")[:, 0]
    count, _, wide = planes.shape
    cosines = _cosines(planes.device)
    divisors = tables.repeat(1, 1, wide // 8)[:, None]

    blocks = planes.double().sub_(128).view(-1, 8)
    made = (blocks @ (cosines.T * _KEPT)).round_()
    made = (cosines / _KEPT @ made.view(count, -1, 8, wide)).round_()
    # divisors a hair smaller, so that halves are rounded away from zero
    made.div_(divisors * (_SCALE * (1 - 1e-9))).round_().mul_(divisors)
    made = (cosines.T * _KEPT @ made).round_()
    made = made.view(-1, 8) @ (cosines / (_KEPT * _SCALE))
    made = made.add_(128.5).floor_().clamp_(0, 255).float()
    return made.view_as(planes)[:, :height, :width]


@lru_cache(maxsize=4)
def _cosines(device: torch.device) -> Tensor:
    """float64 [8, 8]: the cosine transform times sqrt(8), rounded as libjpeg's is."""
    place = torch.arange(8, dtype=torch.float64)
    cosines = math.sqrt(2) * torch.cos((2 * place + 1) * place[:, None] * (math.pi / 16))
    cosines[0] = 1
    return cosines.div_(_COSINE).round_().mul_(_COSINE).to(device)


def _taken(images: Tensor, y: Tensor, x: Tensor) -> Tensor:
    """Pixels [N, C, h, w] of images [N, C, H, W], at rows [N, h] and columns [N, w] of each."""
    places = (y[:, None, :, None] * images.shape[-1] + x[:, None, None]).flatten(2)
    taken = images.flatten(2).gather(2, places.expand(-1, images.shape[1], -1))
    return taken.view(*images.shape[:2], y.shape[1], x.shape[1])
