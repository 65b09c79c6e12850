"""Workers agree: real processes, whose gradients, buffers and weights are those of one worker.

Three processes are started once. As three workers, whose shares are uneven, they take the same few
steps of every recipe, and then two of them as two those of some; they leave what they hold in
files, which the tests compare.
"""

import os
from functools import cache
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.distributed.nn  # before there is a group: its default arguments would keep it alive
from gang import gang
from safetensors.torch import load_file, save_file
from second_stages import ADVERSARIAL, PERCEPTUAL, helped
from tiny_recipes import tiny
from torch import nn

from genimg.data.augment import augmenting
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.recipe import Recipe
from genimg.recipes import RECIPES
from genimg.training.method import Method
from genimg.training.sync import Alone, Collective

CPU = torch.device("cpu")
STEPS = 2
# Ten images: uneven shares for three workers. Two channels a group, or group normalisation would
# cancel some biases' gradients to noise, which Adam makes as large as any other step.
SHAPE = ("train.batch_size=10", "train.precision=float32", "model.width=16")
VARIANTS = {name: (name, *SHAPE) for name in RECIPES} | {
    "progan": ("progan", *SHAPE, "train.batch_size=12"),
    "stylegan": ("stylegan", *SHAPE, "train.batch_size=12"),
    # not of masks: over them a lone worker's normalisation is too rough (see test_sync_exact)
    "pix2pix": ("pix2pix", *SHAPE, "model.depth=1", "task=night"),
    "classifier-plain": ("classifier", "model.network=plain", *SHAPE),
    "classifier-mixed": (
        "classifier",
        *SHAPE,
        "data.augmentations=[{kind: mixup, begin: 0.5}, {kind: cutmix, probability: 0.5}]",
    ),
    "detector-pasted": (
        "detector",
        *SHAPE,
        "model.depth=1",
        "data.augmentations=[{kind: copy-paste}]",
    ),
    "dcgan-plain": ("dcgan", *SHAPE, "model.normalise=false"),
    "dcgan-lazy": ("dcgan", *SHAPE, "model.normalise=false", "loss.r1_every=2"),
    "dcgan-no-r1": ("dcgan", *SHAPE, "model.normalise=false", "loss.r1=0"),
    "dcgan-by-class": ("dcgan", *SHAPE, "model.normalise=false", "model.conditional=true"),
    "dcgan-augmented": (
        "dcgan",
        *SHAPE,
        "model.normalise=false",
        "loss.augment=[colour,translation,cutout]",
    ),
    "dcgan-packed": ("dcgan", *SHAPE, "model.normalise=false", "loss.pack=2"),
    "dcgan-compared": (
        "dcgan",
        *SHAPE,
        "model.normalise=false",
        "model.minibatch_std=true",
        "train.batch_size=12",
    ),
    "dcgan-adaptive": (
        "dcgan",
        *SHAPE,
        "model.normalise=false",
        "loss.augment=[translation]",
        "loss.adaptive=0.1",
        "loss.feature_matching=0.01",
    ),
    "r3gan-by-class": ("r3gan", *SHAPE, "model.conditional=true"),
    "flow-by-class": ("flow", *SHAPE, "model.conditional=true"),
    "conv-vae-free": ("conv-vae", *SHAPE, "model.conditional=true", "loss.free_bits=0.001"),
    "conv-vae-mixture": ("conv-vae", *SHAPE, "model.mixture=3"),
    "iwae-bits": ("iwae", *SHAPE, "loss.likelihood=bernoulli", "loss.binarise=dynamic"),
    "deblocker-second-stage": ("deblocker", *SHAPE, *ADVERSARIAL, *PERCEPTUAL),
    "dcgan-bfloat16": ("dcgan", *SHAPE, "train.precision=bfloat16"),
}
# Whose shares are even: one of each method.
OF_TWO = (
    "dcgan", "dcgan-plain", "dcgan-lazy", "dcgan-no-r1", "dcgan-compared", "dcgan-bfloat16", "flow",
    "conv-vae", "ffdnet", "classifier", "conv-mixer", "pix2pix",
)  # fmt: skip
WORLDS = {3: tuple(VARIANTS), 2: OF_TWO}
CASES = [(variant, world) for world, variants in WORLDS.items() for variant in variants]
every_case = pytest.mark.parametrize(("variant", "world"), CASES)
every_exact_case = pytest.mark.parametrize(
    ("variant", "world"), [case for case in CASES if "bfloat16" not in case[0]]
)
both_worlds = pytest.mark.parametrize("world", [2, 3])


