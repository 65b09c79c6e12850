"""genimg's training path against a loop written by hand: what the loader, method and loop cost.

Both train the same networks with the same batches, precision and number of threads, on 60,000
gray images of 32 x 32 in memory: the GPU's where there is one, where larger ones are tried too.
Ours includes the loader with its keys and augmentation, the schedules, the averages, the log at
the recipe's own interval and its event file.
"""

import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from typing import Any

import bare_loops
import made_data
import torch
from measuring import Row, compared, device, rate
from torch import Tensor
from torch.utils.tensorboard import SummaryWriter

from genimg import recipes
from genimg.data.augment import augment
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.scenes import Scenes
from genimg.precision import resolved
from genimg.recipe import Recipe
from genimg.training.loop import fit
from genimg.training.sync import Alone

AT_LEAST = 0.97


def measure(quick: bool) -> list[Row]:
    with tried_kernels():
        rows = [gan(quick), recognition(quick)]
        if device().type == "cuda":
            rows.append(gan(quick, "data.size=64", "train.batch_size=256"))
    return rows


@contextmanager
def tried_kernels() -> Iterator[None]:
    """For the bare loop, which does not choose its kernels itself."""
    before, torch.backends.cudnn.benchmark = torch.backends.cudnn.benchmark, True
    yield
    torch.backends.cudnn.benchmark = before


def gan(quick: bool, *overrides: str) -> Row:
    recipe, data, pixels, _ = prepared("dcgan", *overrides)
    bare = bare_loops.dcgan(recipe, pixels, device(), bfloat16(recipe))
    return over_bare_loop(recipe, data, bare, quick)


def recognition(quick: bool) -> Row:
    recipe, data, pixels, labels = prepared("classifier", "data.translate=0")
    bare = bare_loops.classifier(recipe, pixels, labels, device(), bfloat16(recipe))
    return over_bare_loop(recipe, data, bare, quick)


def prepared(name: str, *overrides: str) -> tuple[Any, Images, Tensor, Tensor]:
    """(recipe, data as ours takes it, pixels and labels as the bare loop takes them)."""
    recipe = recipes.named(name).override(["data.channels=1", *overrides])
    recipe = recipe.resolve(Scenes.classes)
    pixels, labels = (tensor.to(device()) for tensor in made_data.labelled(recipe.data.size))
    stored = {name: {"image": pixels, "label": labels}[name] for name in recipe.wants}
    return recipe, Images(stored, Scenes.classes), pixels, labels


def bfloat16(recipe: Recipe) -> bool:
    return resolved(recipe.train.precision, device()) == "bfloat16"


def over_bare_loop(
    recipe: Recipe, data: Images, bare: Iterator[None], quick: bool, steps: int | None = None
) -> Row:
    """By turns `steps`, or about as many images as there are between two lines of the log."""
    train = recipe.train
    if steps is None:
        steps = 3 if quick else round(train.log_every / train.batch_size)
    images = steps * train.batch_size
    with training(recipe, data, steps) as ours:
        return compared(
            f"loop: {recipe.recipe}, {recipe.data.size} x {recipe.data.size}",
            "images/s",
            lambda: rate(ours, images),
            lambda: rate(lambda: take(bare, steps), images),
            rounds=3 if quick else 11,
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
        augment=lambda stored, keys: augment(
            stored, keys, recipe.data.augment, recipe.data.translate
        ),
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
