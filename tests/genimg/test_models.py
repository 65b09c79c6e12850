"""Networks: shapes at every size, ranges, and each image's independence of its batch."""

from functools import partial

import pytest
import torch
from torch import nn

from genimg.models.classifier import Plain
from genimg.models.conv_vae import ConvVAE
from genimg.models.dcgan import Discriminator, Generator
from genimg.models.denoising import DnCNN, FFDNet
from genimg.models.ladder import LadderVAE, resolutions
from genimg.models.mlp import MlpVAE
from genimg.models.restoring import RestoringNetwork, constant_maps

SIZES = (16, 32, 64, 128)
gray_and_colour = pytest.mark.parametrize("channels", [1, 3])


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def alone_and_in_a_batch(function, inputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.cat([function(row[None]) for row in inputs]), function(inputs)


def spatial_sizes(network: nn.Module, inputs: torch.Tensor, kind: type[nn.Module]) -> list[int]:
    """Side lengths that come out of the convolutions of one kind, in order."""
    sides: list[int] = []
    for module in network.modules():
        if isinstance(module, kind):
            module.register_forward_hook(lambda m, i, out: sides.append(out.shape[-1]))
    network(inputs)
    return sides


@gray_and_colour
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("normalise", [True, False])
def test_dcgan_halves_down_to_four_pixels_and_doubles_up_from_them(size, channels, normalise):
    generator = Generator(7, 4, size, channels, normalise)
    latents = torch.randn(2, 7)
    doubled = [4 * 2**i for i in range(size.bit_length() - 2)]
    assert spatial_sizes(generator, latents, nn.ConvTranspose2d) == doubled
    images = generator(latents)
    assert images.shape == (2, channels, size, size)
    assert images.abs().max() <= 1

    discriminator = Discriminator(4, size, channels)
    assert spatial_sizes(discriminator, images, nn.Conv2d) == [*doubled[-2::-1], 1]
    assert discriminator(images).shape == (2,)


def test_dcgan_of_some_depth_convolves_on_at_each_resolution():
    generator = Generator(7, 4, 32, 3, depth=2)
    latents = torch.randn(2, 7)
    assert spatial_sizes(generator, latents, nn.Conv2d) == [4, 4, 8, 8, 16, 16]
    assert generator(latents).shape == (2, 3, 32, 32)
    discriminator = Discriminator(4, 32, 3, depth=1)
    images = torch.randn(2, 3, 32, 32)
    assert spatial_sizes(discriminator, images, nn.Conv2d) == [16, 16, 8, 8, 4, 4, 1]


def test_dcgan_that_doubles_bilinearly_leaves_no_checkerboard():
    """Of a network that has learnt nothing: how much of what it draws changes from pixel to pixel.

    The finest waves, along both axes, beside all others but the mean.
    """
    finest = {}
    for upsampling in ("transposed", "bilinear"):
        torch.manual_seed(0)
        images = Generator(16, 8, 32, 3, upsampling=upsampling)(torch.randn(64, 16))
        assert images.shape == (64, 3, 32, 32)
        power = torch.fft.fft2(images[..., 4:-4, 4:-4]).abs().square().mean(dim=(0, 1))
        finest[upsampling] = (power[12, 12] / (power.sum() - power[0, 0])).item() * 24**2
    assert finest["bilinear"] < 0.1 < 1 < finest["transposed"]


def test_dcgan_widths_double_at_each_halving():
    widths = [
        m.out_channels
        for m in Generator(7, 4, 64, 3).modules()
        if isinstance(m, nn.ConvTranspose2d)
    ]
    assert widths == [32, 16, 8, 4, 3]


def test_dcgan_starts_with_the_weights_of_its_paper():
    generator = Generator(128, 32, 32, 3)
    weight = generator.body[0].weight
    assert weight.std().item() == pytest.approx(0.02, rel=0.02)
    assert weight.mean().abs().item() < 1e-3
    scales = torch.cat([m.weight for m in generator.modules() if isinstance(m, nn.BatchNorm2d)])
    assert scales.mean().item() == pytest.approx(1, abs=0.01)
    assert scales.std().item() == pytest.approx(0.02, rel=0.3)


def test_dcgan_without_normalisation_and_its_discriminator_look_at_each_image_alone():
    for function, inputs in (
        (Generator(7, 4, 16, 3, normalise=False, depth=1), torch.randn(5, 7)),
        (Generator(7, 4, 16, 3, depth=1).eval(), torch.randn(5, 7)),
        (Generator(7, 4, 16, 3, upsampling="bilinear").eval(), torch.randn(5, 7)),
        (Discriminator(4, 16, 3, depth=1), torch.randn(5, 3, 16, 16)),
    ):
        torch.testing.assert_close(*alone_and_in_a_batch(function, inputs))


@gray_and_colour
@pytest.mark.parametrize("size", [8, 12, 16, 20, 28, 32, 36, 44, 64, 100, 128])
@pytest.mark.parametrize("made", [partial(ConvVAE, 5, 8), partial(MlpVAE, 5, 8, 2)])
def test_vaes_take_every_size_that_a_recipe_may_have(made, size, channels):
    network = made(size, channels, 7)
    images = torch.rand(2, channels, size, size) * 2 - 1
    mean, log_variance = network.encode(images)
    assert mean.shape == log_variance.shape == (2, 5)
    decoded = network.decode(mean)
    assert decoded.shape == (2, 7, size, size)


def test_conv_vae_clamps_its_posterior_so_that_no_precision_overflows():
    network = ConvVAE(5, 8, 16, 3, 3)
    with torch.no_grad():
        network.to_posterior.weight.mul_(1e6)
    _, log_variance = network.encode(torch.randn(64, 3, 16, 16))
    assert log_variance.min() == -20
    assert log_variance.max() == 10
    assert log_variance.exp().to(torch.bfloat16).isfinite().all()


@pytest.mark.parametrize("made", [partial(ConvVAE, 5, 8), partial(MlpVAE, 5, 8, 2)])
def test_vaes_look_at_each_image_alone(made):
    network = made(16, 3, 3)
    images = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(*alone_and_in_a_batch(lambda x: network.encode(x)[0], images))
    torch.testing.assert_close(*alone_and_in_a_batch(network.decode, torch.randn(5, 5)))


@gray_and_colour
@pytest.mark.parametrize("size", [8, 12, 20, 28, 32])
def test_a_ladder_takes_every_size_and_its_latents_go_there_and_back(size, channels):
    network = LadderVAE(2, 8, 2, size, channels, 7, classes=3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    images, classes = torch.rand(2, channels, size, size) * 2 - 1, torch.eye(3)[:2]
    seen = network.encode(images)
    made, levels = network.draw(seen, torch.zeros(2, network.latent), classes)
    assert made.shape == (2, 7, size, size)
    assert sum(level[0][0].numel() for level in levels) == network.latent
    assert len(levels) == 2 * len(resolutions(size)) == 2 * len(seen)
    latents = network.latents(seen, classes)
    torch.testing.assert_close(network.decode(latents, classes), made, rtol=1e-3, atol=1e-3)


def test_a_ladder_looks_at_each_image_alone_and_draws_of_its_prior():
    network = LadderVAE(2, 16, 1, 16, 3, 3)
    for parameter in network.parameters():
        nn.init.normal_(parameter, std=0.2)
    images = torch.randn(5, 3, 16, 16)
    torch.testing.assert_close(
        *alone_and_in_a_batch(lambda x: network.latents(network.encode(x)), images),
        rtol=1e-3, atol=1e-3,
    )  # fmt: skip
    torch.testing.assert_close(
        *alone_and_in_a_batch(network.decode, torch.randn(5, network.latent)), rtol=1e-3, atol=1e-3
    )
    # what is drawn above decides the prior below
    _, one = network.draw(network.encode(images), torch.randn(5, network.latent))
    _, other = network.draw(network.encode(images), torch.zeros(5, network.latent))
    assert torch.equal(one[0][3], other[0][3])
    assert not torch.equal(one[1][3], other[1][3])


def denoised(network: RestoringNetwork, noisy: torch.Tensor, sigma: list[float]) -> torch.Tensor:
    """What a network makes of images [N, C, H, W] with noise of sigma [N], if it is told that."""
    levels = torch.tensor(sigma)[:, None][:, : network.maps] / 255
    return network(noisy, constant_maps(levels, noisy))


def busy_ffdnet(channels: int = 3) -> FFDNet:
    """One whose last layer is not zero, so that it does something."""
    network = FFDNet(8, 4, channels)
    nn.init.normal_(network.body[-1].weight, std=0.1)
    return network


@gray_and_colour
@pytest.mark.parametrize(
    ("height", "width"), [(1, 1), (1, 2), (2, 3), (5, 8), (16, 16), (17, 31), (128, 64)]
)
def test_ffdnet_starts_as_the_identity_at_any_size(height, width, channels):
    noisy = torch.randn(2, channels, height, width)
    assert torch.equal(denoised(FFDNet(8, 4, channels), noisy, [0, 50]), noisy)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 8), (8, 5), (7, 7)])
