"""Likelihoods of decoders and bounds of the likelihood, against torch.distributions."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_recipes import tiny
from torch.distributions import (
    AffineTransform,
    Bernoulli,
    MultivariateNormal,
    Normal,
    SigmoidTransform,
    TransformedDistribution,
    Uniform,
    kl_divergence,
)
from training_steps import batch_at, differing, started, trained

from genimg import rng
from genimg.data.opening import open_dataset
from genimg.errors import InputError
from genimg.inference import Inference
from genimg.losses import (
    LIKELIHOODS,
    bernoulli_nll,
    gaussian_nll,
    importance_bound,
    logistic_mixture_mean,
    logistic_mixture_nll,
    logistic_mixture_planes,
)
from genimg.losses.likelihood import MIXTURE, logistic_mixture
from genimg.models.conv_vae import ConvVAE
from genimg.recipes.bounds import metrics_of, scores
from genimg.training.autoencoding import binarised
from genimg.training.sync import Alone

LEVELS = torch.arange(256).mul(2 / 255).sub(1)
KEYS = torch.arange(2000)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def test_bernoulli_is_that_of_torch_distributions():
    bits, logits = torch.randint(0, 2, (4, 3, 5, 5)).float(), 3 * torch.randn(4, 3, 5, 5)
    expected = -Bernoulli(logits=logits).log_prob(bits).flatten(1).sum(dim=1)
    torch.testing.assert_close(bernoulli_nll(2 * bits - 1, logits), expected)
    mean = LIKELIHOODS["bernoulli"](3).mean(logits)
    torch.testing.assert_close(mean, 2 * Bernoulli(logits=logits).mean - 1)


def logistic(mean: torch.Tensor, scale: torch.Tensor) -> TransformedDistribution:
    shape = [SigmoidTransform().inv, AffineTransform(mean, scale)]
    return TransformedDistribution(Uniform(torch.zeros_like(mean), 1), shape)


def test_a_mixture_of_logistics_is_that_of_torch_distributions_pixel_by_pixel():
    made = torch.randn(2, logistic_mixture_planes(3), 2, 2).double()
    images = LEVELS[torch.randint(0, 256, (2, 3, 2, 2))].double()
    images[0, :, 0, 0], images[1, :, 1, 1] = -1, 1
    shares, means, scales, couplings = logistic_mixture(made, 3)
    total = torch.zeros(2)
    for row, y, x in itertools.product(range(2), range(2), range(2)):
        red, green, blue = images[row, :, y, x]
        mixed = 0
        for part in range(MIXTURE):
            mean, (a, b, c) = means[row, part, :, y, x], couplings[row, part, :, y, x]
            moved = mean + torch.stack([0 * a, a * red, b * red + c * green])
            each = logistic(moved, scales[row, part, :, y, x].exp())
            values = torch.stack([red, green, blue])
            upper = torch.where(values == 1, 1, each.cdf(values + 1 / 255))
            lower = torch.where(values == -1, 0, each.cdf(values - 1 / 255))
            mixed += shares[row, part, y, x].exp() * (upper - lower).prod()
        total[row] -= mixed.log().item()
    torch.testing.assert_close(logistic_mixture_nll(images, made).float(), total)


@settings(max_examples=30)
@given(st.integers(0, 10**6), st.sampled_from([0.1, 3.0, 30.0]))
def test_a_mixture_gives_the_256_levels_a_probability_of_one_in_all(seed, spread):
    planes = logistic_mixture_planes(1)
    made = spread * torch.randn(1, planes, 1, 1, generator=torch.Generator().manual_seed(seed))
    nll = logistic_mixture_nll(LEVELS[:, None, None, None], made.expand(256, -1, -1, -1))
    assert nll.isfinite().all()
    assert nll.neg().exp().sum().item() == pytest.approx(1, abs=1e-4)


def test_a_mixtures_channels_have_a_probability_of_one_in_all_given_those_before():
    """Summed over blue, what is said of blue is of no account."""
    made = torch.randn(1, logistic_mixture_planes(3), 1, 1).double()
    other = made.unflatten(1, (MIXTURE, -1)).clone()
    other[:, :, [3, 6, 8, 9]] += torch.randn(1, MIXTURE, 4, 1, 1)  # its mean, scale and couplings
    pixels = torch.tensor([0.2, -0.6]).expand(256, 2)
    images = torch.cat([pixels, LEVELS[:, None]], dim=1)[..., None, None].double()
    sums = [
        logistic_mixture_nll(images, each.expand(256, -1, -1, -1)).neg().exp().sum()
        for each in (made, other.flatten(1, 2))
    ]
    torch.testing.assert_close(*sums)


@pytest.mark.parametrize("kind", LIKELIHOODS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_mean_is_an_image_near_the_likeliest_and_learns_from_extremes(kind, channels):
    likelihood = LIKELIHOODS[kind](channels)
    made = (30 * torch.randn(4, likelihood.planes, 3, 3)).requires_grad_()
    mean = likelihood.mean(made)
    assert mean.shape == (4, channels, 3, 3)
    assert mean.abs().max() <= 1 + 1e-6
    nll = likelihood.nll(mean.detach().round().clamp(-1, 1), made, torch.tensor(0.0))
    (slope,) = torch.autograd.grad(nll.sum(), made)
    assert nll.isfinite().all()
    assert slope.isfinite().all()


def test_a_mixtures_mean_follows_the_couplings_of_its_channels():
    made = torch.zeros(1, MIXTURE, 10, 1, 1)
    made[:, 0, 0] = 50.0  # one distribution has it all
    made[:, 0, 1:4, 0, 0] = torch.tensor([0.5, 0.1, -2.0])
    made[:, 0, 7:, 0, 0] = torch.tensor([50.0, 50.0, -50.0])  # 1, 1, -1
    mean = logistic_mixture_mean(made.flatten(1, 2), 3).flatten()
    torch.testing.assert_close(mean, torch.tensor([0.5, 0.6, -1.0]))


def test_pixels_are_white_as_often_as_their_values_say():
    image = torch.linspace(-1, 1, 16).reshape(1, 1, 4, 4)
    bits = binarised(image.expand(len(KEYS), -1, -1, -1), KEYS)
    assert set(bits.flatten().tolist()) == {-1.0, 1.0}
    assert (bits.mean(dim=0) - image[0]).abs().max() < 5 / len(KEYS) ** 0.5
    assert torch.equal(binarised(image, KEYS[7:8])[0], bits[7])


class LinearModel(ConvVAE):
    """x = W z + b + noise, whose likelihood is known; its posterior is right but for `off`."""

    def __init__(self, off: float) -> None:
        super().__init__(3, 8, 8, 1, 1)
        self.off = off
        self.weight, self.bias = torch.randn(64, 3) / 3, torch.randn(64)
        self.log_sigma.fill_(-0.5)

    def encode(self, images):
        precision = torch.eye(3) + self.weight.T @ self.weight * math.exp(1)
        spread = torch.linalg.inv(precision)
        mean = (images.flatten(1) - self.bias) @ self.weight @ spread * math.exp(1)
        # of one latent after the other: what q leaves out is in `off`, too
        return mean + self.off, spread.diagonal().log().expand_as(mean)

    def planes(self, latents, classes=None):
        return (latents @ self.weight.T + self.bias).reshape(-1, 1, 8, 8)

    def likelihood(self, images):
        spread = self.weight @ self.weight.T + torch.eye(64) * math.exp(-1)
        return MultivariateNormal(self.bias, spread).log_prob(images.flatten(1))


class Plain(LIKELIHOODS["gaussian"]):
    def mean(self, made):
        return made


def estimated(network: LinearModel, images: torch.Tensor, importance: int) -> dict[str, float]:
    inference = Inference({"autoencoder": network.eval()}, most=7)
    keys = rng.fold(0, torch.arange(len(images)))
    found = scores(inference, {"image": images}, keys, Plain(1), importance)
    return metrics_of(found, 64, importance)


@pytest.mark.parametrize("off", [0.0, 0.15])
def test_importance_sampling_finds_the_likelihood_of_a_linear_gaussian_model(off):
    network = LinearModel(off)
    if not off:  # with orthogonal columns its posterior is one latent by the other
        network.weight = torch.linalg.qr(network.weight)[0] * torch.tensor([0.3, 1.0, 2.0])
    images = network.decode(torch.randn(16, 3)) + math.exp(-0.5) * torch.randn(16, 1, 8, 8)
    exact = network.likelihood(images).mean().item()
    one = estimated(network, images, 2)
    if not off:
        assert one["log_likelihood"] == pytest.approx(exact, abs=1e-3)
        assert one["elbo"] == pytest.approx(exact, abs=0.5)  # one sample's noise
    many = estimated(network, images, 500)
    assert abs(many["log_likelihood"] - exact) <= abs(one["log_likelihood"] - exact) + 1e-3
    assert many["log_likelihood"] == pytest.approx(exact, abs=0.05)


def test_the_importance_bound_rises_with_samples_and_stands_in_log_space():
    weights = torch.randn(500, 64).double() * 2 - 4000
    bounds = [importance_bound(weights.reshape(-1, k)).mean().item() for k in (1, 2, 8, 64)]
    assert bounds == sorted(bounds)
    assert bounds[-1] == pytest.approx(-4000 + 2, abs=0.3)  # log of the mean of exp of normals
    torch.testing.assert_close(importance_bound(weights[:, :1]), weights[:, 0])


def test_the_loss_of_several_samples_is_that_of_their_importance_weights():
    recipe = tiny("iwae", "loss.importance=3", "loss.kl_warmup=0", "train.precision=float32")
    method, batch = started(recipe), batch_at(recipe, 0)
    network, images = method.networks["autoencoder"], batch.rows["image"]
    noise = rng.normal(rng.fold(batch.keys, 1), (3, 8))
    with torch.no_grad():
        mean, log_variance = network.encode(images)
        posterior = Normal(mean[:, None], (0.5 * log_variance).exp()[:, None])
        drawn = posterior.loc + posterior.scale * noise
        made = network.decode(drawn.flatten(0, 1)).tanh()
    several = images.repeat_interleave(3, dim=0)
    sigma = (several - made).square().mean().sqrt()
    likely = -gaussian_nll(several, made, sigma.log()).reshape(-1, 3)
    ratio = (Normal(0.0, 1.0).log_prob(drawn) - posterior.log_prob(drawn)).sum(dim=2)
    weights = (likely + ratio).double()
    expected = -(torch.logsumexp(weights, dim=1) - math.log(3)).mean() / images[0].numel()
    losses = method.update(batch, Alone())
    torch.testing.assert_close(losses["loss"], expected.float())
    divergence = kl_divergence(posterior, Normal(0.0, 1.0)).sum(dim=2).mean()
    torch.testing.assert_close(losses["kl"], divergence)


def test_latents_below_their_free_bits_cost_the_same_and_are_not_pressed():
    overrides = ("loss.kl_warmup=0", "train.precision=float32")
    free = tiny("conv-vae", *overrides, "loss.free_bits=50")
    none = tiny("conv-vae", *overrides, "loss.beta=0")
    methods = [started(recipe) for recipe in (free, none)]
    losses = [trained(free, method, 2) for method in methods]
    for one, other in zip(*losses, strict=True):
        extra = (one["loss"] - other["loss"]) * 3 * 16 * 16
        torch.testing.assert_close(extra, torch.tensor(8 * 50.0), rtol=1e-3, atol=0)
    assert differing(*methods) == []  # as far as they learn, nothing is asked of them
    few = tiny("conv-vae", *overrides, "loss.free_bits=1e-9")
    methods = [started(recipe) for recipe in (few, tiny("conv-vae", *overrides))]
    for method in methods:
        trained(few, method, 2)
    assert differing(*methods) == []


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["loss.binarise=dynamic"], "binarise=dynamic: a gaussian likelihood is of gray values"),
        (["loss.free_bits=1", "loss.importance=2"], "free_bits=1: importance=2 weighs whole"),
        (["loss.likelihood=bernouli"], "loss.likelihood='bernouli'"),
        (["evaluation.best=judge_fid"], "evaluation.best=judge_fid: a judge tells it"),
    ],
)
def test_what_makes_no_bound_is_refused(overrides, message):
    with pytest.raises(InputError, match=message):
        tiny("conv-vae", *overrides)


def test_what_was_binarised_and_sampled_is_said():
    recipe = tiny(
        "conv-vae", "loss.likelihood=bernoulli", "loss.binarise=dynamic", "evaluation.importance=9"
    )
    data = range(100)  # it asks how many there are
    protocol = recipe.protocol(data)
    assert protocol["binarisation"].startswith("dynamic: each pixel drawn by its value")
    assert "log-likelihood by 9 importance samples" in protocol["method"]
    assert "binarisation" not in tiny("conv-vae").protocol(data)


def test_a_bound_of_images_given_their_classes_says_so():
    given = tiny("conv-vae", "model.conditional=true").protocol(range(100))["method"]
    assert given.startswith("evidence lower bound of images given their classes with one")
    assert "classes" not in tiny("conv-vae").protocol(range(100))["method"]


def test_what_learns_by_importance_samples_is_chosen_by_them():
    assert tiny("conv-vae").chosen_by == ("elbo", "max")
    assert tiny("iwae").chosen_by == ("log_likelihood", "max")
    assert tiny("iwae", "evaluation.judge=its").chosen_by == ("judge_fid", "min")
    recipe = tiny("iwae")
    inference = Inference({name: each.eval() for name, each in recipe.networks().items()})
    metrics = recipe.evaluate(inference, open_dataset(recipe.data, recipe.wants, "test"))
    assert metrics["log_likelihood"] > metrics["elbo"]  # of an untrained posterior by far
