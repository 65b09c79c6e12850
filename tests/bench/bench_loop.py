"""genimg's training path against a loop written by hand: what the loader, method and loop cost.

Both train the same networks with the same batches, precision and number of threads, on 60,000
gray images in memory: the GPU's where there is one, where larger ones are tried too. Ours includes
the loader with its keys and augmentation, the schedules, the averages, the log at its own intervals
and its event file.
"""

import math
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import bare_loops
import bare_styling
import bare_translating
import made_data
import torch
from measuring import Row, compared, device, rate
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from genimg import recipes
from genimg.data.augment import augmenting
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.scenes import Scenes
from genimg.precision import resolved
from genimg.recipe import Recipe
from genimg.recipes import RECIPES
from genimg.recipes.restoring import Restoring
from genimg.training.loop import fit
from genimg.training.sync import Alone

AT_LEAST = 0.97
SECONDS = 1.0  # of one measurement, about


def measure(quick: bool) -> list[Row]:
    """Every recipe's but restorers', which have images of another kind: see bench_restoring."""
    with tried_kernels():
        rows = [
            trained(name, quick) for name, recipe in RECIPES.items()
            if not isinstance(recipe(), Restoring)
        ]  # fmt: skip
        if device().type == "cuda":
            rows.append(trained("dcgan", quick, "data.size=64", "train.batch_size=256"))
    return rows


@contextmanager
def tried_kernels() -> Iterator[None]:
    """For the bare loop, which does not choose its kernels itself."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    yield
    torch.backends.cudnn.benchmark = before


def trained(name: str, quick: bool, *overrides: str) -> Row:
    recipe, columns = prepared(name, quick, *overrides)
    method = recipe.method(device())  # whose networks the bare loop trains, and nothing else of it
    loop = (bare_loops.LOOPS | bare_styling.LOOPS | bare_translating.LOOPS)[type(method)]
    bare = loop(recipe, method.networks, columns, device(), bfloat16(recipe))
    data = Images(columns, Scenes.classes)
    cycle = cycle_of(recipe)
    take(bare, cycle)
    seconds = cycle / rate(lambda: take(bare, cycle), cycle)
    cycles = 1 if quick else max(1, round(SECONDS / seconds))
    return over_bare_loop(recipe, data, bare, quick, cycles * cycle)


def cycle_of(recipe: Any) -> int:
    """Steps after which what a step does begins anew: a generator's turns, lazy penalties."""
    loss = recipe.loss
    return math.lcm(getattr(loss, "critic_steps", 1), getattr(loss, "r1_every", 1))


def prepared(name: str, quick: bool, *overrides: str) -> tuple[Any, dict[str, Tensor]]:
    """(recipe, the columns that it wants)."""
    gray = ["task=thickened"] if name in ("pix2pix", "cyclegan") else []
    keys = ["data.channels=1", "data.translate=0", *gray, *overrides]
    keys += ["train.batch_size=8"] if quick else []
    recipe = recipes.named(name).override(keys)
    recipe = recipe.resolve(made_data.CLASSES)
    clips = "frames" in recipe.wants  # of which each is as large as twenty images
    count = 640 if quick else made_data.MNIST // 10 if clips else made_data.MNIST
    columns = made_data.columns(recipe.wants, recipe.data.size, count)
    return recipe, {name: column.to(device()) for name, column in columns.items()}


def bfloat16(recipe: Recipe) -> bool:
    return resolved(recipe.train.precision, device()) == "bfloat16"


def over_bare_loop(
    recipe: Recipe, data: Images, bare: Iterator[None], quick: bool, steps: int
) -> Row:
    """By turns so many steps."""
    train = recipe.train
    images = steps * train.batch_size
    with training(recipe, data, steps) as ours:
        return compared(
            f"loop: {recipe.recipe}, {recipe.data.size} x {recipe.data.size}",
            "images/s",
            lambda: rate(ours, images),
            lambda: rate(lambda: take(bare, steps), images),
            rounds=1 if quick else 11,
            at_least=AT_LEAST,
            note=f"batch {train.batch_size}, {'bfloat16' if bfloat16(recipe) else 'float32'}",
        )


@contextmanager
def training(recipe: Recipe, data: Images, steps: int) -> Iterator[Callable[[], None]]:
    """Each call trains for that many steps more, with what jobs.runs.worker trains with."""
    method = recipe.method(device())
    train = recipe.train
    loader = Loader(
        data,
        batch_size=train.batch_size,
        seed=train.seed,
        device=device(),
        augment=augmenting(recipe),
        draw=method.drawn,
    )
    with (
        tempfile.TemporaryDirectory() as folder,
        SummaryWriter(folder) as events,
        closing(iter(loader)) as batches,
    ):

        def log(seen: int, values: dict[str, float]) -> None:
            for name, value in values.items():
                events.add_scalar(f"train/{name}", value, seen)

        def more() -> None:
            until = train.model_copy(update={"images": method.seen + steps * train.batch_size})
            fit(method, batches, until, sync=Alone(), log=log, save=lambda method: None)

        yield more


def take(steps: Iterator[None], count: int) -> None:
    for _ in range(count):
        next(steps)
