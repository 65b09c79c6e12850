"""A restorer's second stage: weights to begin with, a classifier's features, a discriminator."""

import functools

import pytest
import torch
from second_stages import ADVERSARIAL, PERCEPTUAL, classifier, helped, second_stage
from tiny_recipes import tiny
from torch import nn
from training_steps import CPU, batch_at, differing, started, trained

from genimg import losses, recipes
from genimg.errors import InputError
from genimg.models.classifier import Plain
from genimg.models.perception import Perception, with_channels
from genimg.recipe import Recipe
from genimg.training.adversarial_restoration import AdversarialRestoration
from genimg.training.restoration import Restoration
from genimg.training.sync import Alone
from jobs.runs.folder import best

FIRST = ("train.warmup=0", "train.lr=0.01", "train.ema_half_life=20")


def begun(recipe: Recipe, first: nn.Module) -> Restoration:
    method = started(recipe)
    recipe.helped(method, {"start": {"restorer": first}})
    assert isinstance(method, Restoration)
    return method


def test_the_last_checkpoint_of_a_second_stage_is_its_best():
    """PSNR, by which first stages are chosen, falls the longer it learns to please the eye."""
    history = [(10, {"psnr": 30.0}), (20, {"psnr": 31.0}), (30, {"psnr": 25.0})]
    assert best(tiny("deblocker"), history) == 20
    assert best(tiny("deblocker", "loss.adversarial=0.1"), history) == 30


# what it begins with


def test_training_begins_with_the_weights_of_the_first_stage():
    earlier = tiny("deblocker", *FIRST)
    first = started(earlier)
    trained(earlier, first, 3)
    expected = first.snapshot().weights
    method = begun(tiny("deblocker", "start=x"), first.averages["restorer"])
    snapshot = method.snapshot()
    assert snapshot.weights.keys() == expected.keys()
    for key, weight in expected.items():
        assert torch.equal(snapshot.weights[key], weight)
        assert torch.equal(snapshot.training[key], weight)
    trained(tiny("deblocker"), method, 2)  # and leaves the first stage as it is
    assert all(torch.equal(first.snapshot().weights[key], expected[key]) for key in expected)


@pytest.mark.parametrize(
    ("first", "told"),
    [
        (("deblocker", "model.width=16"), r"start=x: another network, .*model.width=16 \(here 8\)"),
        (("deblurrer",), r"start=x: another network, of deblurrer: .*network=NAFNet \(here Plain"),
        (("deblocker", "data.channels=1"), r"data.channels=1 \(here 3\)"),
        (("deblocker", "tells=[quality]"), r"tells=\['quality'\] \(here \[\]\)"),
        (("upscaler", "model.unshuffle=2"), r"scale=2 \(here 1\)"),
        (("ffdnet",), "start=x: another network, of ffdnet"),
        (("classifier",), "start=x: classifier models restore nothing; they can: classify"),
    ],
)
def test_a_first_stage_of_another_network_is_refused_by_name(first, told):
    recipe = tiny("deblocker", "start=x")
    with pytest.raises(InputError, match=told):
        recipe.refuse_helper("start", tiny(*first))


def test_a_first_stage_of_another_recipe_may_have_the_same_network():
    recipe = tiny("restorer", "start=x")
    recipe.refuse_helper("start", tiny("colouriser"))
    told = tiny(
        "restorer", "start=x", "task=denoise", "tells=[sigma]", "degradations=[{kind: noise}]",
        "evaluation.tests={a: [{kind: noise}]}",
    )  # fmt: skip
    told.refuse_helper("start", tiny("drunet", "model.blocks=1", "model.width=8"))


@pytest.mark.parametrize(
    ("first", "tells", "model"),
    [("ffdnet", "[sigma]", ["model.blocks=1"]), ("dncnn", "[]", ["model.depth=4"])],
)
def test_denoisers_are_first_stages_too(first, tells, model):
    model = [f"model.network={first}", "model.width=8", *model]
    told = [f"tells={tells}", "degradations=[{kind: noise}]"]
    recipe = recipes.named("restorer").override([
        *model, *told, "evaluation.tests={a: [{kind: noise}]}", "task=denoise", "start=x",
        "loss.adversarial=0.01", "data.size=16", "train.batch_size=2",
    ])  # fmt: skip
    theirs = tiny(first)
    recipe.refuse_helper("start", theirs)
    network = started(theirs).networks["restorer"]
    method = begun(recipe, network)
    first_weights = network.state_dict()
    mine = method.networks["restorer"].state_dict()
    assert all(torch.equal(mine[name], each) for name, each in first_weights.items())
    trained(recipe, method, 1)
    assert not all(torch.equal(mine[name], each) for name, each in first_weights.items())


@pytest.mark.parametrize(
    ("overrides", "told"),
    [
        (["loss.perceptual=1"], "loss: perceptual=1: needs features, a classifier"),
        (["loss.features=judge"], "loss: features=judge: is looked at only where perceptual is"),
        (["loss.perceptual=-1", "loss.features=judge"], "loss.perceptual=-1"),
        (["loss.absolute=0"], "all weights of the loss are 0"),
        (["loss.absolute=0", "loss.adversarial=1"], "adversarial=1: asks for no likeness"),
    ],
)
def test_weights_and_helpers_that_do_not_go_together_are_refused_by_name(overrides, told):
    with pytest.raises(InputError, match=told):
        recipes.named("deblocker").override(overrides)


