"""Kernels are what they claim to be, and images are convolved with their own."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from genimg.degradations.blur import Blur, convolve, gaussian_kernels, motion_kernels
from genimg.rng import fold

KEYS = fold(3, torch.arange(64))


def noise(*shape: int) -> torch.Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(0)) * 2 - 1


def moments(kernels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean [N, 2] and covariance [N, 2, 2] of kernels as distributions over (x, y)."""
    radius = kernels.shape[-1] // 2
    steps = torch.arange(-radius, radius + 1.0)
    places = torch.stack(torch.meshgrid(steps, steps, indexing="xy"), dim=-1).flatten(0, 1)
    weights = kernels.flatten(1)
    mean = weights @ places
    return mean, torch.einsum("np,pi,pj->nij", weights, places, places)


@pytest.mark.parametrize("of", [("gaussian",), ("motion",), ("gaussian", "motion")])
def test_kernels_are_positive_symmetric_and_of_sum_one(of) -> None:
    kernels = Blur(of=of, ratio=(0.3, 1), sigma=(0.1, 4)).kernels(KEYS)
    assert kernels.min() >= 0
    torch.testing.assert_close(kernels.sum(dim=(1, 2)), torch.ones(64))
    torch.testing.assert_close(kernels, kernels.flip(1, 2), rtol=0, atol=1e-5)


@given(st.floats(0.8, 4), st.floats(0.3, 1), st.floats(0, math.pi))
def test_a_gaussian_has_the_covariance_that_it_is_made_of(longer, ratio, angle) -> None:
    shorter = max(longer * ratio, 0.7)  # narrower than a pixel, samples say less
    given_as = (torch.tensor([value]) for value in (longer, shorter, angle))
    mean, covariance = moments(gaussian_kernels(*given_as, radius=20))
    turn = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
    expected = turn @ np.diag([longer**2, shorter**2]) @ turn.T
    assert mean.abs().max() < 1e-3
    assert np.allclose(covariance[0], expected, atol=0.02 * longer**2)


def test_a_motion_along_the_axes_is_a_line_of_equal_weights() -> None:
    lengths = torch.tensor([1.0, 5.0, 5.0, 4.0])
    angles = torch.tensor([0.3, 0.0, math.pi / 2, 0.0])
    point, across, down, partly = motion_kernels(lengths, angles, radius=4)
    assert point[4, 4] == pytest.approx(1)
    expected = torch.zeros(9, 9)
    expected[4, 2:7] = 0.2
    torch.testing.assert_close(across, expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(down, expected.T, rtol=0, atol=1e-6)
    assert partly[4].tolist() == pytest.approx([0, 0, 0.125, 0.25, 0.25, 0.25, 0.125, 0, 0])


def test_a_slanted_motion_lies_along_its_angle() -> None:
    angles = torch.linspace(0, math.pi, 13)[:-1]
    _, covariance = moments(motion_kernels(torch.full((12,), 15.0), angles, radius=9))
    values, vectors = np.linalg.eigh(covariance.numpy())
    direction = np.arctan2(vectors[:, 1, 1], vectors[:, 0, 1]) % math.pi
    off = np.abs(direction - angles.numpy())
    assert np.minimum(off, math.pi - off).max() < 0.02
    assert values[:, 0].max() < 0.5  # thin
    assert np.sqrt(values[:, 1] * 12) == pytest.approx(15, rel=0.07)  # a line's deviation


@pytest.mark.parametrize("shape", [(3, 30, 41), (1, 9, 50), (3, 8, 8)])
def test_images_are_convolved_with_mirrored_borders(shape) -> None:
    images = noise(5, *shape)
    kernels = torch.rand(5, 15, 15, generator=torch.Generator().manual_seed(1))  # of no symmetry
    made = convolve(images, kernels)
    for image, kernel, result in zip(images.double(), kernels.double(), made, strict=True):
        expected = [ndimage.convolve(plane, kernel.numpy(), mode="mirror") for plane in image]
        np.testing.assert_allclose(result, np.stack(expected), rtol=0, atol=2e-4)


@pytest.mark.parametrize("shape", [(1, 1), (1, 20), (7, 7), (3, 40)])
def test_images_smaller_than_a_kernel_have_their_borders_repeated(shape) -> None:
    images = noise(2, 3, *shape)
    kernels = Blur(sigma=(2.3, 2.3), ratio=(0.5, 0.5)).kernels(KEYS[:2])
    made = convolve(images, kernels)
    for image, kernel, result in zip(images.double(), kernels.double(), made, strict=True):
        expected = [ndimage.convolve(plane, kernel.numpy(), mode="nearest") for plane in image]
        np.testing.assert_allclose(result, np.stack(expected), rtol=0, atol=1e-5)


def test_blur_by_one_sigma_is_that_of_scipy() -> None:
    images = noise(2, 3, 40, 40)
    made = Blur(sigma=1.5).damage(images, KEYS[:2]).images  # a number is both ends of a range
    expected = ndimage.gaussian_filter(
        images.double().numpy(), (0, 0, 1.5, 1.5), mode="mirror", radius=(0, 0, 5, 5)
    )
    np.testing.assert_allclose(made, expected, rtol=0, atol=1e-5)


def test_a_constant_stays_and_both_kinds_occur() -> None:
    blur = Blur(of=("gaussian", "motion"), sigma=(2, 3), length=(9, 15))
    constant = torch.full((64, 1, 20, 20), 0.7)
    torch.testing.assert_close(blur.damage(constant, KEYS).images, constant)
    single = [Blur(of=(kind,), sigma=(2, 3), length=(9, 15)) for kind in ("gaussian", "motion")]
    kernels = blur.kernels(KEYS)
    alike = [
        [
            torch.allclose(kernel, torch.nn.functional.pad(one, [blur.radius - each.radius] * 4))
            for kernel, one in zip(kernels, each.kernels(KEYS), strict=True)
        ]
        for each in single
    ]
    gaussian = np.array(alike[0])
    assert 16 < gaussian.sum() < 48
    assert np.array_equal(gaussian, ~np.array(alike[1]))
