"""Bicubic resampling as MATLAB's imresize does it, and the damage of being shrunk.

What super-resolution is measured by: Keys' kernel (1981, a = -0.5), widened where an image shrinks,
so that it does not alias; borders are mirrored, the outermost pixel twice.
"""

import math
from fractions import Fraction
from functools import lru_cache
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor

from genimg.degradations.degradation import Damage, Damaged, to_levels

_BLOCK = 512  # pixels made by one matrix product: its matrix stays small, however large the image


class Shrink(Damage):
    """Made smaller by a whole factor; sides that are no multiples of it are rounded up."""

    kind: Literal["shrink"] = "shrink"
    """bicubically made smaller"""
    scale: int = Field(2, ge=2, le=8)
    """how many times smaller"""
    quantise: bool = True
    """clip and round to bytes, as in a file"""

    @model_validator(mode="after")
    def all_images_shrink(self) -> Self:
        if self.probability != 1:
            raise ValueError(
                f"probability={self.probability:g}: images of a batch have one size, so all of "
                "them shrink; leave it out"
            )
        return self

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        small = bicubic(images, Fraction(1, self.scale))
        return Damaged(to_levels(small) if self.quantise else small)


def bicubic(images: Tensor, scale: Fraction | int | tuple[int, int]) -> Tensor:
    """Images [N, C, H, W] resampled, in float64; neither clipped nor rounded, of their own type.

    scale: sides become ceil(scale * side), as MATLAB's imresize(image, scale) has it; or those
    sides: (height, width).
    """
    height, width = images.shape[-2:]
    if isinstance(scale, tuple):
        down, across = Fraction(scale[0], height), Fraction(scale[1], width)
    else:
        down = across = Fraction(scale)
    assert down > 0, f"a scale of {scale}"
    assert across > 0, f"a scale of {scale}"
    made = _along(images.double().mT, down).mT
    return _along(made, across).to(images.dtype)


def _along(rows: Tensor, scale: Fraction) -> Tensor:
    """float64 [..., L] -> [..., ceil(scale * L)]."""
    length = rows.shape[-1]
    size = math.ceil(scale * length)
    made = []
    for start in range(0, size, _BLOCK):
        stop = min(start + _BLOCK, size)
        first, weights = _weights(length, scale, start, stop, rows.device)
        made.append(rows[..., first : first + len(weights)] @ weights)
    return made[0] if len(made) == 1 else torch.cat(made, dim=-1)


@lru_cache(maxsize=64)
def _weights(
    length: int, scale: Fraction, start: int, stop: int, device: torch.device
) -> tuple[int, Tensor]:
    """What pixels from `start` to `stop` are made of, of a row of `length`.

    The first pixel of the row that counts, and weights float64 [pixels that count, stop - start].
    """
    stretch = max(1.0, float(1 / scale))
    places = torch.arange(start, stop, dtype=torch.float64)
    centres = (places + 0.5) * scale.denominator / scale.numerator - 0.5
    taps = torch.arange(math.ceil(4 * stretch) + 2)
    sources = (centres - 2 * stretch).floor().long()[:, None] + taps  # [made, taps]
    weights = _cubic((centres[:, None] - sources) / stretch)
    weights /= weights.sum(dim=1, keepdim=True)
    mirrored = sources.remainder(2 * length)
    mirrored = torch.where(mirrored < length, mirrored, 2 * length - 1 - mirrored)
    counts = mirrored[weights != 0]
    first, last = int(counts.min()), int(counts.max())
    matrix = torch.zeros(last + 1 - first, stop - start, dtype=torch.float64)
    columns = torch.arange(stop - start)[:, None].expand_as(mirrored)
    # those of no weight may lie outside
    inside = (mirrored - first).clamp(0, last - first)
    matrix.index_put_((inside, columns), weights, accumulate=True)
    return first, matrix.to(device)


def _cubic(x: Tensor) -> Tensor:
    """Keys' kernel with a = -0.5 (Keys 1981, eq. 15)."""
    x = x.abs()
    near = (1.5 * x - 2.5) * x * x + 1
    far = ((-0.5 * x + 2.5) * x - 4) * x + 2
    return torch.where(x <= 1, near, torch.where(x < 2, far, 0.0))
