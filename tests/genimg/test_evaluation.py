"""What recipes measure, against the same computed with other means."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.metrics import peak_signal_noise_ratio
from tiny_recipes import every_recipe, tiny
from torch import nn
from torch.distributions import Normal, kl_divergence
from working_together import together

from genimg import recipes, rng
from genimg.data.augment import augmenting
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.opening import open_dataset
from genimg.data.scenes import Scenes
from genimg.data.storage import Ragged
from genimg.errors import InputError
from genimg.inference import Inference, real_images, to_floats
from genimg.models.conv_vae import ConvVAE
from genimg.pixels import grid
from genimg.recipes import RECIPES, restoring
from genimg.recipes.restoring import Restoring
from genimg.training.sync import Alone

CPU = torch.device("cpu")
CLASSES = len(Scenes.classes["label"])


def test_conv_vae_bounds_the_density_of_pixels_and_the_probability_of_bytes():
    recipe = tiny("conv-vae", "evaluation.images=5")
    data = open_dataset(recipe.data, recipe.wants, "test")
    torch.manual_seed(0)
    network = recipe.networks()["autoencoder"].eval()
    assert isinstance(network, ConvVAE)
    network.get_buffer("log_sigma").fill_(-0.7)
    measured = recipe.evaluate(Inference({"autoencoder": network}), data)

    chosen = data.choose(5)
    pictures = to_floats(real_images(data, chosen), CPU).double()
    with torch.no_grad():
        mean, log_variance = network.encode(pictures.float())
        posterior = Normal(mean, (0.5 * log_variance).exp())
        latents = mean + posterior.stddev * rng.normal(rng.fold(0, torch.arange(5)), (8,))
        pixels = Normal(network.decode(latents).tanh().double(), math.exp(-0.7))
    kl = kl_divergence(posterior, Normal(0.0, 1.0)).sum(1)
    density = pixels.log_prob(pictures).flatten(1).sum(1)
    upper = torch.where(pictures > 0.999, 1.0, pixels.cdf(pictures + 1 / 255))
    lower = torch.where(pictures < -0.999, 0.0, pixels.cdf(pictures - 1 / 255))
    bits = (kl - (upper - lower).log().flatten(1).sum(1)) / math.log(2) / pictures[0].numel()
    assert measured["kl"] == pytest.approx(kl.mean().item(), rel=1e-5)
    assert measured["elbo"] == pytest.approx((density - kl).mean().item(), rel=1e-5)
    assert measured["bits_per_dimension"] == pytest.approx(bits.mean().item(), rel=1e-5)


def test_ffdnet_measures_unclipped_noise_and_rounded_output_image_by_image():
    recipe = tiny("ffdnet", "data.size=64", "evaluation.sigmas=[0, 25]")
    data = open_dataset(recipe.data, recipe.wants, "test")
    identity = recipe.networks()  # what the untrained network is
    measured = recipe.evaluate(Inference(identity), data)

    scores = []
    for index in data.choose(recipe.evaluation.images).tolist():
        clean = data.whole(index)["image"]
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
    data = open_dataset(recipe.data, recipe.wants, "test")
    chosen = data.choose(40)
    pictures = to_floats(real_images(data, chosen), CPU)
    labels = data.fetch(chosen, torch.arange(40))["label"]
    measured = recipe.evaluate(Inference({"classifier": Oracle(pictures, labels, wrong=4)}), data)
    assert measured["accuracy"] == pytest.approx(0.9)
    right, wrong = math.log(math.exp(4) + CLASSES - 1) - 4, math.log(math.exp(4) + CLASSES - 1)
    assert measured["cross_entropy"] == pytest.approx(0.9 * right + 0.1 * wrong, rel=1e-4)


def test_what_was_measured_is_said():
    for name in RECIPES:
        recipe = tiny(name)
        protocol = recipe.protocol(open_dataset(recipe.data, recipe.wants, "test"))
        assert {"images", "seed", "detector", "method"} <= protocol.keys()
        assert protocol["images"] == (4 if isinstance(recipe, Restoring) else 16)
        assert all(isinstance(value, str | int) for value in protocol.values())


@pytest.mark.parametrize("channels", [1, 3])
def test_photos_in_tiles_score_as_whole_ones_do(monkeypatch, channels):
    recipe = tiny("ffdnet", "data.size=16", f"data.channels={channels}", "evaluation.images=3")
    pixels = np.random.default_rng(0).integers(0, 256, (3, channels, 150, 131), np.uint8)
    data = Images({"image": Ragged.joined(list(pixels), 16)})
    torch.manual_seed(0)
    network = recipe.networks()["restorer"].eval()
    network.body[-1].weight.data.normal_(std=0.05)
    largest = 0

    def look(module, inputs, output):
        nonlocal largest
        largest = max(largest, inputs[0].shape[-2:].numel())

    network.register_forward_hook(look)
    whole = recipe.evaluate(Inference({"restorer": network}), data)
    assert largest == 150 * 132  # padded to be even
    largest = 0
    monkeypatch.setattr(restoring, "PIXELS", 64 * 64)
    monkeypatch.setattr(restoring, "TILE", 64)
    tiled = recipe.evaluate(Inference({"restorer": network}), data)
    assert largest == 64 * 64
    assert tiled == pytest.approx(whole, rel=1e-4)


# Keys whose values decide what an evaluation has to work with, and values about their limits.
CHOICES = {
    "data.size": [8, 12, 16, 20, 24, 32],
    "data.channels": [1, 3],
    "data.fit": ["resize", "pad", "crop"],
    "data.holdout": [1, 2, 3, 7, 15, 16, 17, 33],
    "data.augment": ["none", "flip", "dihedral"],
    "data.augmentations": ["[{kind: mixup}]", "[{kind: cutmix}]", "[{kind: copy-paste, end: 0}]"],
    "evaluation.images": [1, 2, 10],
    "evaluation.samples": [1, 2, 15, 16, 17],
    "evaluation.sigmas": ["[0]", "[255]", "[25,25]", "[0,12.5]"],
    "evaluation.seed": [0, 2**63 - 1, 2**63, 10**30],
    "train.seed": [0, 2**63 - 1, 2**63],
    "train.batch_size": [1, 2, 5],
    "noise.low": [0, 55],
    "noise.high": [0, 255],
    "model.latent": [1, 3],
    "model.features": [2, 5],
    "model.blocks": [1, 12],
    "model.normalise": [True, False],
    "loss.r1": [0, 0.1],
}


@every_recipe
@settings(max_examples=1)
@given(data=st.data())
def test_a_recipe_that_is_accepted_makes_its_first_checkpoint(name, data):
    keys = sorted(CHOICES.keys() & recipes.named(name).keys())
    chosen = data.draw(st.lists(st.sampled_from(keys), unique=True, max_size=5))
    drawn = [f"{key}={data.draw(st.sampled_from(CHOICES[key]))}" for key in chosen]
    try:
        recipe = tiny(name, *drawn)
    except InputError:
        return
    dataset = open_dataset(recipe.data, recipe.columns)
    train, held_out = dataset.hold_out(recipe.data.holdout)
    torch.manual_seed(recipe.train.seed)
    method = recipe.method(CPU)
    loader = Loader(
        train, batch_size=recipe.train.batch_size, seed=recipe.train.seed, device=CPU,
        augment=augmenting(recipe),
    )  # fmt: skip
    method.update(loader.batch(0), Alone())
    inference = Inference(method.averages)
    metrics = recipe.evaluate(inference, held_out)
    assert recipe.objective[0] in metrics
    assert all(isinstance(value, float) for value in metrics.values())
    grid(*recipe.preview(inference, held_out))


@pytest.mark.parametrize(
    ("name", "assignments", "message"),
    [
        ("dcgan", ["data.holdout=1"], "data.holdout=1: dcgan is compared with at least 16"),
        ("ffdnet", ["data.size=8", "data.fit=resize"], "data.size=8: ffdnet takes 12 or more"),
        ("upscaler", ["data.size=12"], "data.size=12: upscaler takes 16 or more"),
        ("ffdnet", ["evaluation.seed=9223372036854775808"], "evaluation.seed=9223372036854775808"),
    ],
)
def test_what_no_checkpoint_could_be_judged_by_is_refused_at_once(name, assignments, message):
    with pytest.raises(InputError, match=message):
        recipes.named(name).override(assignments)


@pytest.mark.parametrize("more", [(), ("data.scenes=captioned", "model.text=true")])
def test_workers_of_whom_some_have_nothing_to_draw_measure_what_one_does(more):
    recipe = tiny("flow", "evaluation.samples=16", *more)
    torch.manual_seed(0)
    alone = Inference({name: network.eval() for name, network in recipe.networks().items()})
    data = open_dataset(recipe.data, recipe.wants, "test")
    measured = together(18, lambda sync: recipe.evaluate(replace(alone, sync=sync), data))
    assert measured == [pytest.approx(recipe.evaluate(alone, data))] * 18


@every_recipe
def test_every_recipe_is_measured_in_the_precision_that_will_serve(name):
    recipe = tiny(name)
    data = open_dataset(recipe.data, recipe.wants, "test")
    recipe = recipe.resolve(data.classes)
    torch.manual_seed(0)
    networks = recipe.networks()
    measured = {}
    for precision in ("float32", "bfloat16"):
        inference = Inference.of_copies(networks, precision, Alone())
        measured[precision] = recipe.evaluate(inference, data)
        assert recipe.preview(inference, data)[0].isfinite().all()
    main, _ = recipe.objective
    low, high = measured["bfloat16"][main], measured["float32"][main]
    assert low == pytest.approx(high, rel=0.1, abs=0.05)
    assert not any(p.dtype == torch.bfloat16 for n in networks.values() for p in n.parameters())
