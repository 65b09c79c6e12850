"""Masks as files: images whose pixels are numbers of classes, indexed PNG as a rule."""

import io

import numpy as np
from PIL import Image

from genimg import images
from genimg.contracts import UNKNOWN
from genimg.errors import InputError
from genimg.images import BrokenImage

MODES = ("P", "L", "1")
SHOWN = 4  # values that are told of those that are not known
LOSSY = ("JPEG", "MPO", "WEBP")  # WEBP need not be, but has no modes of these


def decode(data: bytes, max_pixels: int = 64_000_000) -> np.ndarray:
    """uint8 [H, W, 1]: indices into a palette, values of gray, or 0 and 1 of black and white.

    EXIF orientation is applied, as genimg.images does to what the mask belongs to. Raises
    BrokenImage, also for colours and for lossy formats, which change numbers.
    """
    image = images.opened(data, max_pixels)
    if image.format in LOSSY or image.mode not in MODES:
        raise BrokenImage(
            f"{image.format} of mode {image.mode} is no mask; its pixels must be numbers of"
            " classes: save it as an indexed (or gray, 8-bit) PNG"
        )
    try:
        image.load()
        images.turn_upright(image)
        return np.array(image, np.uint8)[..., None]
    except Exception as error:  # on damaged pixels Pillow raises almost anything
        raise BrokenImage(f"damaged or truncated ({error})") from error


def encode(mask: np.ndarray) -> bytes:
    """uint8 [H, W, 1] as an indexed PNG; its palette is that of PASCAL VOC."""
    assert mask.dtype == np.uint8, mask.dtype
    assert mask.shape[2:] == (1,), mask.shape
    image = Image.fromarray(mask[..., 0])
    image.putpalette(palette().tobytes())
    out = io.BytesIO()
    image.save(out, "PNG")
    return out.getvalue()


def coloured(mask: np.ndarray, count: int) -> np.ndarray:
    """uint8 [H, W, 3]: a mask in the colours of `palette`, as networks are shown it.

    mask: [H, W, C], in these colours (C = 3), or uint8 of numbers of classes (C = 1). Raises
    InputError for what is none of `count` classes, nor UNKNOWN.
    """
    if mask.dtype != np.uint8:
        raise InputError("image: masks have 8 bits; save it as a gray or an indexed PNG")
    known, colours = np.append(np.arange(count), UNKNOWN), palette()
    if mask.shape[2] == 1:
        found, counts = np.unique(mask, return_counts=True)
        if found.tolist() in ([UNKNOWN], [0, UNKNOWN]):  # black and white, as a rule
            known = known[:-1]
        strange, told = ~np.isin(found, known), "{}"
    else:
        found, counts = np.unique(_codes(mask), return_counts=True)
        strange, told = ~np.isin(found, _codes(colours[known])), "#{:06x}"
    if strange.any():
        often = found[strange][np.argsort(-counts[strange], kind="stable")]
        few = ", ".join([told.format(each) for each in often[:SHOWN]])
        part = counts[strange].sum() / counts.sum()
        raise InputError(
            f"image: {part:.2%} of its pixels are of none of the {count} classes that were learnt,"
            f" but {few}{', ...' if len(often) > SHOWN else ''}; give a mask in PASCAL VOC's"
            " colours, or a gray one whose values are the numbers of classes, as `genimg segment"
            " --show mask` writes it"
        )
    return colours[mask[..., 0]] if mask.shape[2] == 1 else mask


def _codes(colours: np.ndarray) -> np.ndarray:
    """uint32 [...]: a number for each of uint8 [..., 3]."""
    red, green, blue = (colours[..., i].astype(np.uint32) for i in range(3))
    return (red << 16) | (green << 8) | blue


def palette() -> np.ndarray:
    """uint8 [256, 3]: a colour for each class, 0 black; classes near in number differ in hue.

    The bits of a number go to red, green and blue by turns, the lowest to their highest bits.
    """
    bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1, bitorder="little")
    bits = np.concatenate([bits, np.zeros((256, 1), np.uint8)], axis=1).reshape(256, 3, 3)
    return (bits * np.array([128, 64, 32], np.uint8)[:, None]).sum(axis=1).astype(np.uint8)
