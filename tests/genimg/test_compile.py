"""`train.compile`: every recipe trains with compiled networks, and to the same end as without.

The quick test stops before the code generator (PyTorch's backend `aot_eager`), which is where
graphs are traced and differentiated; it is of one recipe of each method and network (the other
GANs have those of dcgan or of biggan-small, the enhancer that of the deblurrer, restorer and
colouriser that of drunet; conv-lstm and predrnn go frame by frame, as frame-vae does), and but for
the quick ones among the slow ones too. The slow test compiles every recipe as users do.
"""

import functools
import shutil
import subprocess
import sys

import pytest
import torch
from tiny_recipes import every_recipe, tiny
from training_steps import differing, started, trained

from genimg.recipe import Recipe
from genimg.training.method import Method

needs_compiler = pytest.mark.skipif(
    not shutil.which("g++") and not shutil.which("clang++"),
    reason="torch.compile needs a C++ compiler on CPUs",
)

# Networks of each recipe's that are compiled. GANs: the generator, and the discriminator with and
# without gradients of its own (mlp-gan: of images that lie in memory in two ways); VAEs: both ways,
# and the prior; translators likewise, of both ways.
COMPILED = {
    "mlp-gan": 4,
    "dcgan": 3,
    "wgan-gp": 3,
    "biggan-small": 3,
    "progan": 6,
    "stylegan": 3,
    "r3gan": 3,
    "flow": 1,
    "conv-vae": 2,
    "hvae": 2,
    "vq-vae": 3,
    "ffdnet": 1,
    "dncnn": 1,
    "drunet": 1,
    "deblocker": 1,
    "deblurrer": 1,
    "inpainter": 1,
    "upscaler": 1,
    "pix2pix": 3,
    "cyclegan": 4,
    "adain": 1,
    "classifier": 1,
    "segmenter": 1,
    "detector": 1,
    "conv-mixer": 1,
    "frame-vae": 1,
}
QUICK = {"dcgan", "wgan-gp", "flow", "classifier"}


def pair(name: str) -> tuple[Recipe, Recipe]:
    """A recipe without and with compiled networks; dcgan's second step has no penalty."""
    overrides = ["train.precision=float32"] + (["loss.r1_every=2"] if name == "dcgan" else [])
    return tiny(name, *overrides), tiny(name, *overrides, "train.compile=true")


def train_alike(name: str) -> tuple[Recipe, Method]:
    """The recipe without compiled networks, and the method with them after three steps."""
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
    return plain, got


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in COMPILED],
)
def test_compiled_networks_train_as_plain_ones_do_and_are_restored_into_them(name, monkeypatch):
    from torch._dynamo.testing import CompileCounterWithBackend

    counter = CompileCounterWithBackend("aot_eager")
    compile = functools.partial(torch.compile, backend=counter)
    monkeypatch.setattr(torch, "compile", compile)
    plain, compiled = train_alike(name)
    assert counter.frame_count == COMPILED[name]
    other = started(plain)
    other.restore(compiled.snapshot())
    assert differing(compiled, other) == []
    trained(plain, other, 1)
    assert other.seen == 4 * plain.train.batch_size


@pytest.mark.slow
@pytest.mark.timeout(1800)  # half a minute each, on a core to itself
@needs_compiler
@every_recipe
def test_networks_compiled_to_machine_code_train_as_plain_ones_do(name):
    train_alike(name)


def test_the_compiler_is_imported_only_where_it_is_used():
    """2 s of every command; networks are made without weights to know what their models can do."""
    code = """
import sys
from genimg.recipes import RECIPES
for name, recipe in RECIPES.items():
    recipe().can()
    assert "torch._dynamo" not in sys.modules, name
"""
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
