"""Where an image of any shape comes to lie in the square of the size that networks see."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from PIL import Image

from genimg.errors import InputError

Fit = Literal["resize", "pad", "crop"]


@dataclass(frozen=True)
class Place:
    """How an image is laid: scaled to `scaled`, then cut to a window of it, or padded to one.

    Sizes are (height, width) in pixels.

    image:  before anything is done to it
    corner: (top, left) of the window in the scaled image; negative where it is padded
    window: what comes out
    """

    image: tuple[int, int]
    scaled: tuple[int, int]
    corner: tuple[int, int]
    window: tuple[int, int]


@lru_cache(maxsize=1024)  # images of a set are of few sizes, and it is asked for each
def placed(image: tuple[int, int], size: int, fit: Fit) -> Place:
    """Where an image of (height, width) goes.

    resize: the short side is brought to `size`, and the centre kept. pad: centred on nothing,
    after a longer side was reduced to `size`. crop: it stays whole, as crops will be taken of it.
    """
    if fit == "crop":
        return Place(image, image, (0, 0), image)
    short, long = min(image), max(image)
    scale = size / short if fit == "resize" else min(1.0, size / long)
    least = size if fit == "resize" else 1
    height, width = (max(least, round(side * scale)) for side in image)
    if fit == "resize":
        corner = (height - size) // 2, (width - size) // 2
    else:
        corner = -((size - height) // 2), -((size - width) // 2)
    return Place(image, (height, width), corner, (size, size))


def laid(image: np.ndarray, place: Place, resampling: Image.Resampling) -> np.ndarray:
    """uint8 [*window, C] of [*image, C]; zeros where it is padded."""
    scaled = resampled(image, place.scaled, resampling)
    (top, left), (height, width) = place.corner, place.window
    if top >= 0 and left >= 0:
        inside = scaled[top : top + height, left : left + width]
        if inside.shape[:2] == place.window:
            return inside
    window = np.zeros((height, width, image.shape[2]), np.uint8)
    down, right = max(0, -top), max(0, -left)
    seen = scaled[max(0, top) :, max(0, left) :][: height - down, : width - right]
    window[down : down + seen.shape[0], right : right + seen.shape[1]] = seen
    return window


def resampled(image: np.ndarray, size: tuple[int, int], resampling: Image.Resampling) -> np.ndarray:
    """uint8 [*size, C] of [H, W, C]."""
    if image.shape[:2] == size:
        return image
    flat = image[..., 0] if image.shape[2] == 1 else image
    scaled = Image.fromarray(flat).resize((size[1], size[0]), resampling)
    return np.asarray(scaled).reshape(*size, image.shape[2])


def too_small(image: tuple[int, int], size: int, name: str) -> InputError:
    """What to tell of an image of (height, width) that has no room for a crop of `size`."""
    height, width = image
    return InputError(
        f"data.size={size}: {name} is only {width}x{height}; take a"
        " smaller size, or data.fit=resize"
    )
