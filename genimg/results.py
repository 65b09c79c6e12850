"""What operations give."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Pictures:
    """images: uint8 or uint16 [N, H, W, C]; seeds: of each, none where nothing was drawn.

    labels: what each is of, where a model was told that, as `--label` takes it
    columns: of a picture of them all, where they lie in rows of that length; 0: in none
    """

    images: np.ndarray
    seeds: tuple[int, ...] = ()
    labels: tuple[str, ...] = ()
    columns: int = 0

    def sheet(self, columns: int | None = None) -> np.ndarray:
        """uint8 [H', W', C]: all of them in one picture, as near to a square as it can be."""
        across = columns or self.columns or math.ceil(math.sqrt(len(self.images)))
        return in_rows(self.images, across)

    def only(self) -> np.ndarray:
        """The one picture [H, W, C]."""
        (image,) = self.images
        return image


@dataclass(frozen=True)
class Frames(Pictures):
    """Pictures that follow one another; `seeds` are those that they go by.

    rows: what each row is, where they lie in rows
    """

    rows: tuple[str, ...] = ()


@dataclass(frozen=True)
class Grid(Pictures):
    """Pictures that lie in rows of `columns`, and are one; `seeds` are those that they go by."""


UNLIKE = "unlike what this model draws: less than half of what varies in it was found"
HALF = 10 * math.log10(2)  # dB above its mean colour: half of an image's variance is explained
LEVEL = 48.0  # dB of a mean colour: what varies less than by a level of 255 is plain


@dataclass(frozen=True)
class Latents:
    """array: float32 [N, D]

    psnr: of what each decodes to, dB, where that was found out; plain_psnr: beside it that of the
    mean colour of its image all over, of which latents that tell anything should be well above
    """

    array: np.ndarray
    psnr: tuple[float, ...] = ()
    plain_psnr: tuple[float, ...] = ()


def unlike(psnr: Sequence[float], plain: Sequence[float]) -> int:
    """How many images are UNLIKE, by the PSNR of what was found and of their mean colours, dB."""
    return sum(
        ours - theirs < HALF and theirs < LEVEL for ours, theirs in zip(psnr, plain, strict=True)
    )


@dataclass(frozen=True)
class Values:
    """values: as JSON has them; picture: draws what shows them, uint8 [H, W, 3]"""

    values: Any
    picture: Callable[[], np.ndarray] | None = None

    def only(self) -> np.ndarray:
        """The picture that shows them, of one image."""
        assert self.picture is not None, "an operation that `shows`"
        return self.picture()


def in_rows(images: np.ndarray, columns: int, pad: int = 2) -> np.ndarray:
    """uint8 [N, H, W, C] as one picture [H', W', C] on black, in rows.

    `pad` pixels lie between images and around them; an incomplete last row stays black.
    """
    count, height, width, channels = images.shape
    rows = -(-count // columns)
    down, across = height + pad, width + pad
    cells = np.zeros((rows * columns, down, across, channels), images.dtype)
    cells[:count, pad:, pad:] = images  # left and top; the rest below
    cells = cells.reshape(rows, columns, down, across, channels).transpose(0, 2, 1, 3, 4)
    picture = cells.reshape(rows * down, columns * across, channels)
    return np.pad(picture, ((0, pad), (0, pad), (0, 0)))