def test_features_are_a_classifiers():
    recipe = tiny("deblocker", *PERCEPTUAL)
    recipe.refuse_helper("features", tiny("classifier", "data.channels=1", "data.size=32"))
    with pytest.raises(InputError, match="deblocker models cannot classify"):
        recipe.refuse_helper("features", tiny("deblocker"))
    assert recipe.helped_by() == {"features": "x"}
    assert recipe.helped_by(training=False) == {}


# perceptual


def by_hooks(network: Plain, images: torch.Tensor) -> list[torch.Tensor]:
    """What the second group normalisation of each stage gives in a pass to the classes."""
    norms = [layer for layer in network.body if isinstance(layer, nn.GroupNorm)][1::2]
    seen: list[torch.Tensor] = []
    hooks = [
        norm.register_forward_hook(lambda _, given, made: seen.append(made.clone()))
        for norm in norms
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    return seen


def test_features_are_those_before_activation_and_pooling_of_each_stage():
    network = classifier(3)
    images = torch.rand(2, 3, 21, 30) * 2 - 1
    maps = Perception(network)(images)
    assert [list(each.shape) for each in maps] == [
        [2, 8, 21, 30],
        [2, 16, 10, 15],
        [2, 32, 5, 7],
    ]
    for got, expected in zip(maps, by_hooks(network, images), strict=True):
        torch.testing.assert_close(got, expected)


def test_images_are_brought_to_the_channels_of_the_classifier():
    gray, colour = torch.rand(2, 1, 16, 16), torch.rand(2, 3, 16, 16)
    assert with_channels(colour, 3) is colour
    assert torch.equal(with_channels(gray, 3), gray.repeat(1, 3, 1, 1))
    expected = 0.299 * colour[:, 0] + 0.587 * colour[:, 1] + 0.114 * colour[:, 2]
    torch.testing.assert_close(with_channels(colour, 1)[:, 0], expected)
    torch.testing.assert_close(with_channels(with_channels(gray, 3), 1), gray)


def test_the_loss_of_features_is_a_mean_over_layers_of_means():
    ours = [torch.zeros(2, 3, 4, 4), torch.zeros(2, 5, 2, 2, dtype=torch.bfloat16)]
    theirs = [torch.full((2, 3, 4, 4), 0.5), torch.full((2, 5, 2, 2), -0.25)]
    loss = losses.features_l1(ours, theirs)
    assert loss.item() == 0.375
    assert loss.dtype == torch.float32


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("seen_in", [1, 3])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_perceptual_gradient_reaches_the_restorer_and_not_the_classifier(
    channels, seen_in, precision
):
    recipe = tiny(
        "deblocker", *PERCEPTUAL, "loss.absolute=0", f"data.channels={channels}",
        "train.warmup=0", f"train.precision={precision}",
    )  # fmt: skip
    network = classifier(seen_in)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    method = helped(recipe, started(recipe), network)
    losses_of = trained(recipe, method, 3)
    assert all(torch.equal(before[name], each) for name, each in network.state_dict().items())
    assert all(p.grad is None and not p.requires_grad for p in network.parameters())
    assert not any(module.training for module in network.modules())
    assert any(p.grad.abs().max() > 0 for p in method.networks["restorer"].parameters())
    for each in losses_of:
        assert each["loss_pixels"] == 0
        assert each["loss_perceptual"] == each["loss"] > 0
        assert each["loss"].dtype == torch.float32
    assert not any("classifier" in name for name in method.snapshot().training)


def test_the_perceptual_gradient_is_that_of_the_features_difference():
    recipe = tiny("deblocker", *PERCEPTUAL, "train.precision=float32", "loss.absolute=0.5")
    network = classifier(3)
    method, other = helped(recipe, started(recipe), network), started(recipe)
    (reported,) = trained(recipe, method, 1)
    batch, restorer = batch_at(recipe, 0), other.networks["restorer"]
    clean = batch.rows["image"]
    restored = restorer(*recipe.degraded(clean, batch.keys))
    layers = zip(by_hooks(network, restored), by_hooks(network, clean), strict=True)
    perceptual = sum((a - b).abs().mean() for a, b in layers) / 3
    loss = 0.5 * (restored - clean).abs().mean() + recipe.loss.perceptual * perceptual
    loss.backward()
    torch.testing.assert_close(reported["loss"], loss.detach())
    for got, expected in zip(
        method.networks["restorer"].parameters(), restorer.parameters(), strict=True
    ):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-6)


# adversarial


