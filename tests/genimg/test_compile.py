"""`train.compile`: every recipe trains with compiled networks, and to the same end as without.

The quick tests stop before the code generator (PyTorch's backend `aot_eager`), which is where
graphs are traced and differentiated; the slow ones compile as users do.
"""

import functools
import shutil
import subprocess
import sys

import pytest
import torch
from tiny_recipes import every_recipe, tiny
from torch._dynamo.testing import CompileCounterWithBackend
from training_steps import started, trained

from genimg.recipe import Recipe

needs_compiler = pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("clang++"),
    reason="torch.compile needs a C++ compiler on CPUs",
)


def pair(name: str) -> tuple[Recipe, Recipe]:
    """A recipe without and with compiled networks; dcgan's second step has no penalty."""
    overrides = ["train.precision=float32"] + (["loss.r1_every=2"] if name == "dcgan" else [])
    return tiny(name, *overrides), tiny(name, *overrides, "train.compile=true")


def train_alike(name: str) -> None:
    plain, compiled = pair(name)
    torch._dynamo.reset()
    expected, got = started(plain), started(compiled)
    for before, after in zip(trained(plain, expected, 3), trained(compiled, got, 3), strict=True):
        for key, loss in before.items():
            torch.testing.assert_close(after[key], loss, rtol=1e-2, atol=1e-3)
    one, other = expected.snapshot(), got.snapshot()
    assert one.training.keys() == other.training.keys()
    assert one.weights.keys() == other.weights.keys()
    for key, weight in one.weights.items():
        torch.testing.assert_close(other.weights[key], weight, rtol=1e-2, atol=plain.train.lr)


@every_recipe
def test_compiled_networks_train_as_plain_ones_do(name, monkeypatch):
    counter = CompileCounterWithBackend("aot_eager")
    compile = functools.partial(torch.compile, backend=counter)
    monkeypatch.setattr(torch, "compile", compile)
    train_alike(name)
    # GANs: the generator, and the discriminator with and without gradients of its own;
    # conv-vae: both ways
    expected = {"dcgan": 3, "lsgan": 3, "wgan-gp": 3, "conv-vae": 2}
    assert counter.frame_count == expected.get(name, 1)


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute each, on a core to itself
@needs_compiler
@every_recipe
def test_networks_compiled_to_machine_code_train_as_plain_ones_do(name):
    train_alike(name)


@every_recipe
def test_a_snapshot_of_compiled_networks_is_restored_into_plain_ones(name, monkeypatch):
    monkeypatch.setattr(torch, "compile", functools.partial(torch.compile, backend="aot_eager"))
    plain, compiled = pair(name)
    torch._dynamo.reset()
    method, other = started(compiled), started(plain)
    trained(compiled, method, 1)
    other.restore(method.snapshot())
    trained(plain, other, 1)
    assert other.seen == 16


def test_the_compiler_is_imported_only_where_it_is_used():
    code = "import genimg.recipes, sys; sys.exit('torch._dynamo' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0  # 2 s of every command
