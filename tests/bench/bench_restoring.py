"""Training restorers against loops written by hand, and what damaging the images costs in a step.

A bare loop crops, turns and damages its patches as the recipe says, with the very same functions,
and trains the same network in the same precision; ours adds the loader, the schedules, the log.
With a GPU, DnCNN is also compared with the loop that is commonly published for it: patches cut
beforehand, noise by a DataLoader's workers, float32, contiguous tensors.
"""

import statistics
import time
from collections.abc import Iterator
from typing import Any

import bare_restoring
import torch
from bare_loops import floats
from bench_loop import bfloat16, over_bare_loop, take, training, tried_kernels
from measuring import Row, compared, device, finish_queued_work, rate
from torch import Tensor

from genimg import recipes, rng
from genimg.data.memory import Images
from genimg.data.scenes import render
from genimg.data.storage import Ragged
from genimg.recipes import RECIPES
from genimg.recipes.restoring import Restoring

MOST_DEGRADING = 0.15  # of a step
DAMAGED = ("ffdnet", "deblocker", "upscaler", "inpainter", "deblurrer")  # whose damage is timed
PUBLIC = 1.5  # times the images/s of a public implementation, on a GPU
PHOTOS, SIDE = 200, 320


def measure(quick: bool) -> list[Row]:
    rows = []
    with tried_kernels():
        small = ["train.batch_size=4"] if quick else []
        for name, known in RECIPES.items():
            if not isinstance(known(), Restoring):
                continue
            recipe, data = prepared(name, *small)
            photos = photos_of(data)
            bare = bare_restoring.restorer(recipe, photos, device(), bfloat16(recipe))
            rows.append(over_bare_loop(recipe, data, bare, quick, steps_of(recipe, quick)))
            if name in DAMAGED:
                rows.append(degrading(recipe, photos, bare, quick))
        if device().type == "cuda":
            rows.append(over_public(*prepared("dncnn", "data.channels=1"), quick))
    return rows


def prepared(name: str, *overrides: str) -> tuple[Restoring, Images]:
    recipe = recipes.named(name).override(list(overrides)).resolve({})
    assert isinstance(recipe, Restoring)
    photos = render(torch.arange(PHOTOS), SIDE, recipe.data.channels)
    data = Images({"image": Ragged.joined([*photos.numpy()], recipe.data.size)})
    return recipe, data.to(device())


def steps_of(recipe: Restoring, quick: bool) -> int:
    """Of one measurement: about a second's worth."""
    if quick:
        return 2
    return max(2, round((800 if device().type == "cuda" else 96) / recipe.train.batch_size))


def degrading(recipe: Restoring, photos: Tensor, bare: Iterator[None], quick: bool) -> Row:
    """Seconds of a step that damaging its images takes, over those of the whole step."""
    steps = steps_of(recipe, quick)
    batch, size = recipe.train.batch_size, recipe.data.size
    patches = floats(photos[:batch, :, :size, :size], device())
    keys = rng.fold(0, torch.arange(batch)).to(device())

    def damaging() -> None:
        for _ in range(steps):
            recipe.degraded(patches, keys)

    shares = []
    for _ in range(4 if quick else 12):
        shares.append(seconds(damaging) / seconds(lambda: take(bare, steps)))
    shares = shares[1:]
    return Row(
        f"degradations of {recipe.recipe}",
        "share of a step",
        ours=statistics.median(shares),
        at_most=MOST_DEGRADING,
        note=f"{min(shares):.3f} to {max(shares):.3f}; {about(recipe)}",
    )


def over_public(recipe: Any, data: Images, quick: bool) -> Row:
    steps = 5 if quick else 60
    images = steps * recipe.train.batch_size
    public = bare_restoring.public_dncnn(recipe, photos_of(data).cpu(), device())
    with training(recipe, data, steps) as ours:
        row = compared(
            f"loop: dncnn, patches of {recipe.data.size}, over a commonly published one",
            "images/s",
            lambda: rate(ours, images),
            lambda: rate(lambda: take(public, steps), images),
            rounds=3,
            at_least=PUBLIC,
            note=f"{about(recipe)}; there float32, noise by 4 workers of a DataLoader",
        )
    public.close()
    return row


def photos_of(data: Images) -> Tensor:
    """uint8 [N, C, SIDE, SIDE], on their device."""
    return torch.stack([data.whole(index)["image"] for index in range(len(data))])


def seconds(work: Any) -> float:
    finish_queued_work()
    started = time.perf_counter()
    work()
    finish_queued_work()
    return time.perf_counter() - started


def about(recipe: Restoring) -> str:
    precision = "bfloat16" if bfloat16(recipe) else "float32"
    return f"batch {recipe.train.batch_size}, {precision}"
