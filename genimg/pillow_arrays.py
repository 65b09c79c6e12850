"""From Pillow's images to arrays, and what both are made into on the way."""

import itertools
from typing import Literal

import numpy as np
from PIL import Image

Channels = Literal[1, 3]  # gray, RGB

_LARGE, _BAND = 2**22, 2**18  # pixels: of images that are copied in bands, and of these


def as_array(image: Image.Image, channels: Channels | None) -> np.ndarray:
    """uint8 [H, W, C] of a decoded Pillow image of any mode."""
    mode = image.mode
    if mode == "I;16":
        narrow = narrowed(np.asarray(image))[..., None]
        return narrow.repeat(3, axis=2) if channels == 3 else narrow

    gray = mode in ("1", "L", "LA", "La")
    if image.has_transparency_data:
        image = on_white(image.convert("LA" if mode == "La" else "RGBA").convert("RGBA"))
    natural = "L" if gray else "RGB"
    for wanted in (natural, {None: natural, 1: "L", 3: "RGB"}[channels]):
        if image.mode != wanted:  # converting copies, needed or not
            image = image.convert(wanted)
    return _pixels(image)


def _pixels(image: Image.Image) -> np.ndarray:
    """[H, W, C] of a Pillow image; a large one in bands, for Pillow makes two copies more."""
    width, height = image.size
    rows = max(1, _BAND // width)
    if width * height <= _LARGE:
        made = np.array(image)
    else:
        bands = (
            np.asarray(image.crop((0, top, width, min(top + rows, height))))
            for top in range(0, height, rows)
        )
        first = next(bands)
        made = np.empty((height, *first.shape[1:]), first.dtype)
        for number, band in enumerate(itertools.chain([first], bands)):
            made[number * rows : number * rows + len(band)] = band
    return made[..., None] if made.ndim == 2 else made


def as_it_is(image: Image.Image) -> np.ndarray:
    """uint8 or uint16 [H, W, C] of a decoded Pillow image, with its alpha and depth."""
    if image.mode == "I;16":
        return _pixels(image)
    if not image.has_transparency_data:
        return as_array(image, None)
    return _pixels(image.convert("LA" if image.mode in ("LA", "La") else "RGBA"))


def narrowed(array: np.ndarray) -> np.ndarray:
    """uint16 of any shape as uint8, rounded."""
    return ((array.astype(np.int32) + 128) // 257).astype(np.uint8)


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA image as it looks on white, opaque."""
    return Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
