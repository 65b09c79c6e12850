"""The rules of adversarial games: penalties, clipping, rates, pairs, and what is refused."""

import pytest
import torch
import torch.nn.functional as F
from tiny_recipes import tiny
from torch import nn
from training_steps import batch_at, differing, started, trained

from genimg import recipes, rng
from genimg.errors import InputError
from genimg.training.adversarial import REAL, Adversarial, Turn, packed, unpacked
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
    method.networks["discriminator"].body.register_forward_pre_hook(
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


def test_penalties_go_along_a_cosine_during_the_burn_in():
    long = ["loss.r1_every=1", "train.burn_in=0.5"]
    ramp = started(tiny("dcgan", "loss.r1=3", "loss.r1_end=1", "loss.r2_end=2", *long))
    for seen, r1, r2 in ((0, 3, 0), (16, 2, 1), (32, 1, 2), (48, 1, 2)):
        recipe = tiny("dcgan", f"loss.r1={r1}", f"loss.r2={r2}", *long)
        fixed = started(recipe)
        fixed.restore(ramp.snapshot())
        assert ramp.seen == seen
        for method in (ramp, fixed):
            trained(recipe, method, 1)
        for one, other in zip(
            *(m.networks["discriminator"].parameters() for m in (ramp, fixed)), strict=True
        ):
            torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-6)
        for method in (ramp, fixed):
            trained(recipe, method, 1)


def test_the_generator_matches_the_means_of_features():
    recipe = tiny("mlp-gan", "loss.feature_matching=0.3", "loss.r1=0", "train.precision=float32")
    method, without = started(recipe), started(recipe)
    batch, g, d = batch_at(recipe, 0), *without.networks.values()
    method.update(batch, Alone())
    d.load_state_dict(method.networks["discriminator"].state_dict())
    fake = g(rng.normal(rng.fold(batch.keys, 1), (recipe.model.latent,)))
    apart = d.body(batch.rows["image"]).mean(dim=0) - d.body(fake).mean(dim=0)
    (F.softplus(-d(fake)).mean() + 0.3 * apart.square().sum()).backward()
    assert_gradients(method.networks["generator"], g)


def test_neighbours_are_judged_in_packs():
    assignments = ["loss.pack=2", "loss.r1=0.7", "loss.r1_every=1", "train.precision=float32"]
    recipe = tiny("dcgan", *assignments)
    method, without = started(recipe), started(recipe)
    batch, g, d = batch_at(recipe, 0), *without.networks.values()
    images = [batch.rows["image"], g(rng.normal(rng.fold(batch.keys, 1), (8,))).detach()]
    real, fake = (torch.cat([each[::2], each[1::2]], dim=1) for each in images)
    real.requires_grad_()
    (slope,) = torch.autograd.grad(d(real).sum(), real, create_graph=True)
    loss = F.softplus(-d(real)).mean() + F.softplus(d(fake)).mean()
    (loss + 0.35 * slope.square().sum(dim=(1, 2, 3)).mean()).backward()
    torch.testing.assert_close(method.update(batch, Alone())["loss_d"], loss.detach())
    assert_gradients(method.networks["discriminator"], d)


def test_packs_are_augmented_image_by_image():
    images = torch.randn(8, 3, 4, 4)
    assert torch.equal(unpacked(packed(images, 4), 4), images)
    assert torch.equal(packed(images, 2)[1], torch.cat([images[2], images[3]]))
    recipe = tiny("dcgan", "loss.pack=2", "loss.augment=[translation]", "loss.probability=0.5")
    method, seen = started(recipe), []
    method.networks["discriminator"].body.register_forward_pre_hook(
        lambda module, given: seen.append(given[0].detach())
    )
    batch = batch_at(recipe, 0)
    method.learn(batch, Alone())
    keys = rng.fold(batch.keys, 3, REAL)
    assert torch.equal(
        unpacked(seen[0], 2), augmented(batch.rows["image"], keys, ("translation",), 0.5)
    )


