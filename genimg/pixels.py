"""Pixels that are decoded: their channels, and the library's range of them, to bytes and back.

Inside the library images are float32 [N, C, H, W] in [-1, 1].
"""

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from genimg.errors import InputError
from genimg.images import Channels
from genimg.pillow_arrays import narrowed
from genimg.results import in_rows

_LUMA = (19595, 38470, 7471)  # 65536 times BT.601's red, green and blue, as Pillow has them


def with_channels(array: np.ndarray, channels: Channels) -> np.ndarray:
    """uint8 or uint16 [H, W, 1 or 3] with the channels asked for, as images.decode() would convert
    them."""
    if array.shape[2] == channels:
        return array
    if channels == 3:
        return array.repeat(3, axis=2)
    if array.dtype == np.uint8:
        return np.array(Image.fromarray(array).convert("L"))[..., None]
    luma = sum(array[..., i : i + 1] * np.uint32(part) for i, part in enumerate(_LUMA))
    return ((luma + np.uint32(2**15)) >> 16).astype(array.dtype)


def converted(image: np.ndarray, channels: Channels) -> np.ndarray:
    """uint8 or uint16 [H, W, 1 to 4] with the channels asked for, and alpha if it has some."""
    colours = image.shape[2] - (image.shape[2] in (2, 4))
    if colours == channels:
        return image
    colour = with_channels(image[..., :colours], channels)
    return np.concatenate([colour, image[..., colours:]], axis=2)


def in_bytes(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 of any shape as uint8, rounded."""
    return narrowed(image) if image.dtype == np.uint16 else image


def in_colour(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 [H, W, 1 to 4] as uint8 [H, W, 3 or 4], as files of colours have it: gray as
    RGB, alpha as it was."""
    image = in_bytes(image)
    if image.shape[2] >= 3:
        return image
    return image[..., [0, 0, 0, 1] if image.shape[2] == 2 else [0, 0, 0]]


def to_tensor(array: np.ndarray) -> Tensor:
    """uint8 [H, W, C] or [N, H, W, C] as float32 [C, H, W] or [N, C, H, W] in [-1, 1]."""
    assert array.dtype == np.uint8, array.dtype
    channels_first = np.ascontiguousarray(np.moveaxis(array, -1, -3))
    return torch.from_numpy(channels_first).float().div_(127.5).sub_(1)


FAINT = 1 / 32


def to_bytes_range(images: Tensor) -> Tensor:
    """float [-1, 1] (clamped; any shape) as uint8, rounded half to even."""
    return images.float().clamp(-1, 1).add_(1).mul_(127.5).round_().to(torch.uint8)


def grid(images: Tensor, columns: int, pad: int = 2) -> np.ndarray:
    """Images [N, C, H, W], uint8 or float in [-1, 1], as one uint8 [H', W', C]; see in_rows()."""
    bytes_ = images if images.dtype == torch.uint8 else to_bytes_range(images)
    return in_rows(bytes_.permute(0, 2, 3, 1).cpu().numpy(), columns, pad)


def marked(mask: np.ndarray, image: np.ndarray) -> np.ndarray:
    """float32 [H, W], 0 to 1, of a picture uint8 or uint16 [H, W, 1 to 4] that is the mask of an
    image. InputError where it is not of that one's size.

    Where it is transparent anywhere, what is transparent is marked; else what is white.
    """
    (height, width), (own_height, own_width) = image.shape[:2], mask.shape[:2]
    if (height, width) != (own_height, own_width):
        raise InputError(
            f"mask of {own_width}x{own_height} for an image of {width}x{height};"
            " give one of its size"
        )
    peak = np.iinfo(mask.dtype).max
    colours = mask
    if mask.shape[2] in (2, 4):
        if mask[..., -1].min() < peak:
            return transparent(mask)
        colours = mask[..., :-1]
    return _plainly(colours.astype(np.float32).mean(axis=2) / peak)


def transparent(image: np.ndarray) -> np.ndarray:
    """float32 [H, W], 0 to 1: how far a picture uint8 or uint16 [H, W, 2 or 4] is transparent."""
    return _plainly(1 - image[..., -1].astype(np.float32) / np.iinfo(image.dtype).max)


def painted(markup: np.ndarray) -> np.ndarray:
    """[H, W, 1]: white where something is painted on an overlay uint8 or uint16 [H, W, 1 to 4]."""
    if markup.shape[2] in (2, 4):
        return markup[..., -1:]
    return np.full_like(markup[..., :1], np.iinfo(markup.dtype).max)


ROWS = 256  # that are composited at once: what is between takes four times their memory


def on_white(image: np.ndarray) -> np.ndarray:
    """uint8 or uint16 [H, W, 1 or 3] of [H, W, 1 to 4], as composited on white."""
    if image.shape[2] in (1, 3):
        return image
    peak = np.uint32(np.iinfo(image.dtype).max)
    made = np.empty_like(image[..., :-1])
    for top in range(0, len(image), ROWS):
        rows = image[top : top + ROWS].astype(np.uint32)
        colours, alpha = rows[..., :-1], rows[..., -1:]
        made[top : top + ROWS] = (colours * alpha + peak * (peak - alpha) + peak // 2) // peak
    return made


def _plainly(holes: np.ndarray) -> np.ndarray:
    """What is marked by less than FAINT is not: black and opaque are seldom so to the last bit."""
    return np.where(holes < FAINT, 0, holes).astype(np.float32)
