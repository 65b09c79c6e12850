"""The networks of GANs behind DCGAN's: shapes, attention, classes, norms, and how they begin."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from genimg.models import mlp, modern, residual
from genimg.models.spectral import SpectralConv2d

every_size = pytest.mark.parametrize(
    ("size", "channels"), [(16, 3), (32, 1), (64, 3), (128, 1), (256, 1)]
)
CLASSES = torch.eye(5)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pair(kind: str, size: int = 16, channels: int = 3, classes: int = 0) -> list[nn.Module]:
    """A generator of 7 latents and its discriminator."""
    if kind == "modern":
        return [
            modern.Generator(7, 8, 1, size, channels, classes),
            modern.Discriminator(8, 1, size, channels, classes),
        ]
    if kind == "mlp":
        return [
            mlp.Generator(7, 8, 2, size, channels, classes),
            mlp.Discriminator(8, 2, size, channels, classes),
        ]
    return [
        residual.Generator(7, 8, size, channels, True, classes),
        residual.Discriminator(8, size, channels, True, kind == "spectral", classes),
    ]


def awake(network: nn.Module) -> nn.Module:
    """One whose weights are not zero where it begins with zeros."""
    for parameter in network.parameters():
        if not parameter.any():
            nn.init.normal_(parameter, std=0.3)
    return network


every_kind = pytest.mark.parametrize("kind", ["mlp", "residual", "spectral", "modern"])


@every_kind
@every_size
def test_they_make_images_of_latents_and_logits_of_images(kind, size, channels):
    generator, discriminator = pair(kind, size, channels)
    images = generator(torch.randn(2, 7))
    assert images.shape == (2, channels, size, size)
    assert images.dtype == torch.float32
    assert discriminator(images).shape == (2,)


@every_kind
def test_each_row_is_computed_alone(kind):
    generator, discriminator = (awake(each).eval() for each in pair(kind, classes=5))
    latents, images = torch.randn(5, 7), torch.randn(5, 3, 16, 16)
    for network, rows in ((generator, latents), (discriminator, images)):
        alone = [network(rows[i : i + 1], CLASSES[i : i + 1]) for i in range(5)]
        torch.testing.assert_close(torch.cat(alone), network(rows, CLASSES), rtol=1e-4, atol=1e-4)


@every_kind
def test_classes_change_what_is_drawn_and_none_is_no_class(kind):
    generator, discriminator = (awake(each).eval() for each in pair(kind, classes=5))
    same = torch.randn(1, 7).expand(5, 7)
    images = generator(same, CLASSES)
    assert len({image.detach().numpy().tobytes() for image in images}) == 5
    torch.testing.assert_close(generator(same), generator(same, torch.zeros(5, 5)))
    logits = discriminator(images[:1].expand(5, -1, -1, -1), CLASSES)
    assert len(set(logits.tolist())) == 5


@every_kind
def test_gradients_reach_every_weight_twice(kind):
    """As penalties need them, attention's included."""
    discriminator = awake(pair(kind, classes=5)[1])
    images = torch.randn(5, 3, 16, 16, requires_grad=True)
    logits = discriminator(images, CLASSES)
    (slope,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
    (slope.square().sum() + logits.sum()).backward()
    for name, parameter in discriminator.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


def test_attention_is_a_mean_of_values_weighed_by_likeness():
    attention = residual.Attention(8, nn.Conv2d)
    features = torch.randn(2, 8, 4, 6)
    attention.requires_grad_(False)
    assert torch.equal(attention(features), features)  # at first
    attention.gamma.data.fill_(0.7)
    made = attention(features)
    query = attention.query(features)
    key, value = (F.max_pool2d(each(features), 2) for each in (attention.key, attention.value))
    for row in range(2):
        for y, x in ((0, 0), (3, 5), (2, 1)):
            weights = torch.tensor([
                (query[row, :, y, x] * key[row, :, a, b]).sum() for a in range(2) for b in range(3)
            ]).softmax(dim=0)  # fmt: skip
            seen = (value[row].flatten(1) * weights).sum(dim=1)
            out = attention.out.weight[:, :, 0, 0] @ seen
            torch.testing.assert_close(made[row, :, y, x], features[row, :, y, x] + 0.7 * out)


@pytest.mark.parametrize(("size", "side"), [(16, 8), (32, 16), (64, 32), (128, 32)])
def test_attention_is_in_one_place_of_each(size, side):
    seen: list[int] = []
    for network in pair("residual", size, 1):
        for module in network.modules():
            if isinstance(module, residual.Attention):
                module.register_forward_hook(lambda m, i, out: seen.append(out.shape[-1]))
        network(torch.randn(2, 7) if hasattr(network, "latent") else torch.randn(2, 1, size, size))
    assert seen == [side, side]


def test_all_weights_of_a_spectral_discriminator_have_the_norm_1():
    discriminator = pair("spectral", classes=5)[1]
    convolutions = [m for m in discriminator.modules() if isinstance(m, nn.Conv2d)]
    assert all(isinstance(each, SpectralConv2d) for each in convolutions)
    assert len(convolutions) == 6 + 1 + 4 + 2  # blocks, a shortcut, attention, logit and classes
    before = [each.u.clone() for each in convolutions]
    discriminator(torch.randn(5, 3, 16, 16), CLASSES)
    for each, u in zip(convolutions, before, strict=True):
        assert each.weight.shape[0] == 1 or not torch.equal(each.u, u)  # it is kept up with
        for _ in range(300):
            each.norm()
        largest = torch.linalg.svdvals(each.weight.detach().flatten(1))[0]
        assert each.norm().item() == pytest.approx(largest.item(), rel=1e-3)


def test_the_projection_adds_how_far_features_lie_along_a_class():
    discriminator = residual.Discriminator(8, 16, 3, False, False, 5)
    images = torch.randn(5, 3, 16, 16)
    features = discriminator.body(images).sum(dim=(2, 3))
    extra = (features @ discriminator.directions.weight[:, :, 0, 0]).diagonal()
    plain = discriminator.to_logit(features[:, :, None, None]).flatten()
    torch.testing.assert_close(discriminator(images, CLASSES), plain + extra)


def test_normalisation_by_class_scales_and_shifts_what_is_normalised():
    layer = residual.ClassNorm(4, 5)
    features = torch.randn(5, 4, 3, 3) * 2 + 1
    made = layer(features, CLASSES)
    inner = F.batch_norm(features, None, None, training=True)
    scale, shift = layer.modulation.weight.T.chunk(2, dim=1)
    expected = inner * (1 + scale[..., None, None]) + shift[..., None, None]
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


def test_modern_blocks_begin_as_the_identity_and_stay_of_one_scale():
    block = modern.Block(16, 8)
    features = torch.randn(4, 16, 8, 8)
    assert torch.equal(block(features), features)
    deep = modern.Discriminator(16, 2, 32, 3)
    first = [m.body[0].weight for m in deep.modules() if isinstance(m, modern.Block)]
    assert len(first) == 8
    std = torch.stack(first).std().item()
    assert std == pytest.approx((2 / 1.04 / 16) ** 0.5 * 8**-0.25, rel=0.05)
    images = modern.Generator(64, 32, 1, 32, 3)(torch.randn(64, 64))
    assert 0.2 < images.std() < 2


def test_modern_halving_is_the_mean_of_four_pixels_and_doubling_keeps_the_mean():
    features = torch.randn(2, 3, 8, 8)
    torch.testing.assert_close(modern.Resample(0.5)(features), F.avg_pool2d(features, 2))
    twice = modern.Resample(2.0)(features)
    assert twice.shape == (2, 3, 16, 16)
    a, b = features[0, 0, 3, 3:5]
    c, d = features[0, 0, 4, 3:5]
    expected = (9 * a + 3 * b + 3 * c + d) / 16
    torch.testing.assert_close(twice[0, 0, 7, 7], expected)
