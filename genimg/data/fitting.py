"""How a decoded image of any shape becomes a square of the size that networks see."""

from typing import Literal

import numpy as np
from PIL import Image

from genimg.errors import InputError

Fit = Literal["resize", "pad", "crop"]


def fitted(image: np.ndarray, size: int, fit: Fit) -> np.ndarray:
    """uint8 [H, W, C] as networks see it; whole where random crops are to be taken from it."""
    match fit:
        case "resize":
            return resized(image, size)
        case "pad":
            return padded(image, size)
        case "crop":
            return image


def too_small(image: np.ndarray, size: int, name: str) -> InputError:
    """What to tell of an image that has no room for a crop of `size`."""
    height, width = image.shape[:2]
    return InputError(
        f"data.size={size}: {name} is only {width}x{height}; take a"
        " smaller size, or data.fit=resize"
    )


def resized(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size, C] of [H, W, C]: the short side brought to `size`, the centre kept."""
    height, width = image.shape[:2]
    scale = size / min(height, width)
    image = _lanczos(image, max(size, round(height * scale)), max(size, round(width * scale)))
    top, left = (image.shape[0] - size) // 2, (image.shape[1] - size) // 2
    return image[top : top + size, left : left + size]


def padded(image: np.ndarray, size: int) -> np.ndarray:
    """uint8 [size, size, C] of [H, W, C]: centred on black, a longer side reduced to `size`."""
    height, width, channels = image.shape
    scale = min(1.0, size / max(height, width))
    image = _lanczos(image, max(1, round(height * scale)), max(1, round(width * scale)))
    top, left = (size - image.shape[0]) // 2, (size - image.shape[1]) // 2
    square = np.zeros((size, size, channels), np.uint8)
    square[top : top + image.shape[0], left : left + image.shape[1]] = image
    return square


def _lanczos(image: np.ndarray, height: int, width: int) -> np.ndarray:
    if image.shape[:2] == (height, width):
        return image
    flat = image[..., 0] if image.shape[2] == 1 else image
    scaled = Image.fromarray(flat).resize((width, height), Image.Resampling.LANCZOS)
    return np.asarray(scaled).reshape(height, width, image.shape[2])
