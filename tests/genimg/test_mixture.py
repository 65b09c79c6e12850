"""A mixture of Gaussians that follows latents, against torch.distributions and known mixtures."""

import numpy as np
import pytest
import torch
from engine_calls import picture, sample
from tiny_recipes import tiny
from torch.distributions import Categorical, MixtureSameFamily, MultivariateNormal
from training_steps import differing, started, trained

from genimg.engine import Engine
from genimg.inference import latents
from genimg.models.mixture import Mixture
from genimg.operations.drawing import Decode
from genimg.operations.exploring import Vary
from genimg.operations.reading import Encode, Reconstruct

SHARES = torch.tensor([0.2, 0.5, 0.3])
MEANS = torch.tensor([[-3.0, 0], [2, 2], [2, -3]])
FACTORS = torch.tensor([[[1.0, 0], [0.5, 0.5]], [[0.3, 0], [0, 1]], [[1, 0], [-0.9, 0.2]]])
KNOWN = MixtureSameFamily(Categorical(SHARES), MultivariateNormal(MEANS, scale_tril=FACTORS))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def known() -> Mixture:
    mixture = Mixture(3, 2)
    spread = FACTORS @ FACTORS.mT - 1e-3 * torch.eye(2) + MEANS[:, :, None] * MEANS[:, None]
    mixture.shares.copy_(SHARES)
    mixture.sums.copy_(SHARES[:, None] * MEANS)
    mixture.squares.copy_(SHARES[:, None, None] * spread)
    return mixture


def test_latents_are_of_a_gaussian_by_bayes_rule():
    drawn = KNOWN.sample((50,))
    joint = KNOWN.component_distribution.log_prob(drawn[:, None]) + SHARES.log()
    torch.testing.assert_close(
        known().responsibilities(drawn), joint.softmax(dim=1), rtol=1e-3, atol=1e-5
    )


def test_normals_become_the_mixture_and_latents_go_there_and_back():
    mixture, normals = known(), latents(torch.arange(20_000), 3)
    made = mixture(normals)
    torch.testing.assert_close(made.mean(dim=0), KNOWN.mean, atol=0.06, rtol=0)
    second = (SHARES[:, None, None] * (mixture.squares / SHARES[:, None, None])).sum(dim=0)
    torch.testing.assert_close(made.T @ made / len(made), second, atol=0.15, rtol=0)
    entropies = [-KNOWN.log_prob(each).mean() for each in (made, KNOWN.sample((20_000,)))]
    torch.testing.assert_close(*entropies, atol=0.03, rtol=0)
    torch.testing.assert_close(mixture(mixture.inverse(made)), made, atol=1e-4, rtol=1e-4)
    assert torch.equal(mixture(normals[7:8])[0], made[7])


def test_it_follows_what_it_is_shown():
    mixture = Mixture(3, 2)
    for step in range(300):
        statistics = mixture.statistics(KNOWN.sample((64,)))
        mixture.follow(statistics, max(0.01, (step + 2) ** -0.6))
    means, factors = mixture.gaussians()
    found = MixtureSameFamily(
        Categorical(mixture.shares), MultivariateNormal(means, scale_tril=factors)
    )
    drawn = KNOWN.sample((5000,))
    lost = (KNOWN.log_prob(drawn) - found.log_prob(drawn)).mean()
    one = MultivariateNormal(drawn.mean(dim=0), drawn.T.cov())
    assert lost < 0.05 < 0.5 < (KNOWN.log_prob(drawn) - one.log_prob(drawn)).mean()  # nats


def test_samples_are_of_the_mixture_and_images_have_latents_in_it():
    recipe = tiny("conv-vae", "model.mixture=3", "train.ema_half_life=0")
    method = started(recipe)
    trained(recipe, method, 3)
    plain = started(tiny("conv-vae"))
    trained(recipe, plain, 3)
    weights = [each.snapshot().weights for each in (method, plain)]
    assert not any("mixture" in name for name in weights[1])
    shared = [name for name in weights[0] if "mixture" not in name]
    assert len(shared) == len(weights[0]) - 3
    fresh = started(recipe)
    fresh.restore(method.snapshot())
    assert differing(fresh, method) == []

    network = method.averages["autoencoder"]
    engine, image = Engine(recipe, {"autoencoder": network}), picture(16, 16, 3)
    codes = engine(Encode(), image=image).array
    assert codes.shape == (1, 9)
    made = engine(Reconstruct(), image=image).images
    assert np.array_equal(made, engine(Decode(), latents=codes).images)
    seeds = latents(torch.arange(5), 9)
    assert np.array_equal(sample(engine, 5), engine(Decode(), latents=seeds.numpy()).images)
    near = engine(Vary(n=3, seed=1, strength=0.0), image=image).images
    assert all(np.array_equal(each, made[0]) for each in near)
