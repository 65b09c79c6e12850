"""genimg.rng against SplitMix64 in Python integers, and as a source of random numbers."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from genimg.rng import fold, integers, normal, seed_from, uniform

MASK = 2**64 - 1
GOLDEN = 0x9E3779B97F4A7C15


def mix13(x: int) -> int:
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & MASK
    return x ^ (x >> 31)


def splitmix64(state: int, count: int) -> list[int]:
    return [mix13((state + step * GOLDEN) & MASK) for step in range(1, count + 1)]


def test_the_reference_is_splitmix64_itself() -> None:
    # first outputs of Vigna's splitmix64.c from state 1234567
    assert splitmix64(1234567, 3) == [
        6457827717110365317,
        3203168211198807973,
        9817491932198370423,
    ]


@pytest.mark.parametrize("key", [0, 1, 42, -1, 2**63 - 1, -(2**63)])
def test_words_of_a_key_are_splitmix64_from_its_mixed_state(key: int) -> None:
    words = splitmix64(mix13(key & MASK), 5)
    keys = torch.tensor([key])
    assert uniform(keys, (5,))[0].tolist() == [(word >> 40) / 2**24 for word in words]
    assert integers(keys, 1000, (5,))[0].tolist() == [(word >> 32) * 1000 >> 32 for word in words]


@pytest.mark.parametrize(("key", "item"), [(0, 0), (7, 3), (-5, 2**62), (123, -1)])
def test_fold_is_two_rounds_of_mixing(key: int, item: int) -> None:
    expected = mix13((mix13(key & MASK) + GOLDEN * (item + 1)) & MASK)
    assert int(fold(key, item)) & MASK == expected


def test_seed_from_is_a_fixed_non_negative_number() -> None:
    seeds = [seed_from(seed, 5) for seed in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**63 for seed in seeds)
    assert seed_from(3) == 3


whole = st.integers(-(2**63), 2**63 - 1)


@given(key=whole, items=st.lists(whole, min_size=1, max_size=3))
def test_numbers_and_tensors_of_them_are_folded_alike(key: int, items: list[int]) -> None:
    expected = fold(torch.tensor([key]), *(torch.tensor([item]) for item in items))
    assert torch.equal(fold(torch.tensor([key]), *items), expected)
    assert torch.equal(fold(key, *items)[None], expected)
    assert torch.equal(fold(key, *items[:-1], torch.tensor(items[-1:])), expected)
    assert seed_from(key, *items) == int(expected) & (2**63 - 1)


@pytest.mark.parametrize("seed", range(3))
def test_uniform_is_uniform_along_and_across_keys(seed: int) -> None:
    along = uniform(torch.tensor([seed]), (20_000,))[0]
    across = uniform(fold(seed, torch.arange(20_000)))
    raw_neighbours = uniform(torch.arange(20_000) + seed)
    for sample in (along, across, raw_neighbours):
        assert stats.kstest(sample.numpy(), "uniform").pvalue > 1e-3
        assert sample.min() >= 0
        assert sample.max() < 1


@pytest.mark.parametrize("seed", range(3))
def test_normal_is_normal_and_its_halves_are_independent(seed: int) -> None:
    sample = normal(fold(seed, torch.arange(200)), (200,))
    assert stats.kstest(sample.flatten().numpy(), "norm").pvalue > 1e-3
    # the two numbers of one Box-Muller pair share a radius
    first, second = sample[:, :100].flatten().numpy(), sample[:, 100:].flatten().numpy()
    assert stats.pearsonr(first, second).pvalue > 1e-3
    assert stats.pearsonr(first**2, second**2).pvalue > 1e-3


def test_normal_of_an_odd_count_has_the_asked_shape() -> None:
    assert normal(torch.arange(4), (3, 5)).shape == (4, 3, 5)
    assert normal(torch.arange(4), (1,)).isfinite().all()


def test_integers_cover_their_range_evenly() -> None:
    draws = integers(fold(0, torch.arange(3000)), 7, (10,))
    counts = torch.bincount(draws.flatten(), minlength=7)
    assert len(counts) == 7
    assert stats.chisquare(counts.numpy()).pvalue > 1e-3


def test_integers_take_a_bound_for_each_column() -> None:
    high = torch.tensor([1, 3, 2**31 - 1])
    draws = integers(torch.arange(5000), high, (3,))
    assert (draws >= 0).all()
    assert (draws < high).all()
    assert draws[:, 0].eq(0).all()
    assert draws[:, 1].unique().tolist() == [0, 1, 2]
    assert draws[:, 2].max() > 0.99 * 2**31


@pytest.mark.parametrize("draw", [uniform, normal])
def test_a_key_draws_the_same_whatever_its_batch(draw) -> None:
    keys = fold(9, torch.arange(12))
    together = draw(keys, (3, 4))
    shuffled = torch.from_numpy(np.random.default_rng(0).permutation(12))
    assert torch.equal(draw(keys[shuffled], (3, 4)), together[shuffled])
    assert torch.equal(draw(keys[5:6], (3, 4)), together[5:6])


def test_fold_separates_seeds_positions_and_their_order() -> None:
    positions = torch.arange(10_000)
    keys = torch.cat([fold(seed, epoch, positions) for seed in (0, 1) for epoch in (0, 1)])
    assert len(keys.unique()) == 40_000
    assert int(fold(1, 2)) != int(fold(2, 1))
    assert int(fold(fold(1, 2), 3)) == int(fold(1, 2, 3))


def test_streams_of_folded_keys_are_uncorrelated() -> None:
    keys = torch.arange(20_000)
    first, second, parent = uniform(fold(keys, 1)), uniform(fold(keys, 2)), uniform(keys)
    for a, b in [(first, second), (first, parent), (second, parent)]:
        assert stats.pearsonr(a.numpy(), b.numpy()).pvalue > 1e-3
