"""Noise has the level it claims, is white, unclipped, and belongs to its image's key."""

import pytest
import torch
from scipy import stats

from genimg.degradations.noise import Noise, draw_sigma, gaussian_noise, shot_noise
from genimg.rng import fold

KEYS = fold(0, torch.arange(2000))


def test_sigma_is_uniform_in_its_range() -> None:
    sigma = draw_sigma(KEYS, 5, 50)
    assert sigma.dtype == torch.float32
    assert sigma.min() >= 5
    assert sigma.max() <= 50
    assert stats.kstest(sigma.numpy(), stats.uniform(5, 45).cdf).pvalue > 1e-3


def test_one_level_is_that_level_exactly() -> None:
    assert draw_sigma(KEYS, 25, 25).eq(25).all()


@pytest.mark.parametrize("sigma", [1.0, 25.0, 75.0])
def test_noise_is_normal_with_the_deviation_of_its_image(sigma: float) -> None:
    images = torch.full((4, 3, 40, 40), 0.9)
    noise = gaussian_noise(images, KEYS[:4], torch.full((4,), sigma)) - images
    in_bytes = noise.flatten(1).numpy() * 255 / 2
    for values in in_bytes:
        assert stats.kstest(values, stats.norm(0, sigma).cdf).pvalue > 1e-3


def test_every_image_has_its_own_level() -> None:
    sigma = torch.tensor([0.0, 10.0, 50.0])
    images = torch.zeros(3, 1, 64, 64)
    noisy = gaussian_noise(images, KEYS[:3], sigma)
    assert torch.equal(noisy[0], images[0])
    assert (noisy.flatten(1).std(dim=1) * 255 / 2).tolist() == pytest.approx([0, 10, 50], rel=0.05)


def test_noise_is_neither_clipped_nor_rounded() -> None:
    white = torch.ones(1, 1, 32, 32)
    noisy = gaussian_noise(white, KEYS[:1], torch.tensor([25.0]))
    assert noisy.max() > 1.1
    assert (noisy > 1).float().mean() == pytest.approx(0.5, abs=0.1)
    assert len(noisy.unique()) > 1000


def test_noise_is_white() -> None:
    noise = gaussian_noise(torch.zeros(8, 1, 64, 64), KEYS[:8], torch.full((8,), 50.0))
    for a, b in [
        (noise[..., :-1], noise[..., 1:]),
        (noise[..., :-1, :], noise[..., 1:, :]),
        (noise[:4], noise[4:]),
    ]:
        assert abs(stats.pearsonr(a.flatten().numpy(), b.flatten().numpy()).statistic) < 0.03


def test_level_and_noise_are_independent() -> None:
    sigma = draw_sigma(KEYS, 0, 50)
    first_pixel = gaussian_noise(torch.zeros(2000, 1, 2, 2), KEYS, torch.ones(2000))[:, 0, 0, 0]
    assert stats.pearsonr(sigma.numpy(), first_pixel.numpy()).pvalue > 1e-3
    assert stats.pearsonr(sigma.numpy(), first_pixel.abs().numpy()).pvalue > 1e-3


def test_an_image_is_degraded_alike_in_every_batch() -> None:
    images = torch.rand(6, 3, 9, 7, generator=torch.Generator().manual_seed(0))
    sigma = draw_sigma(KEYS[:6], 0, 75)
    noisy = gaussian_noise(images, KEYS[:6], sigma)
    order = torch.tensor([4, 1, 3])
    again = gaussian_noise(images[order], KEYS[order], draw_sigma(KEYS[order], 0, 75))
    assert torch.equal(again, noisy[order])


GRAYS = torch.rand(4, 3, 40, 40, generator=torch.Generator().manual_seed(1)) * 2 - 1


def test_a_section_adds_the_noise_that_it_tells_of() -> None:
    damaged = Noise(low=5, high=50).damage(GRAYS, KEYS[:4])
    sigma = damaged.tells["sigma"]
    assert torch.equal(sigma, draw_sigma(KEYS[:4], 5, 50))
    assert torch.equal(damaged.images, gaussian_noise(GRAYS, KEYS[:4], sigma))


def test_clipped_noise_is_in_range_and_quantised_noise_is_bytes() -> None:
    free = Noise(low=25, high=25).damage(GRAYS, KEYS[:4]).images
    clipped = Noise(low=25, high=25, clip=True).damage(GRAYS, KEYS[:4]).images
    quantised = Noise(low=25, high=25, quantise=True).damage(GRAYS, KEYS[:4]).images
    assert free.abs().max() > 1
    assert torch.equal(clipped, free.clamp(-1, 1))
    levels = (quantised + 1) * 127.5
    torch.testing.assert_close(levels, levels.round(), rtol=0, atol=1e-4)
    torch.testing.assert_close(quantised, clipped, rtol=0, atol=0.5 / 127.5 + 1e-6)


@pytest.mark.parametrize(("value", "share"), [(-1.0, 0.0), (0.0, 0.5), (1.0, 1.0)])
def test_shot_noise_has_a_variance_that_grows_with_brightness(value: float, share: float) -> None:
    images = torch.full((4, 1, 96, 96), value)
    sigma, shot = torch.full((4,), 3.0), torch.tensor([0.0, 5.0, 20.0, 60.0])
    noise = (shot_noise(images, KEYS[:4], sigma, shot) - images) * 127.5
    expected = (9 + share * shot.square()).sqrt().tolist()
    assert noise.flatten(1).std(dim=1).tolist() == pytest.approx(expected, rel=0.04)


def test_no_photons_counted_is_gaussian_noise() -> None:
    sigma = draw_sigma(KEYS[:4], 0, 75)
    torch.testing.assert_close(
        shot_noise(GRAYS, KEYS[:4], sigma, torch.zeros(4)), gaussian_noise(GRAYS, KEYS[:4], sigma)
    )
