"""FID, inception score and the other classifier-based scores against closed forms and scipy."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy.linalg import sqrtm
from scipy.spatial.distance import pdist

from genimg.errors import InputError
from genimg.metrics import distributions
from genimg.metrics.distributions import (
    FeatureStatistics,
    class_shares,
    confident_share,
    diversity,
    frechet_distance,
    inception_score,
)


def gaussian(mean: list[float], covariance: torch.Tensor) -> FeatureStatistics:
    return FeatureStatistics(
        101, torch.tensor(mean, dtype=torch.float64), covariance.double() * 100
    )


def features(count: int, dimensions: int, seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    mixing = torch.randn(dimensions, dimensions, generator=generator)
    return torch.randn(count, dimensions, generator=generator) @ mixing + 5


@given(st.lists(st.integers(1, 40), min_size=1, max_size=6), st.floats(-1e4, 1e4))
def test_statistics_in_parts_are_those_of_the_whole(parts: list[int], offset: float) -> None:
    whole = features(sum(parts) + 1, 5, seed=1).double() + offset
    statistics = FeatureStatistics.of(whole[:1])
    for part in whole[1:].split(parts):
        statistics.update(part)
    assert statistics.count == len(whole)
    np.testing.assert_allclose(statistics.mean, whole.numpy().mean(0), rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(
        statistics.covariance, np.cov(whole.numpy(), rowvar=False), rtol=1e-7, atol=1e-7
    )


def test_statistics_of_one_batch_are_the_same_piece_by_piece(monkeypatch) -> None:
    expected = FeatureStatistics.of(features(90, 6, seed=2))
    monkeypatch.setattr(distributions, "AT_ONCE", 7)
    found = FeatureStatistics.of(features(90, 6, seed=2))
    assert found.count == 90
    torch.testing.assert_close(found.mean, expected.mean)
    torch.testing.assert_close(found.covariance, expected.covariance)


def test_merging_workers_is_seeing_everything() -> None:
    whole = features(90, 6, seed=2)
    a, b = FeatureStatistics.of(whole[:20]), FeatureStatistics.of(whole[20:])
    a.merge(b)
    expected = FeatureStatistics.of(whole)
    torch.testing.assert_close(a.mean, expected.mean)
    torch.testing.assert_close(a.covariance, expected.covariance)


def test_frechet_distance_of_diagonal_gaussians() -> None:
    a = gaussian([0, 0, 1], torch.diag(torch.tensor([1.0, 4.0, 9.0])))
    b = gaussian([3, 0, 1], torch.diag(torch.tensor([4.0, 4.0, 1.0])))
    # |m1 - m2|^2 + the sum of (s1 - s2)^2
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 0 + 4)


@pytest.mark.parametrize("seed", range(3))
def test_frechet_distance_is_that_of_a_general_matrix_square_root(seed: int) -> None:
    a = FeatureStatistics.of(features(200, 24, seed))
    b = FeatureStatistics.of(features(150, 24, seed + 10))
    root = sqrtm(a.covariance.numpy() @ b.covariance.numpy())
    expected = float(
        (a.mean - b.mean).square().sum() + (a.covariance + b.covariance).trace()
    ) - 2 * np.trace(root.real)
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-8)
    assert frechet_distance(b, a) == pytest.approx(expected, rel=1e-8)


def test_frechet_distance_survives_fewer_images_than_dimensions() -> None:
    few = features(10, 40, seed=3)
    a, shifted = FeatureStatistics.of(few), FeatureStatistics.of(few + 0.5)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-9 * float(a.covariance.trace()))
    assert frechet_distance(a, shifted) == pytest.approx(40 * 0.25, rel=1e-6)


def test_frechet_distance_of_orthogonal_rank_one_gaussians() -> None:
    a = gaussian([0, 0], torch.tensor([[4.0, 0.0], [0.0, 0.0]]))
    b = gaussian([0, 0], torch.tensor([[0.0, 0.0], [0.0, 9.0]]))
    assert frechet_distance(a, b) == pytest.approx(13)
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-12)


def test_frechet_distance_of_constants_is_that_of_the_means() -> None:
    a, b = FeatureStatistics.of(torch.zeros(5, 3)), FeatureStatistics.of(torch.ones(5, 3))
    assert frechet_distance(a, b) == pytest.approx(3)


def test_one_image_has_no_covariance() -> None:
    one = FeatureStatistics.of(torch.zeros(1, 3))
    with pytest.raises(InputError, match="give 2 or more"):
        frechet_distance(one, one)


def test_inception_score_at_its_two_ends() -> None:
    certain = torch.eye(5).repeat(20, 1)
    assert inception_score(certain, splits=10) == pytest.approx((5, 0))
    assert inception_score(torch.full((100, 5), 0.2)) == pytest.approx((1, 0))
    one_class = torch.eye(5)[:1].repeat(50, 1)
    assert inception_score(one_class) == pytest.approx((1, 0))


def test_inception_score_is_the_mean_over_consecutive_splits() -> None:
    probabilities = torch.softmax(features(104, 7, seed=4), dim=1)
    scores = []
    for part in np.split(probabilities.double().numpy(), 4):
        divergence = part * (np.log(part) - np.log(part.mean(0, keepdims=True)))
        scores.append(math.exp(divergence.sum(1).mean()))
    assert 1.1 < min(scores) < max(scores) < 7
    assert inception_score(probabilities, splits=4) == pytest.approx(
        (np.mean(scores), np.std(scores))
    )


def test_inception_score_needs_an_image_a_split() -> None:
    with pytest.raises(InputError, match="9 images cannot be scored in 10 splits"):
        inception_score(torch.full((9, 2), 0.5), splits=10)


def test_inception_score_of_few_images_is_not_held_down_by_its_splits() -> None:
    """Of ten, one of each class and certain, ten parts of one image would score 1."""
    assert inception_score(torch.eye(10)) == pytest.approx((10, 0))
    probabilities = torch.rand(1050, 4, generator=torch.Generator().manual_seed(1)).softmax(1)
    assert inception_score(probabilities[:250]) == inception_score(probabilities[:250], splits=2)
    assert inception_score(probabilities) == inception_score(probabilities, splits=10)


@pytest.mark.parametrize("at_once", [12, 5])
def test_diversity_is_the_mean_pairwise_distance(monkeypatch, at_once: int) -> None:
    monkeypatch.setattr(distributions, "VALUES_AT_ONCE", at_once)
    items = features(1100, 12, seed=5)  # more than one block
    assert diversity(items) == pytest.approx(pdist(items.numpy()).mean() / math.sqrt(12), rel=1e-6)


def test_diversity_of_a_collapsed_generator_is_zero() -> None:
    image = torch.randint(0, 256, (1, 3, 8, 8), dtype=torch.uint8)
    assert diversity(image.repeat(20, 1, 1, 1)) == pytest.approx(0, abs=1e-6)


def test_diversity_of_two_flat_images_is_their_difference() -> None:
    images = torch.stack([torch.full((3, 4, 4), -1.0), torch.full((3, 4, 4), 0.5)])
    assert diversity(images) == pytest.approx(1.5)
    with pytest.raises(InputError):
        diversity(images[:1])


def test_class_shares_and_confidence() -> None:
    probabilities = torch.tensor([[0.95, 0.05, 0], [0.5, 0.3, 0.2], [0.1, 0.9, 0], [1, 0, 0]])
    assert class_shares(probabilities).tolist() == [0.75, 0.25, 0]
    assert confident_share(probabilities, 0.92) == 0.5
    assert confident_share(probabilities, 0.5) == 1