def test_augmentation_follows_how_surely_real_images_are_told():
    keys = ["loss.augment=[cutout]", "loss.adaptive=0.6"]
    recipe = tiny("dcgan", *keys, "train.precision=float32")
    method = started(recipe)
    batch = batch_at(recipe, 0)
    turn = Turn(batch, Alone(), batch.rows["image"], None, 0.0)
    sure, unsure = torch.ones(8), torch.tensor([1.0] * 6 + [-1.0] * 2)  # the mean sign of 0.5
    steps = [method._adapt(logits, turn).item() for logits in (sure, sure, unsure, unsure, unsure)]
    assert steps == pytest.approx([8 / 5e5, 16 / 5e5, 8 / 5e5, 0, 0], abs=1e-9)
    method.state["probability"].fill_(0.999999)
    assert method._adapt(sure, turn) == 1
    always = started(tiny("dcgan", keys[0], "train.precision=float32"))
    for one in (method, always):
        trained(recipe, one, 1)
    snapshot = method.snapshot()
    assert differing(method, always) == ["state.probability"]
    assert snapshot.training["state.probability"] > 0.99
    other = started(recipe)
    assert other.state["probability"] == 0
    other.restore(snapshot)
    assert torch.equal(other.state["probability"], method.state["probability"])


REFUSED = [
    ("dcgan", "loss.adaptive=0.6", "adaptive=0.6: there is nothing that it is the probability of"),
    ("dcgan", "loss.probability=0.5", "probability=0.5: there is nothing that it is the"),
    ("dcgan", "loss.probability_end=0", "probability_end=0.0: there is nothing that it is the"),
    ("r3gan", "loss.augment=[colour] loss.adaptive=0.6", "by which a relativistic loss tells"),
    ("dcgan", "loss.augment=[colour] loss.adaptive=0.6 loss.probability=0.5", "decides the prob"),
    ("r3gan", "loss.drift=0.1", "drift=0.1: a relativistic loss is of differences"),
    ("dcgan", "loss.pack=3", "train.batch_size=64: 3 images are judged together"),
    ("progan", "loss.gradient_penalty=0 loss.weight_clip=0.01", "network=growing are scaled when"),
    ("biggan-small", "loss.pack=2", "loss.pack=2: images judged together are of several classes"),
    ("progan", "train.batch_size=6", "train.batch_size=6: 4 images are judged together"),
    ("wgan", "loss.smoothing=0.1", "smoothing=0.1: a wasserstein loss has no labels"),
    ("wgan", "loss.gradient_penalty=10", "weight_clip=0.01: gradient_penalty=10.0 bounds the"),
    ("sngan", "loss.weight_clip=0.1", "loss.weight_clip=0.1: with model.spectral=true"),
    ("wgan", "loss.weight_clip=0", "loss.kind=wasserstein: nothing bounds the critic"),
    ("dcgan", "loss.augment=[flip]", "loss.augment.0='flip'"),
    ("r3gan", "model.width=12", "model.width=12: input should be a multiple of 8"),
    ("sngan", "model.normalise=true", "model.normalise"),
    ("mlp-gan", "loss.orthogonal=1", "loss.orthogonal=1.0: is of the filters of convolutions"),
    ("progan", "loss.orthogonal=1e-4", "loss.orthogonal=0.0001: the weights of model.network=g"),
    ("stylegan", "loss.orthogonal=1e-4", "loss.orthogonal=0.0001: the weights of model.network=s"),
    ("dcgan", "loss.style_mixing=0.5", "loss.style_mixing=0.5: model.network=dcgan has no styles"),
    ("stylegan", "train.batch_size=6", "train.batch_size=6: 4 images are judged together"),
    ("mlp-gan", "data.size=128", "data.size=128: mlp-gan takes multiples of 4 from 8 to 64, with"),
    ("r3gan", "data.size=28", "16, 32, 64, 128 or 256, with model.network=modern"),
    ("dcgan", "model.network=big", "model.network='big'"),
]  # fmt: skip


@pytest.mark.parametrize(("name", "assignment", "message"), REFUSED)
def test_games_that_make_no_sense_are_refused(name, assignment, message):
    with pytest.raises(InputError) as caught:
        recipes.named(name).override(assignment.split())
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
