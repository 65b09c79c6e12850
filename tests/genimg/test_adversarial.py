"""The rules of adversarial games: penalties, clipping, rates, pairs, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from tiny_recipes import tiny
from torch import nn
from training_steps import batch_at, differing, started, trained

from genimg import recipes, rng
from genimg.errors import InputError
from genimg.training.adversarial import REAL, Adversarial
from genimg.training.differentiable import augmented
from genimg.training.sync import Alone


def assert_gradients(network: nn.Module, expected: nn.Module) -> None:
    for got, wanted in zip(network.parameters(), expected.parameters(), strict=True):
        size = wanted.grad.abs().max().item()
        torch.testing.assert_close(got.grad, wanted.grad, rtol=1e-3, atol=1e-5 * size + 1e-8)


def test_a_relativistic_step_is_that_of_its_paper():
    recipe = tiny("r3gan", "train.precision=float32", "loss.r1=0.7", "loss.r2=0.3")
    method, without = started(recipe), started(recipe)
    for one in (method, without):
        generator = torch.Generator().manual_seed(1)
        for network in one.networks.values():
            for parameter in network.parameters():
                parameter.data.normal_(std=0.1, generator=generator)
    batch, g, d = batch_at(recipe, 0), *without.networks.values()
    fake = g(rng.normal(rng.fold(batch.keys, 1), (recipe.model.latent,)))
    real, seen = batch.rows["image"].clone().requires_grad_(), fake.detach().requires_grad_()
    logits = d(real), d(seen)
    slopes = [
        torch.autograd.grad(logit.sum(), images, create_graph=True)[0].square().sum(dim=(1, 2, 3))
        for logit, images in zip(logits, (real, seen), strict=True)
    ]
    loss = F.softplus(logits[1] - logits[0]).mean()
    (loss + 0.35 * slopes[0].mean() + 0.15 * slopes[1].mean()).backward()
    told = method.update(batch, Alone())
    torch.testing.assert_close(told["loss_d"], loss.detach())
    assert_gradients(method.networks["discriminator"], d)

    d.load_state_dict(method.networks["discriminator"].state_dict())  # the step after it
    g.zero_grad()
    F.softplus(d(batch.rows["image"]) - d(fake)).mean().backward()
    assert_gradients(method.networks["generator"], g)


def test_r2_is_lazy_with_r1():
    lazy = tiny("dcgan", "loss.r1=3", "loss.r2=1", "loss.r1_every=2")
    methods = {
        "lazy": started(lazy),
        "double": started(tiny("dcgan", "loss.r1=6", "loss.r2=2", "loss.r1_every=1")),
        "none": started(tiny("dcgan", "loss.r1=3", "loss.r1_every=2")),
    }
    for method in methods.values():
        trained(lazy, method, 1)
    assert differing(methods["lazy"], methods["double"]) == []
    assert differing(methods["lazy"], methods["none"])
    methods["none"].restore(methods["lazy"].snapshot())
    for method in methods.values():
        trained(lazy, method, 1)
    assert differing(methods["lazy"], methods["none"]) == []
    assert differing(methods["lazy"], methods["double"])


def test_clipping_bounds_every_weight_of_the_critic_and_of_nothing_else():
    recipe = tiny("wgan")
    method = started(recipe)
    trained(recipe, method, 2)
    most = {
        name: max(parameter.abs().max().item() for parameter in network.parameters())
        for name, network in method.networks.items()
    }
    assert most["discriminator"] == pytest.approx(0.01)
    assert most["generator"] > 0.01


def test_the_discriminator_learns_at_a_rate_of_its_own():
    recipe = tiny("dcgan", "loss.discriminator_rate=4", "train.lr=1e-3", "train.decay=constant")
    method = started(recipe)
    trained(recipe, method, 1)
    rates = {name: one.param_groups[0]["lr"] for name, one in method.optimizers.items()}
    assert rates == pytest.approx({"generator": 1e-3, "discriminator": 4e-3})


def test_labels_of_real_images_are_smoothed():
    told = {}
    for smoothing in (0.0, 0.3):
        recipe = tiny("dcgan", f"loss.smoothing={smoothing}", "train.precision=float32")
        (told[smoothing],) = trained(recipe, started(recipe), 1)
    rise = told[0.3]["loss_d"] - told[0.0]["loss_d"]
    torch.testing.assert_close(rise, 0.3 * told[0.0]["logit_real"], rtol=1e-4, atol=1e-6)


def test_the_discriminator_sees_augmented_images_of_both_kinds():
    recipe = tiny("dcgan", "loss.augment=[colour,translation,cutout]", "train.precision=float32")
    method, without = started(recipe), started(recipe)
    assert isinstance(method, Adversarial)
    seen: list[torch.Tensor] = []
    method.networks["discriminator"].register_forward_pre_hook(
        lambda module, given: seen.append(given[0].detach())
    )
    batch = batch_at(recipe, 0)
    method.learn(batch, Alone())
    real = augmented(batch.rows["image"], rng.fold(batch.keys, 3, REAL), recipe.loss.augment)
    assert len(seen) == 3  # real, generated, generated once more
    assert torch.equal(seen[0], real)
    fake = without.networks["generator"](rng.normal(rng.fold(batch.keys, 1), (8,)))
    assert not any(torch.equal(one, fake) for one in seen[1:])
    assert not torch.equal(seen[1], seen[2])


REFUSED = [
    ("wgan", "loss.smoothing=0.1", "smoothing=0.1: a wasserstein loss has no labels"),
    ("wgan", "loss.gradient_penalty=10", "weight_clip=0.01: gradient_penalty=10.0 bounds the"),
    ("sngan", "loss.weight_clip=0.1", "loss.weight_clip=0.1: with model.spectral=true"),
    ("wgan", "loss.weight_clip=0", "loss.kind=wasserstein: nothing bounds the critic"),
    ("dcgan", "loss.augment=[flip]", "loss.augment.0='flip'"),
    ("r3gan", "model.width=12", "model.width=12: input should be a multiple of 8"),
    ("sngan", "model.normalise=true", "model.normalise"),
    ("mlp-gan", "loss.orthogonal=1", "loss.orthogonal=1.0: is of the filters of convolutions"),
    ("mlp-gan", "data.size=128", "data.size=128: mlp-gan takes multiples of 4 from 8 to 64, with"),
    ("r3gan", "data.size=28", "16, 32, 64, 128 or 256, with model.network=modern"),
    ("dcgan", "model.network=big", "model.network='big'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "assignment", "message"), REFUSED)
def test_games_that_make_no_sense_are_refused(name, assignment, message):
    with pytest.raises(InputError) as caught:
        recipes.named(name).override([assignment])
    assert message in str(caught.value)


def test_any_network_plays_any_game():
    recipe = recipes.named("dcgan").override(["model.network=modern", "loss.kind=hinge"])
    assert (recipe.model.network, recipe.model.latent, recipe.loss.r1) == ("modern", 64, 0.1)
    written = recipe.model_dump(mode="json")
    assert recipes.from_json(recipe.model_dump_json()) == recipe
    older = recipes.named("dcgan").model_dump(mode="json")
    del older["model"]["network"]
    assert type(recipe).validated(older) == recipes.named("dcgan")
    assert written["model"]["network"] == "modern"