def test_ffdnet_takes_an_odd_image_for_an_even_one_that_is_mirrored(height, width):
    network, noisy, sigma = busy_ffdnet(), torch.randn(2, 3, height, width), [5, 9]
    even = (
        torch.cat([noisy, noisy[..., max(height - 2, 0), None, :]], dim=2) if height % 2 else noisy
    )
    even = torch.cat([even, even[..., max(width - 2, 0), None]], dim=3) if width % 2 else even
    restored = denoised(network, noisy, sigma)
    assert restored.shape == noisy.shape
    assert not torch.equal(restored, noisy)
    torch.testing.assert_close(restored, denoised(network, even, sigma)[..., :height, :width])


def test_ffdnet_looks_at_each_image_and_its_noise_level_alone():
    network, noisy, sigma = busy_ffdnet(), torch.randn(4, 3, 9, 9), [0, 10, 20, 50]
    alone = torch.cat([denoised(network, noisy[i, None], sigma[i : i + 1]) for i in range(4)])
    torch.testing.assert_close(alone, denoised(network, noisy, sigma))
    same_image = denoised(network, noisy[:1].expand(4, -1, -1, -1), sigma)
    assert not torch.allclose(same_image[0], same_image[3])  # it does listen to sigma


def test_ffdnet_sees_no_further_than_it_says():
    network = busy_ffdnet(1)
    noisy = torch.randn(1, 1, 64, 64).requires_grad_()
    denoised(network, noisy, [25])[0, 0, 32, 32].backward()
    rows, columns = noisy.grad[0, 0].nonzero().unbind(1)
    half = network.receptive_field // 2
    for seen in (rows, columns):
        assert seen.min() >= 32 - half
        assert seen.max() <= 32 + half
        assert seen.max() - seen.min() + 1 >= network.receptive_field - 2 * 2  # and not much less


