"""Methods, every recipe's: one step's effects, exact snapshots, averages, bounded gradients."""

from contextlib import closing, nullcontext

import pytest
import torch
from tiny_recipes import every_recipe, tiny
from torch import nn
from training_steps import (
    CPU,
    batch_at,
    differing,
    loader_of,
    lost_by_resuming,
    started,
    trained,
)

from genimg.contracts import Batch, Sync
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.schedule import average_decay
from genimg.training.kernels import kernels
from genimg.training.method import Method, Part, parameters_of
from genimg.training.sync import Alone

NORMALISED = (
    "dcgan", "deep-conv-gan", "lsgan", "wgan", "wgan-gp", "sngan", "sagan", "biggan-small",
    "stylegan", "dncnn", "pix2pix", "adain", "classifier", "segmenter", "detector",
)  # fmt: skip


@every_recipe
def test_a_step_moves_every_network_counts_its_images_and_tells_finite_losses(name):
    recipe = tiny(name, "train.warmup=0")
    method = started(recipe)
    before = method.snapshot()
    losses = trained(recipe, method, 4)  # a network that starts as the identity wakes up by layers
    assert method.seen == 4 * recipe.train.batch_size
    assert losses[0].keys() == losses[1].keys() != set()
    for value in (each for step in losses for each in step.values()):
        assert value.shape == ()
        assert value.isfinite()
        assert not value.requires_grad
    for network_name, network in method.networks.items():
        still = [
            key
            for key, parameter in network.named_parameters()
            if torch.equal(parameter, before.training[f"{network_name}.{key}"])
        ]
        if name in ("wgan-gp", "progan") and network_name == "discriminator":
            last = [*network.state_dict()][-1]  # a bias, which is in both means
            still = [key for key in still if key != last]
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
        augment=lambda stored, keys, seen: stored,
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
def test_a_restored_snapshot_goes_on_bit_for_bit(name):
    assert lost_by_resuming(tiny(name, "train.precision=bfloat16"), 2) == []


@every_recipe
def test_it_does_so_in_float32(name):
    assert lost_by_resuming(tiny(name, "train.precision=float32"), 2) == []


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
            now = network.get_buffer(key)
            if key.endswith(("running_mean", "running_var")):  # of batches, by weights of the time
                now = before[f"{network_name}.{key}"] * decay + now * (1 - decay)
                torch.testing.assert_close(buffer, now, rtol=1e-5, atol=1e-7)
            else:
                assert torch.equal(buffer, now)


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
    learnt = (p for p in parameters_of(method.networks[network]) if p.grad is not None)
    return torch.cat([p.grad.flatten() for p in learnt])


@every_recipe
def test_clipping_bounds_the_gradient_that_the_optimizer_sees_and_keeps_its_direction(name):
    adam = ["train.optimizer=adam", "train.weight_decay=0"]
    if name == "wgan":
        adam += ["loss.weight_clip=1"]  # or the critic would hardly have a slope
    free = started(tiny(name, *adam, "train.clip_norm=null"))
    bound = started(tiny(name, *adam, "train.clip_norm=1e-3"))
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


@pytest.mark.parametrize(
    "name",
    [
        "flow",
        "conv-vae",
        "iwae",
        "ffdnet",
        "dncnn",
        "drunet",
        "classifier",
        "segmenter",
        "detector",
    ],
)
def test_the_loss_falls_on_a_batch_that_is_shown_again_and_again(name):
    """Those of GANs need not; those of other restorers fall in test_restorers."""
    recipe = tiny(name, "train.images=8000", "train.warmup=0")
    method, batch = started(recipe), batch_at(recipe, 0)
    losses = [method.update(batch, Alone())["loss"] for _ in range(25)]
    assert losses[-1] < losses[0]


@every_recipe
def test_what_a_loader_draws_ahead_is_what_a_step_draws_itself(name):
    recipe = tiny(name)
    ahead, itself = started(recipe), started(recipe)
    with closing(iter(loader_of(recipe, draw=ahead.drawn))) as batches:
        for _ in range(3):
            ahead.update(next(batches), Alone())
    trained(recipe, itself, 3)
    assert not differing(ahead, itself)
