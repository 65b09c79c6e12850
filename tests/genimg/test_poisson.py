"""Poisson blending against a direct solution of its equations, and what follows from them."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse
from scipy.sparse.linalg import spsolve

from genimg.composition.poisson import Waves, cloned, eroded, outflow, steps


def image(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).random(shape, np.float32))


def directly(target: np.ndarray, source: np.ndarray, region: np.ndarray, mixed: bool) -> np.ndarray:
    """Eq. 7 of Pérez et al., a row an unknown pixel, of [H, W]; eq. 12 where mixed."""
    number = {place: n for n, place in enumerate(zip(*region.nonzero(), strict=True))}
    matrix, right = sparse.lil_matrix((len(number),) * 2), np.zeros(len(number))
    for (y, x), n in number.items():
        for near in ((y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)):
            if not (0 <= near[0] < region.shape[0] and 0 <= near[1] < region.shape[1]):
                continue
            over, under = source[y, x] - source[near], target[y, x] - target[near]
            right[n] += under if mixed and abs(under) > abs(over) + 1e-4 else over
            matrix[n, n] += 1
            if near in number:
                matrix[n, number[near]] = -1
            else:
                right[n] += target[near]
    made = target.copy()
    made[region] = spsolve(matrix.tocsr(), right)
    return made


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1), st.integers(2, 14), st.integers(2, 14), st.booleans(), st.booleans()
)
def test_it_is_the_direct_solution_in_regions_of_any_shape(seed, height, width, mixed, whole_edge):
    target, source = image(seed, 1, height, width), image(seed + 1, 1, height, width)
    region = np.random.default_rng(seed).random((height, width)) < 0.7
    if whole_edge:
        region[0] = True
        region[-1, -1] = False
    if not region.any() or region.all():
        return
    made = cloned(target, source, torch.from_numpy(region), mixed)
    expected = directly(target[0].double().numpy(), source[0].double().numpy(), region, mixed)
    np.testing.assert_allclose(made[0].numpy(), expected, atol=2e-5)
    assert torch.equal(made[0][~torch.from_numpy(region)], target[0][~torch.from_numpy(region)])


def test_only_gradients_count_and_ones_own_change_nothing():
    target, source = image(0, 3, 40, 50), image(1, 3, 40, 50)
    region = torch.zeros(40, 50, dtype=torch.bool)
    region[5:30, 10:50] = True  # it meets a border
    made = cloned(target, source, region)
    torch.testing.assert_close(cloned(target, source + 0.5, region), made, atol=1e-5, rtol=0)
    torch.testing.assert_close(cloned(target, target + 0.2, region), target, atol=1e-5, rtol=0)
    flat = cloned(torch.full((3, 40, 50), 0.3), torch.full((3, 40, 50), 0.9), region)
    torch.testing.assert_close(flat, torch.full((3, 40, 50), 0.3))
    assert torch.equal(cloned(target, source, torch.ones(40, 50, dtype=torch.bool)), source)
    assert torch.equal(cloned(target, source, torch.zeros(40, 50, dtype=torch.bool)), target)


@pytest.mark.parametrize("middle", [160, 260])
def test_a_large_region_is_solved_to_the_last_bit_of_bytes(middle):
    """A disc of 300 pixels, whole and cut off by a border: nothing that one could see is left."""
    y, x = torch.meshgrid(torch.arange(320), torch.arange(320), indexing="ij")
    region = (x - 160) ** 2 + (y - middle) ** 2 < 150**2
    target, source = image(0, 1, 320, 320), image(1, 1, 320, 320).cumsum(dim=2) / 10
    made = cloned(target, source, region)
    left = outflow(*steps(made.double() - source)) * region
    assert left.abs().max() < 1e-4
    smooth = cloned(x[None] / 320.0, torch.zeros(1, 320, 320), region)  # harmonic: a plane stays
    torch.testing.assert_close(smooth, x[None] / 320.0, atol=1e-5, rtol=0)


@pytest.mark.parametrize("free", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("length", [1, 2, 7, 12])
def test_waves_of_a_line_are_solutions_of_their_own(length, free):
    matrix = 2 * np.eye(length) - np.eye(length, k=1) - np.eye(length, k=-1)
    matrix[0, 0] -= free[0]
    matrix[-1, -1] -= free[1]
    waves = Waves(length, *free)
    vectors = waves.to(torch.eye(length, dtype=torch.float64)).numpy()
    np.testing.assert_allclose(vectors @ matrix, waves.rates.numpy()[:, None] * vectors, atol=1e-12)
    values = image(3, 5, length).double()
    torch.testing.assert_close(waves.to(waves.of(values)), values)


@pytest.mark.parametrize("seed", range(3))
def test_eroded_regions_keep_what_is_wholly_surrounded(seed):
    region = image(seed, 9, 11) < 0.8
    kept = eroded(region)
    for y in range(9):
        for x in range(11):
            beside = [(y, x), (y - 1, x), (y + 1, x), (y, x - 1), (y, x + 1)]
            inside = [region[a, b].item() for a, b in beside if 0 <= a < 9 and 0 <= b < 11]
            assert kept[y, x].item() == all(inside)
