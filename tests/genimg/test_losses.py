"""Losses against torch.distributions, and closed forms."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import norm
from torch.distributions import Normal, kl_divergence

from genimg.losses import (
    critic_wasserstein,
    discretised_gaussian_nll,
    discriminator_hinge,
    discriminator_least_squares,
    discriminator_logistic,
    discriminator_relativistic,
    feature_distance,
    gaussian_kl,
    gaussian_log_ratio,
    gaussian_nll,
    generator_least_squares,
    generator_minimax,
    generator_nonsaturating,
    generator_relativistic,
    generator_wasserstein,
    gradient_penalty,
    orthogonal_penalty,
    zero_centred_penalty,
)

LEVELS = torch.arange(256, dtype=torch.float64) * (2 / 255) - 1


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def test_gan_losses_are_minus_log_of_the_probability_of_being_right():
    real, fake = normal(64, seed=1) * 3, normal(64, seed=2) * 3
    expected = -real.sigmoid().log().mean() - (1 - fake.sigmoid()).log().mean()
    torch.testing.assert_close(discriminator_logistic(real, fake), expected)
    torch.testing.assert_close(generator_nonsaturating(fake), -fake.sigmoid().log().mean())


def test_gan_losses_stay_finite_and_keep_their_gradient_however_sure_the_discriminator_is():
    fake = torch.tensor([-1e4], requires_grad=True)
    generator_nonsaturating(fake).backward()
    assert fake.grad is not None
    assert fake.grad.item() == -1  # does not saturate where the discriminator wins
    assert discriminator_logistic(torch.tensor([1e4]), torch.tensor([-1e4])).item() == 0
    assert discriminator_logistic(torch.tensor([-1e4]), torch.tensor([1e4])).item() == 2e4


def test_least_squares_are_those_of_mao():
    real, fake = torch.tensor([1.0, 3.0]), torch.tensor([0.0, -2.0])
    # half of the mean of (0, 4), and of (0, 4)
    assert discriminator_least_squares(real, fake).item() == 2
    assert discriminator_least_squares(torch.ones(3), torch.zeros(3)).item() == 0
    assert generator_least_squares(fake).item() == 0.5 * (1 + 9) / 2
    assert generator_least_squares(torch.ones(3)).item() == 0


def test_the_minimax_generator_pays_what_the_discriminator_gains_and_saturates():
    real, fake = normal(64, seed=1) * 3, normal(64, seed=2) * 3
    torch.testing.assert_close(generator_minimax(fake), (1 - fake.sigmoid()).log().mean())
    only_real = discriminator_logistic(real, torch.full_like(fake, -1e9))
    torch.testing.assert_close(
        generator_minimax(fake), only_real - discriminator_logistic(real, fake)
    )
    sure = torch.tensor([-20.0], requires_grad=True)
    generator_minimax(sure).backward()
    assert abs(sure.grad.item()) < 1e-8


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.4])
def test_smoothed_labels_are_those_of_real_images_only(smoothing):
    real, fake = normal(64, seed=1) * 3, normal(64, seed=2) * 3
    entropy = F.binary_cross_entropy_with_logits
    expected = entropy(real, torch.full_like(real, 1 - smoothing)) + entropy(fake, 0 * fake)
    torch.testing.assert_close(discriminator_logistic(real, fake, smoothing), expected)
    squares = F.mse_loss(real, torch.full_like(real, 1 - smoothing)) + F.mse_loss(fake, 0 * fake)
    torch.testing.assert_close(discriminator_least_squares(real, fake, smoothing), squares / 2)


def test_a_hinge_costs_what_a_margin_of_1_lacks():
    real, fake = torch.tensor([3.0, 1.0, 0.5, -2.0]), torch.tensor([-3.0, -1.0, 0.0, 4.0])
    assert discriminator_hinge(real, fake).item() == (0.5 + 3) / 4 + (1 + 5) / 4
    assert discriminator_hinge(real[:2], fake[:2]).item() == 0


def test_relativistic_losses_are_of_pairs_and_of_nothing_but_differences():
    real, fake = normal(64, seed=1).double() * 3, normal(64, seed=2).double() * 3
    right = (real - fake).sigmoid()  # that the real one of a pair is the real one
    torch.testing.assert_close(discriminator_relativistic(real, fake), -right.log().mean())
    torch.testing.assert_close(generator_relativistic(real, fake), -(1 - right).log().mean())
    torch.testing.assert_close(
        discriminator_relativistic(real + 7, fake + 7), discriminator_relativistic(real, fake)
    )
    torch.testing.assert_close(
        generator_relativistic(real, fake), discriminator_relativistic(fake, real)
    )


def test_feature_matching_is_of_means_over_all_workers():
    real, fake = (normal(6, 2, 3, seed=seed).double() for seed in (1, 2))
    whole = fake.clone().requires_grad_()
    distance = feature_distance(real, whole, lambda mine: mine.detach())
    distance.backward()
    apart = real.mean(dim=0) - fake.mean(dim=0)
    torch.testing.assert_close(distance.detach(), apart.square().sum(), check_dtype=False)
    torch.testing.assert_close(whole.grad, (-2 * apart / 6).expand(6, 2, 3), rtol=1e-5, atol=1e-7)
    shares = [(slice(0, 2), 1 / 3), (slice(2, 6), 2 / 3)]  # of two workers
    means = [(real[rows] - fake[rows]).mean(dim=0) * part for rows, part in shares]
    agreed = sum(means, torch.zeros(()))
    told = 0.0
    for rows, part in shares:
        mine = fake[rows].clone().requires_grad_()
        loss = feature_distance(real[rows], mine, lambda values: agreed)
        loss.backward()
        torch.testing.assert_close(part * mine.grad, whole.grad[rows])
        told += part * loss.item()
    assert told == pytest.approx(distance.item(), rel=1e-5)


def test_a_critic_is_paid_for_the_distance_of_its_means():
    real, fake = normal(64, seed=1) + 3, normal(64, seed=2)
    assert critic_wasserstein(real, fake).item() == pytest.approx(-3, abs=0.5)
    torch.testing.assert_close(critic_wasserstein(real, fake), fake.mean() - real.mean())
    torch.testing.assert_close(generator_wasserstein(fake), -fake.mean())


@pytest.mark.parametrize("norm", [0.0, 0.5, 1.0, 3.0])
def test_the_gradient_penalty_of_a_linear_critic_is_its_distance_from_norm_1(norm):
    weight = normal(3, 4, 5)
    weight = (weight * (norm / weight.norm())).requires_grad_()
    images = normal(6, 3, 4, 5, seed=1).requires_grad_()
    penalty = gradient_penalty((images * weight).sum(dim=(1, 2, 3)), images)
    assert penalty.item() == pytest.approx((norm - 1) ** 2, abs=1e-5)
    if norm:
        penalty.backward()  # 2 (|w| - 1) w / |w|
        torch.testing.assert_close(weight.grad, 2 * (norm - 1) * weight.detach() / norm)


def test_a_zero_centred_penalty_is_that_of_finite_differences():
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3), torch.nn.Tanh(), torch.nn.Flatten())
    network = torch.nn.Sequential(network, torch.nn.Linear(16, 1)).double()
    images = normal(3, 1, 4, 4).double().requires_grad_()
    step = 1e-5 * torch.eye(16, dtype=torch.float64).reshape(16, 1, 1, 4, 4)
    with torch.no_grad():
        slopes = [(network(images + d) - network(images - d)) / 2e-5 for d in step]
    expected = torch.stack(slopes).square().sum(dim=0).mean()
    penalty = zero_centred_penalty(network(images).flatten(), images)
    torch.testing.assert_close(penalty, expected.float())


def test_r1_of_a_linear_discriminator_is_its_squared_norm():
    weight = normal(3, 4, 5)
    images = normal(6, 3, 4, 5, seed=1).requires_grad_()
    logits = (images * weight).sum(dim=(1, 2, 3)) + 7
    torch.testing.assert_close(zero_centred_penalty(logits, images), weight.square().sum())


def test_r1_of_a_quadratic_discriminator_has_the_known_value_and_second_derivative():
    scale = torch.tensor(0.7, requires_grad=True)
    images = normal(6, 1, 2, 3).requires_grad_()
    penalty = zero_centred_penalty(scale * images.square().sum(dim=(1, 2, 3)), images)
    mean_norm = images.detach().square().sum(dim=(1, 2, 3)).mean()
    torch.testing.assert_close(penalty.detach(), 4 * 0.7**2 * mean_norm)
    penalty.backward()
    torch.testing.assert_close(scale.grad, 8 * 0.7 * mean_norm)  # through the double backward


def test_the_orthogonal_penalty_counts_products_of_filters_and_not_their_lengths():
    orthogonal = torch.linalg.qr(normal(12, 12))[0][:5] * torch.arange(1.0, 6)[:, None]
    assert orthogonal_penalty([orthogonal.reshape(5, 3, 2, 2)]).item() < 1e-8
    weights = normal(4, 3, 2, 2).double(), normal(2, 5, seed=1).double()
    expected = sum(
        2 * (a * b).sum().square()
        for weight in weights
        for i, a in enumerate(weight)
        for b in weight[:i]
    )
    torch.testing.assert_close(orthogonal_penalty(weights), expected)


def test_kl_is_that_of_torch_distributions():
    mean, log_variance = normal(16, 5), normal(16, 5, seed=1)
    posterior = Normal(mean, (0.5 * log_variance).exp())
    expected = kl_divergence(posterior, Normal(0.0, 1.0))
    torch.testing.assert_close(gaussian_kl(mean, log_variance), expected)
    prior_mean, prior_log_variance = normal(16, 5, seed=2), normal(16, 5, seed=3)
    prior = Normal(prior_mean, (0.5 * prior_log_variance).exp())
    both = (mean, log_variance, prior_mean, prior_log_variance)
    torch.testing.assert_close(gaussian_kl(*both), kl_divergence(posterior, prior))
    drawn = normal(16, 5, seed=4)
    ratio = (prior.log_prob(drawn) - posterior.log_prob(drawn)).sum(dim=1)
    torch.testing.assert_close(gaussian_log_ratio(drawn, *both), ratio)
    ratio = (Normal(0.0, 1.0).log_prob(drawn) - posterior.log_prob(drawn)).sum(dim=1)
    torch.testing.assert_close(gaussian_log_ratio(drawn, mean, log_variance), ratio)


def test_kl_is_zero_at_the_prior_only():
    assert gaussian_kl(torch.zeros(1, 4), torch.zeros(1, 4)).abs().max() == 0
    assert (gaussian_kl(normal(50, 4), normal(50, 4, seed=1)) > 0).all()


@pytest.mark.parametrize("log_sigma", [-5.0, -1.0, 0.0, 2.0])
def test_gaussian_nll_is_that_of_torch_distributions(log_sigma):
    images, mean = normal(4, 3, 6, 6), normal(4, 3, 6, 6, seed=1)
    expected = -Normal(mean, math.exp(log_sigma)).log_prob(images).flatten(1).sum(dim=1)
    torch.testing.assert_close(gaussian_nll(images, mean, torch.tensor(log_sigma)), expected)


def test_gaussian_nll_is_least_at_the_root_mean_square_error():
    images, mean = normal(1, 3, 6, 6), normal(1, 3, 6, 6, seed=1)
    best = 0.5 * (images - mean).square().mean().log()
    least = gaussian_nll(images, mean, best)
    for shift in (-0.1, 0.1):
        assert gaussian_nll(images, mean, best + shift) > least


@settings(max_examples=200)
@given(mean=st.floats(-3, 3), log_sigma=st.floats(-9, 4))
def test_discretised_gaussian_gives_the_256_levels_a_probability_of_one_in_all(mean, log_sigma):
    nll = discretised_gaussian_nll(
        LEVELS.reshape(256, 1, 1, 1),
        torch.full((256, 1, 1, 1), mean, dtype=torch.float64),
        torch.tensor(log_sigma, dtype=torch.float64),
    )
    assert nll.dtype == torch.float64
    assert nll.isfinite().all()
    assert (nll >= 0).all()
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-9)


def test_discretised_gaussian_is_the_density_times_the_width_of_a_level_where_sigma_is_wide():
    images, mean = (normal(8, 3, 4, 4) * 0.2).clamp(-0.9, 0.9), normal(8, 3, 4, 4, seed=1) * 0.2
    images = (images * 127.5).round() / 127.5
    wide = torch.tensor(-1.0)
    expected = gaussian_nll(images, mean, wide) - 3 * 4 * 4 * math.log(2 / 255)
    torch.testing.assert_close(
        discretised_gaussian_nll(images, mean, wide), expected.double(), rtol=1e-4, atol=0
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("log_sigma", [-6.0, -2.0, 1.0])
def test_discretised_gaussian_knows_every_level_as_it_comes_from_bytes(dtype, log_sigma):
    """The outermost levels take the tails also where the conversion from bytes has rounded."""
    images = torch.arange(256).to(dtype).mul_(2 / 255).sub_(1).reshape(256, 1, 1, 1)
    nll = discretised_gaussian_nll(images, torch.zeros_like(images), torch.tensor(log_sigma))
    assert (-nll).exp().sum().item() == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("log_sigma", [-6.0, -4.0, -1.0])
def test_discretised_gaussian_is_right_however_far_the_mean_is(log_sigma):
    """At -6 the last level is 1000 standard deviations away: no float64 has its probability."""
    levels = LEVELS[[1, 100, 254, 255]]
    near, far = (
        norm.logsf((levels.numpy() + 1.5 + side / 255) / math.exp(log_sigma)) for side in (-1, 1)
    )
    far[-1] = -np.inf
    expected = -near - np.log1p(-np.exp(far - near))
    for sign in (1, -1):
        images = sign * levels.reshape(4, 1, 1, 1)
        means, scale = torch.full_like(images, -1.5 * sign), torch.tensor(log_sigma)
        nll = discretised_gaussian_nll(images, means, scale)
        np.testing.assert_allclose(nll.numpy(), expected, rtol=1e-9)


@pytest.mark.parametrize("mean", [-50.0, -1.0, 0.0, 1.0, 50.0])
@pytest.mark.parametrize("log_sigma", [-9.0, -3.0, 3.0])
def test_discretised_gaussian_has_finite_values_and_gradients_in_its_tails(mean, log_sigma):
    means = torch.full((256, 1, 1, 1), mean, dtype=torch.float64, requires_grad=True)
    scale = torch.tensor(log_sigma, dtype=torch.float64, requires_grad=True)
    nll = discretised_gaussian_nll(LEVELS.reshape(256, 1, 1, 1), means, scale)
    nll.sum().backward()
    assert nll.isfinite().all()
    assert means.grad.isfinite().all()
    assert scale.grad.isfinite()
