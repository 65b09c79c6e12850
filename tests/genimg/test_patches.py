"""The discriminator of patches: its spectral norms, and what a logit sees."""

import pytest
import torch
from torch import nn

from genimg.models.patches import PatchDiscriminator, SpectralConv2d


def test_a_discriminators_convolutions_have_the_spectral_norm_1():
    torch.manual_seed(0)
    layer = SpectralConv2d(6, 10, 3)
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
    layer = SpectralConv2d(2, 3, 3).double().eval()  # an iteration would move its singular vector
    images = torch.randn(1, 2, 4, 4, dtype=torch.float64)
    with torch.no_grad():
        for _ in range(200):
            layer.train().norm()
    layer.eval()

    def made(weight: torch.Tensor) -> torch.Tensor:
        sigma = torch.linalg.matrix_norm(weight.flatten(1), 2)
        return nn.functional.conv2d(images, weight / sigma, layer.bias, padding=1)

    weight = layer.weight.detach().clone().requires_grad_()
    (expected,) = torch.autograd.grad(made(weight).square().sum(), weight)
    (got,) = torch.autograd.grad(layer(images).square().sum(), layer.weight)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("side", [(12, 12), (16, 40), (33, 47)])
def test_a_discriminator_takes_images_of_any_size(side):
    logits = PatchDiscriminator(3)(torch.zeros(2, 3, *side))
    assert logits.shape == (2, 1, side[0] // 8, side[1] // 8)


def test_a_logit_depends_on_a_patch_of_40_pixels():
    torch.manual_seed(0)
    network = PatchDiscriminator(1).eval()
    images = torch.randn(1, 1, 96, 96, requires_grad=True)
    network(images)[0, 0, 6, 6].backward()
    rows = images.grad[0, 0].abs().sum(dim=1).nonzero()
    assert rows.max() - rows.min() + 1 == 40
