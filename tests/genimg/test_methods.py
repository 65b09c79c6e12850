"""Methods, every recipe's: one step's effects, exact snapshots, schedules, averages, penalties."""

import math
from contextlib import nullcontext

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_recipes import tiny
from torch import nn

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.recipe import Recipe
from genimg.recipes import RECIPES
from genimg.schedule import Train, average_decay, learning_rate
from genimg.training.kernels import kernels
from genimg.training.method import Method, Part
from genimg.training.sync import Alone

CPU = torch.device("cpu")
NORMALISED = ("dcgan", "lsgan", "wgan-gp", "dncnn", "segmenter", "detector")
every_recipe = pytest.mark.parametrize("name", RECIPES)


def started(recipe: Recipe) -> Method:
    torch.manual_seed(recipe.train.seed)
    return recipe.method(CPU)


def batch_at(recipe: Recipe, seen: int) -> Batch:
    loader = Loader(
        open_dataset(recipe.data, recipe.wants),
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        device=CPU,
        augment=lambda images, keys: images,
    )
    return loader.batch(seen)


def trained(recipe: Recipe, method: Method, steps: int) -> list[dict[str, torch.Tensor]]:
    return [method.update(batch_at(recipe, method.seen), Alone()) for _ in range(steps)]


def differing(one: Method, other: Method) -> list[str]:
    """Names of what two methods' snapshots do not have in common, bit for bit."""
    a, b = one.snapshot(), other.snapshot()
    names = [
        name
        for mine, theirs in ((a.weights, b.weights), (a.training, b.training))
        for name in mine.keys() | theirs.keys()
        if name not in mine or name not in theirs or not torch.equal(mine[name], theirs[name])
    ]
    return names + (["progress"] if a.progress != b.progress else [])


@every_recipe
def test_a_step_moves_every_network_counts_its_images_and_tells_finite_losses(name):
    recipe = tiny(name)
    method = started(recipe)
    before = method.snapshot()
    losses = trained(recipe, method, 2)  # two: a network that starts as the identity wakes up
    assert method.seen == 2 * recipe.train.batch_size
    assert losses[0].keys() == losses[1].keys() != set()
    for value in (*losses[0].values(), *losses[1].values()):
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad
    for network_name, network in method.networks.items():
        still = [
            key
            for key, parameter in network.named_parameters()
            if torch.equal(parameter, before.training[f"{network_name}.{key}"])
        ]
        if (name, network_name) == ("wgan-gp", "discriminator"):
            still.pop()  # the last bias, which is in both means
        assert still == []
        assert all(parameter.requires_grad for parameter in network.parameters())


@every_recipe
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_losses_are_float32_whatever_the_networks_compute_in(name, precision):
    recipe = tiny(name, f"train.precision={precision}")
    (losses,) = trained(recipe, started(recipe), 1)
    assert {loss.dtype for loss in losses.values()} == {torch.float32}
    # a loss that was rounded to bfloat16 on its way has no bits below its first eight
    fine = [loss for loss in losses.values() if loss != loss.to(torch.bfloat16).float()]
    assert fine


@every_recipe
def test_a_step_reads_nothing_back_from_its_device(name, monkeypatch):
    """Which would make it wait for a GPU; `meta`, of which nothing can be read, stands in for one.

    It has neither autocast nor fused optimizers.
    """
    adam = torch.optim.Adam
    monkeypatch.setattr(torch, "autocast", lambda *args, **kwargs: nullcontext())
    monkeypatch.setattr(torch.optim, "Adam", lambda *args, fused, **kwargs: adam(*args, **kwargs))
    meta = torch.device("meta")
    recipe = tiny(name, "train.clip_norm=1")
    method = recipe.method(meta)
    loader = Loader(
        open_dataset(recipe.data, recipe.wants),
        batch_size=recipe.train.batch_size,
        seed=0,
        device=meta,
        augment=lambda images, keys: images,
    )
    for _ in range(2):
        losses = method.update(loader.batch(method.seen), Alone())
    assert {loss.device for loss in losses.values()} == {meta}


@pytest.mark.parametrize("deterministic", [True, False])
def test_the_choice_of_kernels_on_gpus_ends_with_the_step(deterministic, monkeypatch):
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # is set otherwise, for good
    cudnn = torch.backends.cudnn
    before = cudnn.benchmark, cudnn.deterministic
    with kernels(deterministic, torch.device("cuda")):
        assert cudnn.benchmark is not deterministic
        assert torch.are_deterministic_algorithms_enabled() is deterministic
    assert (cudnn.benchmark, cudnn.deterministic) == before
    assert not torch.are_deterministic_algorithms_enabled()
    with kernels(True, CPU):
        assert not torch.are_deterministic_algorithms_enabled()


