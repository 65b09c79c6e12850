"""KID against sums over pairs, and where its value is known."""

import math

import numpy as np
import pytest
import torch
from working_together import together

from genimg.errors import InputError
from genimg.metrics.kernel import kernel_distance, squared_mmd


def features(count: int, seed: int, shift: float = 0.0) -> torch.Tensor:
    return torch.randn(count, 5, generator=torch.Generator().manual_seed(seed)) + shift


def straightforward(x: np.ndarray, y: np.ndarray) -> float:
    """Eq. 4, Binkowski et al. 2018, pair by pair."""

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return (sum(p * q for p, q in zip(a, b, strict=True)) / len(a) + 1) ** 3

    m, n = len(x), len(y)
    of_x = sum(kernel(x[i], x[j]) for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    of_y = sum(kernel(y[i], y[j]) for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    return of_x + of_y - 2 * sum(kernel(a, b) for a in x for b in y) / (m * n)


def test_it_is_the_sum_over_pairs():
    x, y = features(20, 0), features(13, 1, 0.5)
    expected = straightforward(x.double().numpy(), y.double().numpy())
    assert squared_mmd(x, y).item() == pytest.approx(expected, rel=1e-9)
    # fewer images than a subset has: all of the smaller set, and as many of the other
    mean, spread = kernel_distance(x[:13], y, subsets=3)
    assert mean == pytest.approx(straightforward(x[:13].double().numpy(), y.double().numpy()))
    assert math.isnan(spread)  # there is one subset: that of everything
    mean, spread = kernel_distance(x, y, subsets=3)
    assert mean == pytest.approx(straightforward(x.double().numpy(), y.double().numpy()), abs=0.5)
    assert spread > 0


def test_it_is_unbiased():
    """Of points at +-a its expectation is that of the kernel: the mean over many subsets."""
    x = torch.tensor([[1.0], [-1.0]]).repeat(500, 1)
    y = torch.tensor([[2.0], [-2.0]]).repeat(500, 1)
    # E (xy + 1)^3 = 1 + 3 E x^2 E y^2 for symmetric points: within 4 and 49, between 13
    mean, spread = kernel_distance(x, y, subsets=400, size=100)
    assert mean == pytest.approx(4 + 49 - 2 * 13, abs=4 * spread / 20)
    same, spread = kernel_distance(features(4000, 0), features(4000, 1), subsets=200, size=200)
    assert same == pytest.approx(0, abs=6 * spread / 200**0.5)
    assert kernel_distance(features(900, 0), features(900, 1, 0.3))[0] > 0.05


def test_the_seed_decides_the_subsets():
    x, y = features(300, 0), features(300, 1)
    one, again, other = (kernel_distance(x, y, seed, 5, 50) for seed in (0, 0, 1))
    assert one == again != other


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_workers_measures_the_same_to_the_bit(world):
    x, y = features(300, 0), features(200, 1, 0.1)
    alone = kernel_distance(x, y, subsets=7, size=60)
    found = together(world, lambda sync: kernel_distance(x, y, subsets=7, size=60, sync=sync))
    assert found == [alone] * world


def test_two_images_are_needed():
    with pytest.raises(InputError, match="1 real and 9 generated images have no kernel distance"):
        kernel_distance(features(1, 0), features(9, 1))
