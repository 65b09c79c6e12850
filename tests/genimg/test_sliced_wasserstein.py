"""Sliced Wasserstein distance against scipy and against what the eye would say."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import wasserstein_distance

from genimg.errors import InputError
from genimg.metrics.sliced_wasserstein import (
    _depth,
    _laplacian,
    _up,
    sliced_distance,
    sliced_wasserstein,
    sliced_wasserstein_levels,
)

DEPTHS = [(8, 1), (28, 1), (31, 2), (32, 2), (64, 3), (33, 2)]


def shapes(count: int = 24, size: int = 32, seed: int = 0) -> torch.Tensor:
    """Discs of random places, sizes and colours: uint8 [N, 3, size, size]."""
    generator = torch.Generator().manual_seed(seed)
    place, radius = (
        torch.rand(count, 2, generator=generator),
        torch.rand(count, generator=generator),
    )
    colour = torch.rand(count, 3, 1, 1, generator=generator)
    y, x = torch.meshgrid(torch.linspace(0, 1, size), torch.linspace(0, 1, size), indexing="ij")
    distance = torch.hypot(y - place[:, :1, None], x - place[:, 1:, None])
    inside = (distance < 0.1 + 0.3 * radius[:, None, None])[:, None]
    return (torch.where(inside, colour, 1 - colour) * 255).byte()


def noisy(images: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(images.shape, generator=torch.Generator().manual_seed(1))
    return (images + sigma * noise).clamp(0, 255).byte()


def blurred(images: torch.Tensor, rounds: int) -> torch.Tensor:
    out = images.float()
    for _ in range(rounds):
        out = F.avg_pool2d(F.pad(out, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    return out.byte()


@pytest.mark.parametrize("seed", range(3))
def test_in_one_dimension_it_is_the_wasserstein_distance(seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(500, 1, generator=generator)
    b = torch.rand(500, 1, generator=generator) * 3 + 1
    expected = wasserstein_distance(a[:, 0].numpy(), b[:, 0].numpy())
    assert sliced_distance(a, b) == pytest.approx(expected, rel=1e-5)


def test_a_shift_costs_its_mean_projection() -> None:
    points = torch.randn(1000, 3, generator=torch.Generator().manual_seed(0))
    shift = torch.tensor([2.0, 0.0, 0.0])
    # the mean of |cos| over the sphere in three dimensions is a half
    assert sliced_distance(points, points + shift) == pytest.approx(1, rel=0.1)


def test_the_same_set_is_at_distance_zero() -> None:
    assert sliced_wasserstein(shapes(), shapes(), patches=2048) == 0


def test_another_sample_of_the_same_kind_is_nearer_than_another_kind() -> None:
    real, other = shapes(seed=0), shapes(seed=1)
    floor = sliced_wasserstein(real, other, patches=8192)
    assert 0 < floor < sliced_wasserstein(real, noisy(other, 20), patches=8192) / 2


def test_it_grows_with_noise_and_with_blur() -> None:
    real = shapes()
    by_noise = [sliced_wasserstein(real, noisy(real, sigma), 0, 2048) for sigma in (0, 5, 20, 60)]
    assert by_noise == sorted(set(by_noise))
    by_blur = [sliced_wasserstein(real, blurred(real, rounds), 0, 2048) for rounds in (0, 1, 2, 4)]
    assert by_blur == sorted(set(by_blur))


def test_fine_noise_shows_most_in_the_finest_level() -> None:
    levels = sliced_wasserstein_levels(shapes(size=64), noisy(shapes(size=64), 20), patches=8192)
    assert list(levels) == [64, 32, 16]
    assert levels[64] > levels[32] > levels[16] > 0


def test_the_value_is_the_average_over_levels_and_follows_the_seed() -> None:
    real, fake = shapes(seed=0), shapes(seed=1)
    levels = sliced_wasserstein_levels(real, fake, seed=3, patches=768)
    value = sliced_wasserstein(real, fake, seed=3, patches=768)
    assert value == sum(levels.values()) / len(levels)
    assert value != sliced_wasserstein(real, fake, seed=4, patches=768)


HERE = "genimg.metrics.sliced_wasserstein"


def test_memory_bound_batches_do_not_change_the_value(monkeypatch: pytest.MonkeyPatch) -> None:
    real, fake = shapes(seed=0), shapes(seed=1)
    whole = sliced_wasserstein(real, fake, patches=512)
    for values in (1, 7 * 3 * 32 * 32, 3 * 512):
        monkeypatch.setattr(f"{HERE}.VALUES_AT_ONCE", {"cpu": values})
        assert sliced_wasserstein(real, fake, patches=512) == pytest.approx(whole, rel=1e-5)


def test_sets_of_different_numbers_are_compared_by_as_many_patches() -> None:
    real = shapes(200, seed=0)
    few, many = (sliced_wasserstein(real, shapes(n, seed=1), patches=4096) for n in (50, 200))
    assert 0 < many < few < sliced_wasserstein(real, noisy(shapes(50, seed=1), 20), patches=4096)


@pytest.mark.parametrize(("side", "depth"), DEPTHS)
def test_levels_stop_at_sixteen_pixels(side: int, depth: int) -> None:
    assert _depth(side) == depth


@pytest.mark.parametrize("size", [(32, 32), (37, 50)])
def test_the_pyramid_adds_up_to_the_image(size: tuple[int, int]) -> None:
    image = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0)) * 255
    fine, middle, coarse = (_laplacian(image, level, level == 2) for level in range(3))
    rebuilt = fine + _up(middle + _up(coarse, middle.shape[-2:]), fine.shape[-2:])
    torch.testing.assert_close(rebuilt, image, rtol=0, atol=1e-3)


def test_a_collapsed_black_generator_scores_badly_but_finitely() -> None:
    real = shapes()
    collapsed = sliced_wasserstein(real, torch.zeros_like(real), patches=8192)
    assert 100 < collapsed < float("inf")


def test_sets_that_do_not_match_are_refused() -> None:
    with pytest.raises(InputError, match="of one size"):
        sliced_wasserstein(shapes(4, size=32), shapes(4, size=16))
    with pytest.raises(InputError, match="no images to compare"):
        sliced_wasserstein(shapes(4), shapes(0))
    with pytest.raises(InputError, match="enlarge"):
        sliced_wasserstein(shapes(4, size=6), shapes(4, size=6))