@every_recipe
def test_after_a_step_networks_know_of_no_workers(name):
    """So that they can be copied, compared and saved by those who know of none."""
    recipe = tiny(name)
    method = started(recipe)

    class OneOfTwo(Alone):
        world = 2

    method.update(batch_at(recipe, 0), OneOfTwo())
    layers = [module for n in method.networks.values() for module in n.modules()]
    divided = [layer for layer in layers if hasattr(layer, "division")]
    assert bool(divided) == (name in NORMALISED)
    assert all(layer.division is None for layer in divided)


@every_recipe
@pytest.mark.parametrize("precision", ["auto", "float32", "bfloat16"])
def test_a_restored_snapshot_goes_on_bit_for_bit(name, precision):
    recipe = tiny(name, f"train.precision={precision}")
    method = started(recipe)
    trained(recipe, method, 2)
    snapshot = method.snapshot()
    trained(recipe, method, 2)

    torch.manual_seed(99)
    other = recipe.method(CPU)
    assert differing(method, other)
    other.restore(snapshot)
    assert other.seen == 2 * recipe.train.batch_size
    trained(recipe, other, 2)
    assert differing(method, other) == []


@every_recipe
def test_a_snapshot_is_a_copy_that_training_leaves_alone(name):
    recipe = tiny(name)
    method = started(recipe)
    trained(recipe, method, 1)
    snapshot = method.snapshot()
    kept = {key: tensor.clone() for key, tensor in snapshot.training.items()}
    trained(recipe, method, 1)
    assert all(torch.equal(snapshot.training[key], tensor) for key, tensor in kept.items())
    assert all(tensor.is_contiguous() for tensor in snapshot.training.values())
    assert snapshot.progress["seen"] == recipe.train.batch_size


@every_recipe
def test_a_snapshot_that_lacks_a_tensor_is_not_restored(name):
    recipe = tiny(name)
    snapshot = started(recipe).snapshot()
    snapshot.training.pop(next(iter(snapshot.training)))
    with pytest.raises(RuntimeError, match="Missing key"):
        started(recipe).restore(snapshot)


@every_recipe
def test_averages_follow_by_the_decay_of_the_step(name):
    recipe = tiny(name, "train.ema_half_life=20")
    method = started(recipe)
    trained(recipe, method, 1)
    before = method.snapshot().weights
    trained(recipe, method, 1)
    decay = average_decay(20, 16, 8)
    for network_name, average in method.averages.items():
        network = method.networks[network_name]
        for key, parameter in average.named_parameters():
            expected = before[f"{network_name}.{key}"] * decay
            expected = expected + network.get_parameter(key) * (1 - decay)
            torch.testing.assert_close(parameter, expected, rtol=1e-5, atol=1e-7)
        for key, buffer in average.named_buffers():
            assert torch.equal(buffer, network.get_buffer(key))


@every_recipe
def test_without_averaging_inference_gets_the_trained_weights(name):
    recipe = tiny(name, "train.ema_half_life=0")
    method = started(recipe)
    trained(recipe, method, 2)
    snapshot = method.snapshot()
    assert all(
        torch.equal(snapshot.training[key], value) for key, value in snapshot.weights.items()
    )


def gradient(method: Method, network: str) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in method.networks[network].parameters()])


@every_recipe
def test_clipping_bounds_the_gradient_that_the_optimizer_sees_and_keeps_its_direction(name):
    free = started(tiny(name, "train.clip_norm=null"))
    bound = started(tiny(name, "train.clip_norm=1e-3"))
    for method in (free, bound):
        trained(tiny(name), method, 1)
    for network_name, optimizer in bound.optimizers.items():
        clipped = gradient(bound, network_name)
        assert gradient(free, network_name).norm() > 1e-3
        assert clipped.norm().item() == pytest.approx(1e-3, rel=1e-3)
        moments = torch.cat([s["exp_avg"].flatten() for s in optimizer.state.values()])
        beta = optimizer.param_groups[0]["betas"][0]
        torch.testing.assert_close(moments, clipped * (1 - beta))
        if len(bound.networks) == 1:  # or the steps before have changed what this one is asked
            scaled = gradient(free, network_name) * (1e-3 / gradient(free, network_name).norm())
            torch.testing.assert_close(clipped, scaled, rtol=1e-3, atol=1e-9)