def held(method: Method) -> dict[str, torch.Tensor]:
    """Gradients, buffers, weights and averages after a step."""
    tensors = method.snapshot().weights
    tensors = {f"average {name}": tensor for name, tensor in tensors.items()}
    tensors |= {f"state {name}": tensor for name, tensor in method.state.items()}
    for network_name, network in method.networks.items():
        for name, parameter in network.named_parameters():
            if parameter.grad is not None:  # but where a network has not grown yet
                tensors[f"gradient {network_name}.{name}"] = parameter.grad
            tensors[f"weight {network_name}.{name}"] = parameter
        for name, buffer in network.named_buffers():
            tensors[f"buffer {network_name}.{name}"] = buffer
    return {name: tensor.detach().contiguous().clone() for name, tensor in tensors.items()}


def steps(recipe: Recipe, sync) -> dict[str, torch.Tensor]:
    """What is held after each of a few steps, and the workers' mean losses."""
    torch.manual_seed(0)
    method = recipe.method(CPU)
    if recipe.helped_by():
        helped(recipe, method)
    loader = Loader(
        open_dataset(recipe.data, recipe.columns),
        batch_size=recipe.train.batch_size,
        seed=0,
        device=CPU,
        augment=lambda stored, keys, seen: stored,
        rank=sync.rank,
        world=sync.world,
        together=recipe.together,
    )
    if recipe.data.augmentations:
        loader.augment = augmenting(recipe)
    tensors = {}
    for step in range(STEPS):
        batch = loader.batch(method.seen)
        losses = method.update(batch, sync)
        told = {f"loss {k}": sync.mean(v.float(), batch.share) for k, v in losses.items()}
        tensors |= {f"{step} {name}": tensor for name, tensor in (held(method) | told).items()}
    return tensors


