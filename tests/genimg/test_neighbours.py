"""Precision and recall, density and coverage, authenticity: against brute force in NumPy."""

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist
from working_together import together

from genimg.errors import InputError
from genimg.metrics import neighbours as module
from genimg.metrics.neighbours import authenticity, manifolds, neighbours


def features(count: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> torch.Tensor:
    drawn = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    return drawn * scale + shift


def straightforward(real: np.ndarray, fake: np.ndarray) -> list[float]:
    """Precision, recall, density and coverage, image by image."""

    def radii(points: np.ndarray, k: int) -> np.ndarray:
        return np.array([sorted(row)[k] for row in cdist(points, points)])  # 0: itself

    narrow, wide, own = radii(real, 3), radii(real, 5), radii(fake, 3)
    between = cdist(real, fake)
    precision = np.mean([any(column <= narrow) for column in between.T])
    recall = np.mean([any(row <= own) for row in between])
    density = np.mean([sum(column <= wide) for column in between.T]) / 5
    coverage = np.mean([min(row) <= radius for row, radius in zip(between, wide, strict=True)])
    return [precision, recall, density, coverage]


@pytest.mark.parametrize(("shift", "scale"), [(0, 1), (100, 1), (0.7, 0.6), (0, 2)])
def test_manifolds_are_those_of_brute_force_whatever_the_blocks(monkeypatch, shift, scale):
    real, fake = features(150, 0, 100.0), features(110, 1, 100 + shift, scale)
    expected = straightforward(real.double().numpy(), fake.double().numpy())
    assert list(manifolds(real, fake)) == pytest.approx(expected)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", {"cpu": 700})
    assert list(manifolds(real, fake)) == pytest.approx(expected)


def test_one_distribution_covers_itself_and_distant_ones_do_not():
    same = manifolds(features(600, 0), features(600, 1))
    assert same.density == pytest.approx(1, abs=0.1)  # its expectation
    assert same.coverage == pytest.approx(1 - 1 / 2**5, abs=0.03)  # lemma 2, Naeem et al. 2020
    assert min(same.precision, same.recall) > 0.8
    assert manifolds(features(50, 0), features(50, 1, 1000.0)) == (0, 0, 0, 0)


def test_one_image_repeated_is_precise_and_covers_nothing():
    real = features(60, 0)
    repeated = manifolds(real, real[:1].expand(40, -1))
    assert repeated.precision == 1
    assert repeated.recall <= 1 / 60
    assert repeated.coverage < 0.3


def test_six_images_are_needed():
    assert manifolds(features(6, 0), features(6, 1)).density >= 0
    with pytest.raises(InputError, match="5 real and 9 generated images have no 5 neighbours"):
        manifolds(features(5, 0), features(9, 1))


def test_neighbours_are_those_of_brute_force(monkeypatch):
    queries, points = features(40, 0, 50.0), features(70, 1, 50.0)
    distances = cdist(queries.double().numpy(), points.double().numpy())
    for k in (1, 4):
        found, places = neighbours(queries, points, k)
        np.testing.assert_array_equal(places, distances.argsort(axis=1)[:, :k])
        np.testing.assert_allclose(found, np.sort(distances, axis=1)[:, :k], rtol=1e-4)
    monkeypatch.setattr(module, "VALUES_AT_ONCE", {"cpu": 70})
    found, places = neighbours(points, points, 1, selves=torch.arange(70))
    own = cdist(points.double().numpy(), points.double().numpy())
    np.fill_diagonal(own, np.inf)
    np.testing.assert_array_equal(places[:, 0], own.argmin(axis=1))
    np.testing.assert_allclose(found[:, 0], own.min(axis=1), rtol=1e-4)


def test_authenticity_is_that_of_brute_force():
    fake, training = features(80, 0, 0.2, 0.7).double(), features(130, 1).double()
    between, own = cdist(fake, training), cdist(training, training)
    np.fill_diagonal(own, np.inf)
    nearest = between.argmin(axis=1)
    expected = between.min(axis=1) / own.min(axis=1)[nearest]
    found = authenticity(fake.float(), training.float())
    np.testing.assert_array_equal(found.nearest, nearest)
    np.testing.assert_allclose(found.ratios, expected, rtol=1e-3)
    assert found.share == np.mean(expected > 1)


def test_copies_are_not_authentic_and_half_of_what_is_unseen_is():
    training = features(1500, 0, 20.0)
    copies = training[::3] + 1e-4 * features(500, 1)
    assert authenticity(copies, training).share == 0
    assert authenticity(features(1500, 2, 20.0), training).share == pytest.approx(0.5, abs=0.06)
    assert authenticity(features(100, 2, 90.0), training).share == 1
    # only a copy is as near to an image that was trained on twice
    twice = torch.cat([training, training])
    assert authenticity(features(50, 3, 20.0), twice).share == 1


@pytest.mark.parametrize("world", [2, 3])
def test_any_number_of_workers_measures_the_same_to_the_bit(monkeypatch, world):
    monkeypatch.setattr(module, "VALUES_AT_ONCE", {"cpu": 1000})
    real, fake = features(120, 0), features(90, 1, 0.5)
    alone = manifolds(real, fake)
    assert together(world, lambda sync: manifolds(real, fake, sync)) == [alone] * world
    expected = authenticity(fake, real)
    for found in together(world, lambda sync: authenticity(fake, real, sync)):
        assert all(torch.equal(*pair) for pair in zip(found, expected, strict=True))
