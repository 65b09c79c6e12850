"""Masks and boxes shown on the images that they are of."""

import numpy as np
from PIL import Image, ImageDraw

from genimg.contracts import UNKNOWN
from genimg.masks import palette

OPACITY = 0.6  # of a class's colour over the image


def overlay(image: np.ndarray, mask: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: an image uint8 [H, W, 1 or 3] with each class of its mask in its colour.

    mask: integers [H, W]; class 0 and what is unknown show the image.
    """
    colours = palette()[mask].astype(np.float32)
    plain = np.broadcast_to(image, (*image.shape[:2], 3)).astype(np.float32)
    mixed = plain + OPACITY * (colours - plain)
    shown = np.where(((mask > 0) & (mask != UNKNOWN))[..., None], mixed, plain)
    return shown.round().astype(np.uint8)


def outline(image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """uint8 [H, W, 3]: an image uint8 [H, W, 1 or 3] with boxes in the colours of their classes.

    boxes: [K, 5] of class, x0, y0, x1, y1; those of class -1 are none.
    """
    picture = Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy())
    draw, colours = ImageDraw.Draw(picture), palette()
    width = max(1, round(min(image.shape[:2]) / 200))
    for kind, *corners in boxes.tolist():
        if kind >= 0:
            x0, y0, x1, y1 = (round(corner) for corner in corners)
            colour = tuple(colours[1 + int(kind) % 254].tolist())
            box = (x0, y0, max(x0, x1 - 1), max(y0, y1 - 1))
            draw.rectangle(box, outline=colour, width=width)
    return np.asarray(picture)
