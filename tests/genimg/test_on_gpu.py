"""What only a GPU can show: exact resumption, the CPU's pixels, and nobody kept waiting."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch
from tiny_recipes import every_recipe, tiny
from training_steps import lost_by_resuming

from genimg import rng
from genimg.contracts import Division
from genimg.data.augment import augment
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.opening import open_dataset
from genimg.data.scenes import render
from genimg.metrics.sliced_wasserstein import sliced_wasserstein
from genimg.models.batch_norm import BatchNorm2d
from genimg.recipe import Recipe
from genimg.training.method import Method
from genimg.training.sync import Alone

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU here")

CPU, GPU = torch.device("cpu"), torch.device("cuda")
# Of one common size: kernels for tensor cores come in only there.
SIZE = ("data.size=32", "train.batch_size=64", "model.width=32", "train.images=6400")


@contextmanager
def no_waiting() -> Iterator[None]:
    """An error where the CPU waits for the GPU."""
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def known(name: str, *overrides: str) -> Recipe:
    keys = tiny(name).keys()
    wanted = [text for text in (*SIZE, *overrides) if text.partition("=")[0] in keys]
    return tiny(name, *wanted)


def loader(recipe: Recipe, device: torch.device, seen: int = 0) -> Loader:
    return Loader(
        open_dataset(recipe.data, recipe.wants),
        batch_size=recipe.train.batch_size,
        seed=0,
        device=device,
        augment=lambda stored, keys, seen: augment(stored, keys, "flip"),
        seen=seen,
    )


def trained(recipe: Recipe, method: Method, steps: int) -> None:
    batches = iter(loader(recipe, GPU, method.seen))
    for _ in range(steps):
        method.update(next(batches), Alone())
    batches.close()


@every_recipe
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_deterministic_training_resumes_bit_for_bit(name, precision, monkeypatch):
    monkeypatch.setenv(
        "CUBLAS_WORKSPACE_CONFIG", os.environ.get("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    )
    recipe = known(name, "train.deterministic=true", f"train.precision={precision}")
    assert lost_by_resuming(recipe, 6, GPU, trained) == []


@pytest.mark.parametrize("size", [16, 33, 64])
@pytest.mark.parametrize("channels", [1, 3])
def test_scenes_are_the_same_to_the_bit(size, channels):
    keys = rng.fold(size, torch.arange(300))
    assert torch.equal(render(keys.to(GPU), size, channels).cpu(), render(keys, size, channels))


@pytest.mark.parametrize("name", ["dcgan", "ffdnet"])
def test_batches_are_those_of_the_cpu_and_are_there_when_they_are_used(name):
    recipe = known(name)
    here, there = iter(loader(recipe, CPU)), iter(loader(recipe, GPU))
    for _ in range(20):
        expected, got = next(here), next(there)
        doubled = got.rows["image"] * 2  # at once, on the training's stream
        assert torch.equal(got.keys.cpu(), expected.keys)
        torch.testing.assert_close(doubled.cpu(), expected.rows["image"] * 2, rtol=0, atol=1e-6)
    here.close()
    there.close()


@pytest.mark.parametrize("kind", ["scenes", "on the cpu", "on the gpu"])
def test_making_a_batch_keeps_nobody_waiting(kind):
    recipe = known("dcgan")
    batches = loader(recipe, GPU)
    if kind != "scenes":
        pixels = torch.randint(256, (200, 3, 32, 32), dtype=torch.uint8)
        batches.dataset = Images({"image": pixels})
    if kind == "on the gpu":
        batches.dataset = batches.dataset.to(GPU)
    batches.batch(0)  # allocates
    with no_waiting():
        for seen in range(64, 640, 64):
            batches.batch(seen)


@every_recipe
@pytest.mark.parametrize("options", [(), ("train.clip_norm=1.0",)], ids=["plain", "clipped"])
def test_a_step_keeps_nobody_waiting(name, options):
    recipe = known(name, *options)
    method = recipe.method(GPU)
    batch = loader(recipe, GPU).batch(0)
    for _ in range(2):
        method.update(batch, Alone())
    with no_waiting():
        for _ in range(5):
            method.update(batch, Alone())


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_batch_normalisation_of_a_divided_batch_is_pytorchs(precision):
    images = torch.randn(8, 16, 8, 8).to(GPU, precision).to(memory_format=torch.channels_last)
    wanted = torch.randn(images.shape, device=GPU)
    results = []
    for division in (None, Division(1.0, lambda values: values)):
        norm = BatchNorm2d(16).to(GPU)
        norm.division = division
        leaf = images.clone().requires_grad_()
        output = norm(leaf)
        (output.float() - wanted).square().sum().backward()
        results.append([output, leaf.grad, norm.weight.grad, norm.bias.grad, *norm.buffers()])
    for expected, got in zip(*results, strict=True):
        exact = 1e-2 if precision == torch.bfloat16 else 1e-4
        largest = expected.abs().max().item()
        torch.testing.assert_close(got, expected, rtol=exact, atol=exact * largest)


def test_evaluation_on_the_gpu_agrees_with_the_cpus():
    one, other = (render(rng.fold(seed, torch.arange(64)), 32, 3) for seed in (1, 2))
    expected = sliced_wasserstein(one, other)
    got = sliced_wasserstein(one.to(GPU), other.to(GPU))
    assert got == pytest.approx(expected, rel=1e-3)