def test_a_step_moves_both_networks_and_tells_each_part_of_the_loss():
    recipe = second_stage("train.warmup=0")
    method = helped(recipe, started(recipe))
    assert isinstance(method, AdversarialRestoration)
    before = method.snapshot()
    steps = trained(recipe, method, 4)
    after = method.snapshot().training
    assert list(method.averages) == ["restorer"]
    assert not any(name.startswith("discriminator") for name in before.weights)
    parameters = {
        f"{n}.{key}" for n, net in method.networks.items() for key, _ in net.named_parameters()
    }
    assert [
        key for key in sorted(parameters) if torch.equal(before.training[key], after[key])
    ] == []
    assert all(p.requires_grad for net in method.networks.values() for p in net.parameters())
    for told in steps:
        assert set(told) == {
            "loss", "loss_pixels", "loss_perceptual", "loss_adversarial",
            "loss_d", "logit_real", "logit_fake",
        }  # fmt: skip
        parts = sum(told[f"loss_{name}"] for name in ("pixels", "perceptual", "adversarial"))
        torch.testing.assert_close(told["loss"], parts)


def test_the_gradients_of_both_networks_are_those_of_their_losses():
    recipe = tiny("deblocker", *ADVERSARIAL, "train.precision=float32", "train.lr=1e-12")
    method, other = started(recipe), started(recipe)
    (told,) = trained(recipe, method, 1)
    batch, (restorer, discriminator) = batch_at(recipe, 0), other.networks.values()
    clean = batch.rows["image"]
    restored = restorer(*recipe.degraded(clean, batch.keys))
    softplus = nn.functional.softplus
    real, fake = discriminator(torch.cat([clean, restored.detach()])).chunk(2)
    loss_d = softplus(-real).mean() + softplus(fake).mean()
    loss_d.backward()
    torch.testing.assert_close(told["loss_d"], loss_d.detach())
    for (name, got), expected in zip(
        method.networks["discriminator"].named_parameters(),
        discriminator.parameters(),
        strict=True,
    ):
        tolerance = 1e-4 * expected.grad.abs().max().item()
        torch.testing.assert_close(
            got.grad, expected.grad, rtol=1e-3, atol=tolerance, msg=lambda t, n=name: f"{n}: {t}"
        )
    deceived = softplus(-discriminator(restored)).mean()
    loss = (restored - clean).abs().mean() + recipe.loss.adversarial * deceived
    restorer.zero_grad()
    loss.backward()
    torch.testing.assert_close(told["loss"], loss.detach())
    for got, expected in zip(
        method.networks["restorer"].parameters(), restorer.parameters(), strict=True
    ):
        torch.testing.assert_close(got.grad, expected.grad, rtol=1e-3, atol=1e-5)


def test_the_discriminator_learns_to_tell_restored_images_from_clean_ones():
    recipe = tiny(
        "deblocker", *ADVERSARIAL, "train.warmup=0", "train.lr=1e-3", "train.images=8000",
        "degradations=[{kind: noise, low: 40, high: 40}]",
        "evaluation.tests={a: [{kind: noise}]}",
    )  # fmt: skip
    method, batch = started(recipe), batch_at(recipe, 0)
    told = [method.update(batch, Alone()) for _ in range(30)]
    assert told[-1]["loss_d"] < 0.8 * told[0]["loss_d"]
    assert told[-1]["logit_real"] > told[-1]["logit_fake"]


def test_pairs_are_told_apart_from_their_targets():
    recipe = tiny("deblocker", *ADVERSARIAL, "train.precision=float32")
    method = started(recipe)
    batch = batch_at(recipe, 0)
    batch.rows["target"] = torch.ones_like(batch.rows["image"])
    told = method.update(batch, Alone())
    network = started(recipe).networks["discriminator"]
    with torch.no_grad():
        expected = network(batch.rows["target"]).mean()
    assert told["logit_real"].item() == pytest.approx(expected.item(), abs=1e-5)


@pytest.mark.parametrize("name", ["upscaler", "inpainter", "restorer"])
def test_other_restorers_have_a_second_stage_too(name):
    recipe = tiny(name, *ADVERSARIAL, *PERCEPTUAL)
    (told,) = trained(recipe, helped(recipe, started(recipe)), 1)
    assert all(value.isfinite() for value in told.values())


# as every method


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_restored_snapshot_goes_on_bit_for_bit(precision):
    recipe = second_stage(f"train.precision={precision}")
    method = helped(recipe, started(recipe))
    trained(recipe, method, 2)
    snapshot = method.snapshot()
    trained(recipe, method, 2)
    torch.manual_seed(99)
    other = helped(recipe, recipe.method(CPU))
    assert differing(method, other)
    other.restore(snapshot)
    trained(recipe, other, 2)
    assert differing(method, other) == []


def test_compiled_networks_train_as_plain_ones_do(monkeypatch):
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend=counter))
    torch._dynamo.reset()
    plain, compiled = (
        second_stage("train.precision=float32", f"train.compile={fast}") for fast in (False, True)
    )
    expected, got = helped(plain, started(plain)), helped(compiled, started(compiled))
    for before, after in zip(trained(plain, expected, 3), trained(compiled, got, 3), strict=True):
        for key, loss in before.items():
            torch.testing.assert_close(after[key], loss, rtol=1e-2, atol=1e-3)
    # the restorer, and the discriminator with gradients of its own and without
    assert counter.frame_count == 3
