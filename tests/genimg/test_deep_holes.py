"""What is guessed of the inside of wide holes, and what a network makes of it."""

import numpy as np
import pytest

from genimg import bundled
from genimg.deep_holes import CELL, REACH, deep_in
from genimg.engine import Engine
from genimg.operations.restoring import Inpaint

NEAR = CELL * (REACH - 1)  # pixels: nothing so near to what is known is deep


def hole(height: int, width: int, side: int) -> np.ndarray:
    mask = np.zeros((height, width), np.float32)
    top, left = (height - side) // 2, (width - side) // 2
    mask[top : top + side, left : left + side] = 1
    return mask


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_of_a_plain_image_its_colour_is_guessed(dtype):
    colour = (np.iinfo(dtype).max * np.array([0.9, 0.2, 0.5])).astype(dtype)
    image = np.zeros((190, 203, 3), dtype) + colour
    mask = hole(190, 203, 120)
    image[mask > 0] = 0  # what is there is not looked at
    deep = deep_in(image, mask)
    assert deep is not None
    assert deep.places.any()
    error = np.abs(deep.guess[deep.places].astype(float) - colour).max()
    assert error <= 1 + np.iinfo(dtype).max * 1e-3
    assert not deep.places[mask == 0].any()


def test_it_lies_between_what_is_known_on_either_side():
    image = np.zeros((128, 400, 1), np.uint8)
    image[:, 200:] = 200
    mask = np.zeros((128, 400), np.float32)
    mask[:, 100:300] = 1
    deep = deep_in(image, mask)
    assert deep is not None
    row = deep.guess[64, :, 0][deep.places[64]].astype(int)
    assert row[0] < 40
    assert row[-1] > 160
    assert (np.diff(row) >= -1).all()


@pytest.mark.parametrize("side", [1, 16, 2 * NEAR])
def test_in_narrow_holes_nothing_is_deep(side):
    assert deep_in(np.zeros((96, 96, 3), np.uint8), hole(96, 96, side)) is None


def test_where_nothing_is_known_nothing_is_guessed():
    assert deep_in(np.zeros((96, 96, 3), np.uint8), np.ones((96, 96), np.float32)) is None


@pytest.mark.parametrize("tile", [0, 128])
def test_a_wide_hole_is_filled_with_the_colour_around_it(tile):
    """Of a white wall with a hole that is wider than the network sees."""
    engine = Engine.load(bundled.FOLDER / "models/inpaint/versions/00001", precision="float32")
    wall = np.full((224, 224, 3), 235, np.uint8)
    mask = (255 * hole(224, 224, 160)).astype(np.uint8)[..., None]
    made = engine(Inpaint(tile=tile), image=wall, mask=mask).images[0].astype(float)
    assert np.abs(made - 235).max() < 8
