"""Masks as files: indexed PNG in Pascal's colours, whose numbers are kept; others are refused."""

import io

import numpy as np
import pytest
from PIL import Image

from genimg import images, masks
from genimg.images import BrokenImage


@pytest.mark.parametrize("mode", ["P", "L", "1"])
def test_masks_keep_their_numbers(mode):
    numbers = np.arange(12, dtype=np.uint8).reshape(3, 4) % (2 if mode == "1" else 12)
    image = Image.fromarray(numbers * 255 if mode == "1" else numbers)
    if mode == "P":
        image.putpalette([*range(255, 255 - 36, -1)])
    out = io.BytesIO()
    (image.convert("1") if mode == "1" else image).save(out, "PNG")
    np.testing.assert_array_equal(masks.decode(out.getvalue())[..., 0], numbers)


def test_written_masks_are_indexed_png_in_pascals_colours():
    numbers = np.array([[0, 1], [15, 255]], np.uint8)[..., None]
    data = masks.encode(numbers)
    np.testing.assert_array_equal(masks.decode(data), numbers)
    image = Image.open(io.BytesIO(data))
    assert (image.format, image.mode) == ("PNG", "P")
    colours = np.asarray(image.convert("RGB"))
    assert colours[0, 1].tolist() == [128, 0, 0]  # aeroplane
    assert colours[1, 0].tolist() == [192, 128, 128]  # person
    assert colours[1, 1].tolist() == [224, 224, 192]  # void


def test_masks_in_colour_or_lossy_are_refused():
    with pytest.raises(BrokenImage, match="PNG of mode RGB is no mask"):
        masks.decode(images.encode(np.zeros((4, 4, 3), np.uint8)))
    with pytest.raises(BrokenImage, match="JPEG of mode L is no mask"):
        masks.decode(images.encode(np.zeros((4, 4, 1), np.uint8), "jpeg"))
    whole = masks.encode(np.zeros((64, 64, 1), np.uint8))
    with pytest.raises(BrokenImage, match="damaged or truncated"):
        masks.decode(whole[:-30])