@every_recipe
def test_the_seed_decides_and_another_seed_differs(name):
    one, same = tiny(name), tiny(name)
    methods = [started(recipe) for recipe in (one, same, tiny(name, "train.seed=1"))]
    assert differing(methods[0], methods[1]) == []
    assert differing(methods[0], methods[2])


SCHEDULES = [
    # decay, warmup, seen, rate / train.lr; 1000 images, 100 a step
    ("constant", 0, 0, 1.0),
    ("constant", 0, 999, 1.0),
    ("constant", 400, 0, 0.2),  # the first step already moves
    ("constant", 400, 300, 0.8),
    ("constant", 400, 400, 1.0),
    ("linear", 0, 0, 1.0),
    ("linear", 0, 250, 0.75),
    ("linear", 0, 1000, 0.0),
    ("linear", 0, 1100, 0.0),  # a run that is made longer later may look back
    ("linear", 400, 300, 0.8 * 0.7),
    ("cosine", 0, 0, 1.0),
    ("cosine", 0, 250, 0.5 + 0.25 * math.sqrt(2)),
    ("cosine", 0, 500, 0.5),
    ("cosine", 0, 1000, 0.0),
]


@pytest.mark.parametrize(("decay", "warmup", "seen", "factor"), SCHEDULES)
def test_learning_rate_schedule(decay, warmup, seen, factor):
    train = Train(images=1000, batch_size=100, lr=0.5, warmup=warmup, decay=decay)
    assert learning_rate(train, seen) == pytest.approx(0.5 * factor, abs=1e-12)


@every_recipe
def test_optimizers_step_at_the_rate_of_the_schedule(name):
    recipe = tiny(name, "train.decay=linear", "train.warmup=0", "train.lr=0.001")
    method = started(recipe)
    trained(recipe, method, 3)
    rates = [group["lr"] for o in method.optimizers.values() for group in o.param_groups]
    assert rates == [pytest.approx(0.001 * (1 - 16 / 64))] * len(method.optimizers)


def test_averages_half_life_ramps_up_to_its_value():
    assert average_decay(1000, seen=100_000, step=1000) == pytest.approx(0.5)
    assert average_decay(1000, seen=100_000, step=2000) == pytest.approx(0.25)
    assert average_decay(1000, seen=20_000, step=1000) == pytest.approx(0.5)  # 5 % are 1000
    assert average_decay(1000, seen=10_000, step=500) == pytest.approx(0.5)  # 5 % are 500
    assert average_decay(0, seen=10_000, step=500) == 0


@given(half_life=st.integers(0, 10**6), seen=st.integers(1, 10**8), step=st.integers(1, 10**4))
def test_averages_decay_is_a_decay_and_composes(half_life, seen, step):
    decay = average_decay(half_life, seen, step)
    assert 0 <= decay < 1
    assert average_decay(half_life, seen, 2 * step) == pytest.approx(decay**2, rel=1e-6, abs=1e-300)


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


def test_parts_learn_at_rates_of_their_own():
    recipe = tiny("dcgan", "train.decay=constant", "train.lr=0.01", "train.warmup=0")
    batch = batch_at(recipe, 0)
    slow, fast = nn.Conv2d(3, 1, 3), nn.Conv2d(3, 1, 3)

    class Two(Method):
        def learn(self, batch: Batch, sync: Sync) -> dict[str, torch.Tensor]:
            for name, network in self.networks.items():
                self.step(name, network(batch.rows["image"]).mean(), batch, sync)
            self.finish(batch)
            return {}

    method = Two({"slow": Part(slow, rate=0.1), "fast": Part(fast, kept=False)}, recipe.train, CPU)
    before = {name: network.bias.clone() for name, network in method.networks.items()}
    method.update(batch, Alone())
    moved = {name: (method.networks[name].bias - before[name]).abs().item() for name in before}
    # Adam's first step is as long as its rate
    assert moved == pytest.approx({"slow": 0.001, "fast": 0.01}, rel=1e-3)
    assert list(method.averages) == ["slow"]


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
    noisy, sigma = recipe.degrade(batch.rows["image"], batch.keys)
    assert (sigma == 25).all()
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


@pytest.mark.parametrize("name", [name for name in RECIPES if name != "dcgan"])
def test_the_loss_falls_on_a_batch_that_is_shown_again_and_again(name):
    recipe = tiny(name, "train.images=8000", "train.warmup=0")
    method, batch = started(recipe), batch_at(recipe, 0)
    losses = [method.update(batch, Alone()).get("loss") for _ in range(25)]
    if losses[0] is None:
        pytest.skip(f"the losses of {name} need not fall")
    assert losses[-1] < losses[0]
