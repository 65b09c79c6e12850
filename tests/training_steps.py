"""Methods on the CPU and steps of them, for tests that look at what steps do."""

from collections.abc import Callable
from typing import Any

import torch

from genimg.contracts import Batch
from genimg.data.loader import Loader
from genimg.data.opening import open_dataset
from genimg.recipe import Recipe
from genimg.training.method import Method
from genimg.training.sync import Alone

CPU = torch.device("cpu")


def started(recipe: Recipe) -> Method:
    torch.manual_seed(recipe.train.seed)
    return recipe.method(CPU)


def loader_of(recipe: Recipe, **options: Any) -> Loader:
    return Loader(
        open_dataset(recipe.data, recipe.wants),
        batch_size=recipe.train.batch_size,
        seed=recipe.train.seed,
        device=CPU,
        augment=lambda stored, keys, seen: stored,
        **options,
    )


def batch_at(recipe: Recipe, seen: int) -> Batch:
    return loader_of(recipe).batch(seen)


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


def lost_by_resuming(
    recipe: Recipe,
    steps: int,
    device: torch.device = CPU,
    train: Callable[[Recipe, Method, int], Any] = trained,
) -> list[str]:
    """What differs after twice so many steps where a snapshot of half of them was gone on from."""
    torch.manual_seed(recipe.train.seed)
    method = recipe.method(device)
    train(recipe, method, steps)
    snapshot = method.snapshot()
    train(recipe, method, steps)
    torch.manual_seed(99)
    other = recipe.method(device)
    assert differing(method, other)
    other.restore(snapshot)
    assert other.seen == steps * recipe.train.batch_size
    train(recipe, other, steps)
    return differing(method, other)
