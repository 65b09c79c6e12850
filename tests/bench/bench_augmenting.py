"""What each augmentation costs, as a share of a step of the training.

It is timed as the loader does it, for several small batches in one go. On a GPU, where it goes to a
stream beside the training's, it may hold that up less than is said here.
"""

from collections.abc import Callable
from statistics import median

import made_data
import torch
from measuring import Row, device, rate

from genimg import recipes
from genimg.augmentations import KINDS
from genimg.data.augment import augmenting
from genimg.data.loader import Loader
from genimg.data.memory import Images
from genimg.data.scenes import Scenes
from genimg.training.sync import Alone

TIMES, ROUNDS = 20, 5


def measure(quick: bool) -> list[Row]:
    """Each of all images and at its full strength, of a segmenter, or where masks cannot follow it
    of a classifier; copy-paste also with boxes."""
    rows = [share(kind, "classifier" if kind == "mixup" else "segmenter", quick) for kind in KINDS]
    return [*rows, share("copy-paste", "detector", quick)]


def share(kind: str, name: str, quick: bool) -> Row:
    keys = ["data.size=64", "data.augment=none", "data.translate=0"]
    keys += [f"data.augmentations=[{{kind: {kind}}}]", *(["train.batch_size=8"] if quick else [])]
    recipe = recipes.named(name).override(keys).resolve(Scenes.classes)
    data, size = recipe.data, recipe.train.batch_size
    columns = made_data.columns(recipe.columns, data.size, 16 * size, data.channels)
    augment = augmenting(recipe)
    loader = Loader(
        Images(columns, Scenes.classes, recipe.columns).to(device()),
        batch_size=size,
        seed=0,
        device=device(),
        augment=augment,
    )
    at_once, method, batch = loader.at_once, recipe.method(device()), loader.batch(0)
    stored = {name: column[: at_once * size].to(device()) for name, column in columns.items()}
    turns = torch.arange(at_once * size, device=device())
    step = seconds(lambda: method.update(batch, Alone()), quick)
    varying = seconds(lambda: augment(stored, turns, turns), quick) / at_once
    return Row(
        f"augmenting: {kind}, {name}, {data.size} x {data.size}",
        "of a step",
        ours=varying / step,
        note=f"batch {size}: {varying * 1e3:.2f} ms beside {step * 1e3:.1f} ms",
    )


def seconds(work: Callable[[], object], quick: bool) -> float:
    """That it takes, the first times, which fill caches, not counted."""
    times, rounds = (1, 1) if quick else (TIMES, ROUNDS)

    def several() -> None:
        for _ in range(times):
            work()

    several()
    return median(1 / rate(several, times) for _ in range(rounds))
