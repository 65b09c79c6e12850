"""The library's range: bytes survive it, anything else is clamped and rounded; grids of images."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from image_files import ramp

from genimg.pixels import grid, to_bytes_range, to_tensor


def test_bytes_survive_the_librarys_range():
    every = np.arange(256, dtype=np.uint8).reshape(16, 16, 1)
    tensor = to_tensor(every)
    assert tensor.shape == (1, 16, 16)
    assert tensor.dtype == torch.float32
    assert (tensor.min(), tensor.max()) == (-1, 1)
    np.testing.assert_array_equal(to_bytes_range(tensor).numpy(), every.transpose(2, 0, 1))


def test_to_tensor_of_a_batch_is_that_of_its_images():
    batch = np.stack([ramp(), 255 - ramp()])
    singly = torch.stack([to_tensor(image) for image in batch])
    assert torch.equal(to_tensor(batch), singly)


def test_bytes_are_clamped():
    assert to_bytes_range(torch.tensor([-7.0, -1.0, 1.0, 7.0])).tolist() == [0, 0, 255, 255]


def test_bytes_are_rounded_half_to_even():
    middles = (np.arange(0.5, 255) / 127.5 - 1).astype(np.float32)
    scaled = (middles + 1) * np.float32(127.5)
    assert (scaled % 2 == 0.5).any()  # some are exact halves that rounding up would get wrong
    rounded = to_bytes_range(torch.from_numpy(middles)).numpy()
    np.testing.assert_array_equal(rounded, np.rint(scaled))


@given(st.integers(1, 7), st.integers(1, 4), st.integers(0, 3), st.sampled_from([1, 3]))
def test_grid_shows_each_image_in_its_place(count, columns, pad, channels):
    height, width = 3, 5
    batch = torch.rand(count, channels, height, width) * 2 - 1
    picture = grid(batch, columns, pad)
    rows = -(-count // columns)
    assert picture.shape == (
        pad + rows * (height + pad), pad + columns * (width + pad), channels
    )  # fmt: skip
    expected = np.zeros_like(picture)
    for i, image in enumerate(to_bytes_range(batch).permute(0, 2, 3, 1).numpy()):
        top = pad + i // columns * (height + pad)
        left = pad + i % columns * (width + pad)
        expected[top : top + height, left : left + width] = image
    np.testing.assert_array_equal(picture, expected)
    np.testing.assert_array_equal(grid(to_bytes_range(batch), columns, pad), expected)
