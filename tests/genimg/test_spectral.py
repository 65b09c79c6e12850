"""Spectral normalisation against singular values."""

import pytest
import torch
from torch import nn

from genimg.models.spectral import SpectralConv2d


def test_a_kernel_has_the_spectral_norm_1_as_a_matrix():
    torch.manual_seed(0)
    layer = SpectralConv2d(6, 10, 3, padding=1)
    images = torch.randn(2, 6, 8, 8)
    for _ in range(50):
        layer(images)
    matrix = layer.weight.detach().flatten(1)
    expected = torch.linalg.matrix_norm(matrix.double(), 2)
    assert layer.norm().item() == pytest.approx(expected.item(), rel=1e-4)
    scaled = nn.functional.conv2d(images, layer.weight / expected.float(), layer.bias, padding=1)
    torch.testing.assert_close(layer(images), scaled, rtol=1e-3, atol=1e-4)
    layer.eval()
    before = layer.u.clone()
    layer(images)
    assert torch.equal(layer.u, before)


def test_the_gradient_goes_through_the_spectral_norm():
    torch.manual_seed(0)
    layer = (
        SpectralConv2d(2, 3, 3, padding=1).double().eval()
    )  # an iteration would move its singular vector
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(200):
            layer.train().norm()
    layer.eval()  # an iteration would move its singular vector

    def made(weight: torch.Tensor) -> torch.Tensor:
        sigma = torch.linalg.matrix_norm(weight.flatten(1), 2)
        return nn.functional.conv2d(images, weight / sigma, layer.bias, padding=1)

    weight = layer.weight.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(made(weight).square().sum(), weight)
    (got,) = torch.autograd.grad(layer(images).square().sum(), layer.weight)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)