def worker(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    os.environ["GLOO_SOCKET_IFNAME"] = "lo"
    for world, variants in WORLDS.items():
        if rank >= world:
            return
        dist.init_process_group(
            "gloo", init_method=f"file://{folder}/store-{world}", rank=rank, world_size=world
        )
        sync = Collective()
        for variant in variants:
            name, *overrides = VARIANTS[variant]
            save_file(steps(known(name, overrides), sync), folder / f"{variant}-{world}-{rank}")
        save_file(sums(sync), folder / f"sums-{world}-{rank}")
        dist.destroy_process_group()


def known(name: str, overrides: list[str]) -> Recipe:
    """The tiny recipe with those overrides whose keys it has."""
    keys = tiny(name).keys()
    return tiny(name, *(text for text in overrides if text.partition("=")[0] in keys))


def sums(sync: Collective) -> dict[str, torch.Tensor]:
    """Gradients of several types, some of them larger than a bucket, summed over the workers."""
    share = (sync.rank + 1) / sum(range(1, sync.world + 1))
    large = nn.Parameter(torch.empty(7_000_000))
    small = nn.Parameter(torch.empty(3, 2))
    double = nn.Parameter(torch.empty(2, dtype=torch.float64))
    images = nn.Parameter(torch.empty(2, 3, 4, 4).to(memory_format=torch.channels_last))
    unused = nn.Parameter(torch.empty(2))
    for parameter in (large, small, double, images):
        parameter.grad = torch.full_like(parameter, sync.rank + 1.0)
    small.grad = (sync.rank + 1.0) * torch.arange(6.0).reshape(2, 3).T  # not contiguous
    images.grad = images.grad * torch.arange(96.0).reshape(2, 3, 4, 4)
    sync.gradients([large, small, double, unused, images], share)
    assert unused.grad is None
    return {
        "large": large.grad[::1_000_000].clone(),
        "small": small.grad.contiguous(),
        "double": double.grad,
        "images": images.grad.contiguous(),
        "mean": sync.mean(torch.tensor([sync.rank + 1.0, 7.0]), share),
    }


@pytest.fixture(scope="module")
def left(tmp_path_factory) -> Path:
    return gang(worker, tmp_path_factory.mktemp("gang"), 3)


@cache
def alone_with_all(variant: str) -> dict[str, torch.Tensor]:
    """What one worker holds, which has the whole batch."""
    name, *overrides = VARIANTS[variant]
    return steps(known(name, overrides), Alone())


@every_case
def test_after_every_step_all_workers_hold_the_same_bits(left, variant, world):
    first, *others = (load_file(left / f"{variant}-{world}-{rank}") for rank in range(world))
    assert first
    for other in others:
        assert first.keys() == other.keys()
        assert [name for name in first if not torch.equal(first[name], other[name])] == []


@every_exact_case
def test_together_they_do_what_one_worker_does_with_the_whole_batch(left, variant, world):
    name, *overrides = VARIANTS[variant]
    recipe = known(name, overrides)
    alone, together = alone_with_all(variant), load_file(left / f"{variant}-{world}-0")
    assert alone.keys() == together.keys()
    for key, expected in alone.items():
        if key.startswith("0 gradient"):  # before rounding has been through Adam
            # what meets in a segmenter's trunk, or in the last bias of a critic, cancels
            part = {"segmenter": 1e-4, "progan": 1e-3}.get(variant, 1e-5)
            tolerance = {"rtol": 1e-4, "atol": part * expected.abs().max().item()}
        elif " gradient " in key:
            tolerance = {"rtol": 1e-2, "atol": 1e-2 * expected.abs().max().item()}
        else:
            # without momentum Adam steps as far for noise as for a gradient
            rough = getattr(getattr(recipe, "loss", None), "beta1", None) == 0
            # and importance weights are exponentials of what is rounded
            rough = rough or variant in ("dcgan-augmented", "iwae", "iwae-bits")
            part = 0.2 if rough else 0.02
            tolerance = {"rtol": 1e-4, "atol": part * recipe.train.lr}
        torch.testing.assert_close(
            together[key], expected, **tolerance, msg=lambda text, key=key: f"{key}: {text}"
        )


@both_worlds
def test_in_bfloat16_they_do_so_as_nearly_as_it_rounds(left, world):
    """Batch statistics of a worker's own share would put the generator's 39 % off (of two)."""
    alone = alone_with_all("dcgan-bfloat16")
    together = load_file(left / f"dcgan-bfloat16-{world}-0")
    for network in ("generator", "discriminator"):
        names = [name for name in alone if name.startswith(f"0 gradient {network}")]
        expected = torch.cat([alone[name].flatten() for name in names])
        got = torch.cat([together[name].flatten() for name in names])
        assert (got - expected).norm() < 0.12 * expected.norm()


def test_lazy_regularisation_is_told_apart_by_its_steps(left):
    lazy, without, always = (
        load_file(left / f"dcgan-{kind}-2-0") for kind in ("lazy", "no-r1", "plain")
    )
    key = "0 gradient discriminator.to_logit.weight"
    assert not torch.equal(lazy[key], without[key])
    assert not torch.equal(lazy[key], always[key])


@both_worlds
def test_sums_are_weighted_by_the_workers_shares(left, world):
    ranks = range(1, world + 1)
    mean = sum(rank * rank for rank in ranks) / sum(ranks)
    for rank in range(world):
        got = load_file(left / f"sums-{world}-{rank}")
        expected = {
            "large": torch.full((7,), mean),
            "small": mean * torch.arange(6.0).reshape(2, 3).T,
            "double": torch.full((2,), mean, dtype=torch.float64),
            "images": mean * torch.arange(96.0).reshape(2, 3, 4, 4),
            "mean": torch.tensor([mean, 7.0]),
        }
        for name, tensor in expected.items():
            torch.testing.assert_close(got[name], tensor)


def test_a_lone_worker_keeps_what_it_has():
    parameter = nn.Parameter(torch.ones(2))
    parameter.grad = torch.full((2,), 3.0)
    sync = Alone()
    sync.gradients([parameter], 1.0)
    assert torch.equal(parameter.grad, torch.full((2,), 3.0))
    value = (parameter * 2).sum()
    assert sync.mean(value, 1.0) == 4
    assert not sync.mean(value, 1.0).requires_grad
