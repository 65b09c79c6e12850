"""Workers agree to the rounding of float64, where that of float32 is told apart from no mistake.

Over images that are flat, as masks are, PyTorch's own batch normalisation of float32 that is
channels last, which a lone worker has, is some 4e-5 off, for it sums the pixels one after another
(ours over a divided batch 5e-7). A few values come out on the other side of a ReLU, each of which
moves gradients of a small batch by a hundredth.
"""

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from tiny_recipes import tiny
from torch import Tensor
from training_steps import loader_of, started
from working_together import together

from genimg.contracts import Batch, Sync
from genimg.recipe import Recipe
from genimg.recipes import tasks
from genimg.training.method import Method
from genimg.training.sync import Alone

SMALL = ("train.precision=float32", "train.batch_size=3", "model.depth=1")


@pytest.fixture
def in_float64(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is float32 elsewhere."""
    monkeypatch.setattr(torch.Tensor, "float", torch.Tensor.double)
    torch.set_default_dtype(torch.float64)
    tasks.colours.cache_clear()
    yield
    torch.set_default_dtype(torch.float32)
    tasks.colours.cache_clear()


def step(recipe: Recipe, method: Method, sync: Sync) -> dict[str, Tensor]:
    """Gradients and running statistics after one."""
    loader = loader_of(recipe, rank=sync.rank, world=sync.world, together=recipe.together)
    batch = loader.batch(0)
    rows: Any = {k: v.double() if v.is_floating_point() else v for k, v in batch.rows.items()}
    method.update(Batch(rows, batch.keys, batch.total), sync)
    held = {}
    for network_name, network in method.networks.items():
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None
            held[f"gradient {network_name}.{name}"] = parameter.grad
        held |= {f"{network_name}.{name}": buffer for name, buffer in network.named_buffers()}
    return held


@pytest.mark.parametrize("name", ["pix2pix", "segmenter"])
def test_of_masks_together_they_do_what_one_worker_does(in_float64, name):
    recipe = tiny(name, *SMALL)
    assert "mask" in recipe.wants
    methods = [started(recipe) for _ in range(3)]
    alone = step(recipe, methods.pop(), Alone())
    for each in together(2, lambda sync: step(recipe, methods[sync.rank], sync)):
        for key, expected in alone.items():
            assert expected.dtype in (torch.float64, torch.int64)
            part = 1e-9 * expected.abs().max().item()
            torch.testing.assert_close(each[key], expected, rtol=0, atol=part)
