"""Augmentations of what pixels are: light and colour, and squares that are hidden."""

from abc import abstractmethod
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor

from genimg.augmentations.strength import Strength
from genimg.ranges import Range, draw, word
from genimg.rng import fold, uniform

GRAY = 127.5  # in the middle of what bytes hold
PALE = 0.3  # factor on saturation below which colours are no longer told from one another

Factor = Annotated[float, Field(ge=0, le=4)]


class Values(Strength):
    """One kind that changes the values of pixels, of all frames alike. What an image should become,
    and what is told of it, stays as it is."""

    @abstractmethod
    def change(self, images: Tensor, keys: Tensor, part: Tensor) -> Tensor:
        """Of images float32 [N, C, H, W] in [0, 255], for keys int64 [N]; may go beyond.

        part: float32 [N], of the strength
        """


class Light(Values):
    """Brightness, contrast and saturation, in this order, each times a factor."""

    kind: Literal["light"] = "light"
    """brighter or darker, of more or less contrast and colour"""
    brightness: Range[Factor] = (0.8, 1.2)
    """factor on all values"""
    contrast: Range[Factor] = (0.8, 1.2)
    """factor on the distance from the image's mean"""
    saturation: Range[Factor] = (0.8, 1.2)
    """factor on the distance from a pixel's own gray, of colour images"""

    def belies(self, size: int) -> str:
        gray = self.saturation[0] < PALE
        return f"saturation={[*self.saturation]} makes what has a colour gray" if gray else ""

    def change(self, images: Tensor, keys: Tensor, part: Tensor) -> Tensor:
        one = torch.ones_like(part)
        brightness, contrast, saturation = (
            torch.lerp(one, draw(keys, name, *getattr(self, name)), part)[:, None, None, None]
            for name in ("brightness", "contrast", "saturation")
        )
        images = images * brightness
        mean = images.mean(dim=(1, 2, 3), keepdim=True)
        images = torch.lerp(mean, images, contrast)
        if images.shape[1] == 3:
            images = torch.lerp(images.mean(dim=1, keepdim=True), images, saturation)
        return images


class Cutout(Values):
    """A square is gray (DeVries and Taylor 2017); of some a part lies outside of the image."""

    kind: Literal["cutout"] = "cutout"
    """a square hidden"""
    side: float = Field(0.25, gt=0, le=1)
    """of the square, as a share of the image's"""

    def belies(self, size: int) -> str:
        return "it hides objects"

    def change(self, images: Tensor, keys: Tensor, part: Tensor) -> Tensor:
        centres = uniform(fold(keys, word("cutout")), (2, 1))
        return images.masked_fill(squares(centres, self.side * part, images.shape), GRAY)


def squares(centres: Tensor, sides: Tensor, shape: torch.Size) -> Tensor:
    """bool [N, 1, H, W] of images of a shape [N, C, H, W]: the pixels in a square of each.

    centres: float32 [N, 2, 1] in [0, 1], down and across; sides: float32 [N], as shares of the
        image's. What lies beyond a border is cut off.
    """
    within = []
    for length, centre in zip(shape[-2:], centres.unbind(1), strict=True):
        places = torch.arange(length, device=centres.device) + 0.5
        within.append((places - centre * length).abs() < sides[:, None] * length / 2)
    down, across = within
    return (down[:, :, None] & across[:, None])[:, None]
