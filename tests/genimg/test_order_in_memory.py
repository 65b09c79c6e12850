"""The order in which images in memory come: permutations that depend on nothing but a seed."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from genimg.data.memory import Images


def numbered(count: int) -> Images:
    return Images({"image": torch.zeros(count, 1, 1, 1, dtype=torch.uint8)})


@given(
    count=st.integers(1, 40), seed=st.integers(0, 2**40), start=st.integers(0, 300),
    batch=st.integers(1, 100),
)  # fmt: skip
def test_order_is_the_same_however_it_is_asked_for(count, seed, start, batch):
    images = numbered(count)
    positions = np.arange(start, start + batch)
    together = images.locate(positions, seed, 6)
    singly = [images.locate(np.array([position]), seed, 6)[0] for position in positions]
    assert together.tolist() == singly
    assert together.dtype == np.int64


@given(count=st.integers(1, 60), seed=st.integers(0, 2**40), epoch=st.integers(0, 1000))
def test_each_epoch_is_a_permutation(count, seed, epoch):
    positions = np.arange(epoch * count, (epoch + 1) * count)
    assert sorted(numbered(count).locate(positions, seed, 6)) == list(range(count))


def test_epochs_and_seeds_differ():
    images = numbered(100)
    orders = {
        tuple(images.locate(np.arange(100) + 100 * epoch, seed, 6))
        for epoch in range(5)
        for seed in range(5)
    }
    assert len(orders) == 25


def test_order_favours_no_image():
    firsts = [numbered(10).locate(np.array([0]), seed, 6)[0] for seed in range(2000)]
    counts = np.bincount(firsts, minlength=10)
    assert ((counts - 200) ** 2 / 200).sum() < 27.9  # chi-squared of 9 degrees, p = 0.001


def test_order_is_pinned():
    """A change here would make resumed runs see other images."""
    assert numbered(8).locate(np.arange(16), 7, 6).tolist() == [
        *(5, 7, 6, 1, 2, 3, 0, 4),
        *(5, 6, 3, 7, 0, 1, 2, 4),
    ]
