"""What recipes measure, against the same computed with other means."""

import math

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio
from tiny_recipes import tiny
from torch import nn
from torch.distributions import Normal, kl_divergence

from genimg import rng
from genimg.data.opening import open_dataset
from genimg.data.scenes import Scenes
from genimg.inference import Inference, real_images, to_floats
from genimg.models.conv_vae import ConvVAE

CPU = torch.device("cpu")
CLASSES = len(Scenes.classes)


def test_conv_vae_bounds_the_density_of_pixels_and_the_probability_of_bytes():
    recipe = tiny("conv-vae", "evaluation.images=5")
    data = open_dataset(recipe.data, "test")
    torch.manual_seed(0)
    network = recipe.networks()["autoencoder"].eval()
    assert isinstance(network, ConvVAE)
    network.get_buffer("log_sigma").fill_(-0.7)
    measured = recipe.evaluate(Inference({"autoencoder": network}), data)

    chosen = data.choose(5)
    images = to_floats(real_images(data, chosen), CPU).double()
    with torch.no_grad():
        mean, log_variance = network.encode(images.float())
        posterior = Normal(mean, (0.5 * log_variance).exp())
        latents = mean + posterior.stddev * rng.normal(rng.fold(0, torch.arange(5)), (8,))
        pixels = Normal(network.decode(latents).double(), math.exp(-0.7))
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    density = pixels.log_prob(images).flatten(1).sum(1)
    upper = torch.where(images > 0.999, 1.0, pixels.cdf(images + 1 / 255))
    lower = torch.where(images < -0.999, 0.0, pixels.cdf(images - 1 / 255))
    bits = (kl - (upper - lower).log().flatten(1).sum(1)) / math.log(2) / images[0].numel()
    assert measured["kl"] == pytest.approx(kl.mean().item(), rel=1e-5)
    assert measured["elbo"] == pytest.approx((density - kl).mean().item(), rel=1e-5)
    assert measured["bits_per_dimension"] == pytest.approx(bits.mean().item(), rel=1e-5)


def test_ffdnet_measures_unclipped_noise_and_rounded_output_image_by_image():
    recipe = tiny("ffdnet", "data.size=64", "evaluation.sigmas=[0, 25]")
    data = open_dataset(recipe.data, "test")
    identity = recipe.networks()  # what the untrained network is
    measured = recipe.evaluate(Inference(identity), data)

    scores = []
    for index in data.choose(recipe.evaluation.images).tolist():
        clean = data.whole(index)
        noise = rng.normal(rng.fold(recipe.evaluation.seed, torch.tensor([index])), clean.shape)
        noisy = (clean.double() + 25 * noise[0].double()).clamp(0, 255).round().numpy()
        scores.append(peak_signal_noise_ratio(clean.numpy(), noisy.astype(np.uint8)))
    assert measured["psnr_25"] == pytest.approx(float(np.mean(scores)), abs=0.15)
    assert 20.1 < measured["psnr_25"] < 21.5  # 20.17 where nothing is clipped
    assert measured["psnr"] == (measured["psnr_0"] + measured["psnr_25"]) / 2
    assert measured["ssim_0"] == 1


class Oracle(nn.Module):
    """Tells the classes of the images that it was shown, but for the first `wrong` of them."""

    def __init__(self, images: torch.Tensor, labels: torch.Tensor, wrong: int) -> None:
        super().__init__()
        self.anything = nn.Parameter(torch.zeros(1))
        self.images = images.flatten(1)
        told = labels.clone()
        told[:wrong] = (told[:wrong] + 1) % CLASSES
        self.told = nn.functional.one_hot(told, CLASSES).float() * 4

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        nearest = torch.cdist(images.flatten(1), self.images).argmin(dim=1)
        return self.told[nearest]


def test_classifier_counts_what_it_got_right():
    recipe = tiny("classifier", "evaluation.images=40")
    data = open_dataset(recipe.data, "test")
    chosen = data.choose(40)
    images = to_floats(real_images(data, chosen), CPU)
    _, labels = data.fetch(chosen, torch.arange(40))
    assert labels is not None
    measured = recipe.evaluate(Inference({"classifier": Oracle(images, labels, wrong=4)}), data)
    assert measured["accuracy"] == pytest.approx(0.9)
    right, wrong = math.log(math.exp(4) + CLASSES - 1) - 4, math.log(math.exp(4) + CLASSES - 1)
    assert measured["cross_entropy"] == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-4)