@gray_and_colour
@pytest.mark.parametrize("size", [8, *SIZES])
def test_classifier_gives_logits_of_non_negative_features(size, channels):
    network = Plain(8, 6, channels, 4)
    images = torch.randn(3, channels, size, size)
    features = network.features(images)
    assert features.shape == (3, 6)
    assert features.min() >= 0
    assert features.max() > 0
    logits = network(images)
    assert logits.shape == (3, 4)
    torch.testing.assert_close(logits, network.to_logits(features))


def test_classifier_looks_at_each_image_alone():
    network = Plain(8, 6, 3, 4)
    torch.testing.assert_close(*alone_and_in_a_batch(network, torch.randn(5, 3, 16, 16)))


def test_dncnn_is_the_network_of_its_paper():
    network = DnCNN(width=64, depth=17, channels=1)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 17
    assert sum(isinstance(m, nn.BatchNorm2d) for m in network.modules()) == 15
    assert network.receptive_field == 35  # "(2d + 1) x (2d + 1)", section III.A
    weights = sum(m.weight.numel() for m in convolutions)
    assert weights == 9 * 64 + 15 * 9 * 64 * 64 + 9 * 64


def test_dncnn_reaches_as_far_as_it_says_and_takes_away_what_it_finds():
    network = DnCNN(width=8, depth=4, channels=1).eval()
    image = torch.zeros(1, 1, 33, 33, requires_grad=True)
    denoised(network, image, [0])[0, 0, 16, 16].backward()
    rows = image.grad[0, 0].abs().sum(0).nonzero()[:, 0]
    assert rows.min() == 16 - 4
    assert rows.max() == 16 + 4
    assert network.receptive_field == 9
    noise = torch.randn(2, 1, 20, 20)
    torch.testing.assert_close(denoised(network, noise, [0, 0]), noise - network.body(noise))
