"""Damage to light and colour: too dark, too flat, of a wrong colour, or of none."""

from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from genimg.degradations.degradation import Damage, Damaged
from genimg.ranges import Range, draw, word
from genimg.rng import fold, uniform

LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601

Factor = Annotated[float, Field(ge=0, le=10)]
Gamma = Annotated[float, Field(gt=0, le=10)]


class Light(Damage):
    """Exposure, contrast, saturation and a cast of colour, in this order; clipped in the end.

    Of values from 0 (black) to 1 (white): gain * value ** gamma, then away from mid gray by the
    contrast, from the pixel's own gray by the saturation, and each channel by its cast.
    """

    kind: Literal["light"] = "light"
    """too dark, too flat, or with a cast of colour"""
    gamma: Range[Gamma] = (1.0, 3.0)
    """exponent of the brightness: above 1 darkens what is neither black nor white"""
    gain: Range[Factor] = (0.4, 1.0)
    """factor on the brightness"""
    contrast: Range[Factor] = (0.6, 1.0)
    """factor on the distance from mid gray"""
    saturation: Range[Factor] = (0.5, 1.0)
    """factor on the distance from a pixel's own gray"""
    cast: Range[Factor] = (0.8, 1.2)
    """factor on each channel of a colour image, drawn for each"""

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        gamma, gain, contrast, saturation = (
            draw(keys, name, *span)[:, None, None, None]
            for name, span in (
                ("gamma", self.gamma), ("gain", self.gain), ("contrast", self.contrast),
                ("saturation", self.saturation),
            )
        )  # fmt: skip
        value = images.add(1).div_(2).clamp_(0, 1).pow_(gamma).mul_(gain)
        value = value.sub_(0.5).mul_(contrast).add_(0.5)
        if images.shape[1] == 3:
            gray = luma(value)
            low, high = self.cast
            cast = low + (high - low) * uniform(fold(keys, word("cast")), (3, 1, 1))
            value = (value - gray).mul_(saturation).add_(gray).mul_(cast)
        return Damaged(value.clamp_(0, 1).mul_(2).sub_(1))


class Gray(Damage):
    """Colour taken away: all channels become their luma, for a colouriser to bring it back."""

    kind: Literal["gray"] = "gray"
    """without colour"""

    def apply(self, images: Tensor, keys: Tensor) -> Damaged:
        return Damaged(luma(images).expand_as(images).contiguous())


def luma(images: Tensor) -> Tensor:
    """[N, 1, H, W] of [N, C, H, W]: full-range luma of RGB (C = 3), or the one channel itself."""
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return torch.add(LUMA[0] * red, green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
