"""What one kind of method does that others do not: penalties, critics, KL terms, smoothing."""

import math

import pytest
import torch
from tiny_recipes import tiny
from training_steps import batch_at, differing, started, trained

from genimg import rng
from genimg.training.sync import Alone


def test_lazy_r1_penalises_every_second_step_and_then_twice_as_much():
    lazy = tiny("dcgan", "loss.r1=3", "loss.r1_every=2")
    methods = {
        "lazy": started(lazy),
        "double": started(tiny("dcgan", "loss.r1=6", "loss.r1_every=1")),
        "none": started(tiny("dcgan", "loss.r1=0")),
    }
    trained(lazy, methods["lazy"], 1)
    trained(lazy, methods["double"], 1)
    trained(lazy, methods["none"], 1)
    assert differing(methods["lazy"], methods["double"]) == []
    assert differing(methods["lazy"], methods["none"])

    methods["none"].restore(methods["lazy"].snapshot())
    trained(lazy, methods["lazy"], 1)
    trained(lazy, methods["double"], 1)
    trained(lazy, methods["none"], 1)
    assert differing(methods["lazy"], methods["none"]) == []
    assert differing(methods["lazy"], methods["double"])


def test_the_generators_step_leaves_no_gradient_in_the_discriminator():
    recipe = tiny("dcgan", "train.precision=float32", "loss.r1_every=1")
    method, without = started(recipe), started(recipe)
    trained(recipe, method, 1)
    # the discriminator's own step, by hand
    batch, g, d = batch_at(recipe, 0), *without.networks.values()
    fake = g(rng.normal(rng.fold(batch.keys, 1), (recipe.model.latent,))).detach()
    real = batch.rows["image"].requires_grad_()
    logits = d(real)
    (slope,) = torch.autograd.grad(logits.sum(), real, create_graph=True)
    softplus = torch.nn.functional.softplus
    loss = softplus(-logits).mean() + softplus(d(fake)).mean()
    (loss + 0.5 * recipe.loss.r1 * slope.square().sum(dim=(1, 2, 3)).mean()).backward()
    for got, expected in zip(
        method.networks["discriminator"].parameters(), d.parameters(), strict=True
    ):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_a_critic_takes_its_steps_before_the_generator_takes_one():
    recipe = tiny("wgan-gp", "loss.critic_steps=3", "train.precision=float32")
    method = started(recipe)
    moved = []
    for step in range(6):
        before = [p.clone() for p in method.networks["generator"].parameters()]
        (losses,) = trained(recipe, method, 1)
        after = list(method.networks["generator"].parameters())
        moved.append(any(not torch.equal(a, b) for a, b in zip(before, after, strict=True)))
        assert ("loss_g" in losses) == moved[-1] == (step % 3 == 2)
        assert losses["penalty"] >= 0
    assert method.optimizers["discriminator"].param_groups[0]["betas"] == (0.0, 0.9)


def test_the_critics_gradient_is_that_of_its_paper():
    recipe = tiny("wgan-gp", "train.precision=float32", "model.depth=0")
    method, without = started(recipe), started(recipe)
    trained(recipe, method, 1)
    batch, g, d = batch_at(recipe, 0), *without.networks.values()
    fake = g(rng.normal(rng.fold(batch.keys, 1), (recipe.model.latent,))).detach()
    real = batch.rows["image"]
    part = rng.uniform(rng.fold(batch.keys, 2))[:, None, None, None]
    between = (part * real + (1 - part) * fake).requires_grad_()  # algorithm 1
    (slope,) = torch.autograd.grad(d(between).sum(), between, create_graph=True)
    penalty = (slope.square().sum(dim=(1, 2, 3)).sqrt() - 1).square().mean()
    (d(fake).mean() - d(real).mean() + 10 * penalty).backward()
    for got, expected in zip(
        method.networks["discriminator"].parameters(), d.parameters(), strict=True
    ):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-4, atol=1e-6)


def test_the_kl_term_is_faded_in():
    recipe = tiny("conv-vae", "loss.kl_warmup=0.5", "loss.beta=2")
    steps = trained(recipe, started(recipe), 5)
    pixels = 3 * 16 * 16
    weights = [((s["loss"] * pixels - s["nll"]) / s["kl"]).item() for s in steps]
    # at the first steps the posterior is close to the prior, so the KL is told less exactly
    assert weights == pytest.approx([2 * w for w in (0.25, 0.5, 0.75, 1, 1)], rel=0.02)


def test_the_output_scale_is_the_best_one_and_inference_gets_its_running_mean():
    recipe = tiny("conv-vae")
    method = started(recipe)
    first, second = trained(recipe, method, 2)
    # at the best sigma the negative log-likelihood a pixel is log sigma + (1 + log 2 pi) / 2
    for losses in (first, second):
        expected = losses["log_sigma"] + 0.5 * (1 + math.log(2 * math.pi))
        torch.testing.assert_close(losses["nll"] / (3 * 16 * 16), expected)
    running = 0.99 * first["log_sigma"] + 0.01 * second["log_sigma"]
    torch.testing.assert_close(method.averages["autoencoder"].log_sigma, running)


def test_a_denoiser_starts_with_the_error_of_the_noise_itself():
    recipe = tiny("ffdnet", "noise.low=25", "noise.high=25", "train.precision=float32")
    batch = batch_at(recipe, 0)
    losses = started(recipe).update(batch, Alone())
    noisy, maps = recipe.degraded(batch.rows["image"], batch.keys)
    assert maps.shape == (len(noisy), 1, 16, 16)
    assert (maps == 25 / 255).all()
    torch.testing.assert_close(losses["loss"], (noisy - batch.rows["image"]).abs().mean())
    expected = 2 * 25 / 255 * math.sqrt(2 / math.pi)  # of a normal variable
    assert losses["loss"].item() == pytest.approx(expected, rel=0.05)


def test_label_smoothing_raises_the_least_loss_that_there_is():
    recipe = tiny("classifier", "train.lr=0.02", "train.warmup=0", "train.images=8000")
    losses = {}
    for smoothing in (0.0, 0.5):
        method = started(recipe.override([f"loss.label_smoothing={smoothing}"]))
        batch = batch_at(recipe, 0)
        for _ in range(40):
            losses[smoothing] = method.update(batch, Alone())
    classes = len(recipe.model.classes)
    right, wrong = 0.5 + 0.5 / classes, 0.5 / classes
    entropy = -right * math.log(right) - (classes - 1) * wrong * math.log(wrong)
    assert losses[0.0]["loss"] < 0.1 < entropy
    assert losses[0.5]["loss"] == pytest.approx(entropy, abs=0.3)
