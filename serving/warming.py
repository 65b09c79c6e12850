"""Engines before their first request, and memory behind the last one."""

from __future__ import annotations

import ctypes
import gc
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.versions import Version
from genimg import checkpoint, recipes
from genimg.compact import CARD, gist
from genimg.engine import Engine
from genimg.errors import InputError
from genimg.operations import OPERATIONS, Kind
from genimg.precision import resolved
from serving.about import on, weight_of
from serving.model_settings import Computing


@dataclass(frozen=True)
class Served:
    """A version in memory."""

    version: Version
    engine: Engine
    bytes: int  # of its weights
    gist: str = ""  # of its card


def load(
    version: Version,
    folder: Path,
    settings: Computing,
    device: str | None,
    refuse: Callable[[int], None],
) -> Served:
    """A version out of its folder, ready for its first request.

    device: as for Engine.load; refuse: raises InputError where weights take too many bytes.
    """
    checkpoint.read_manifest(folder)
    recipe = recipes.from_json((folder / checkpoint.RECIPE).read_text())
    size = weight_of(recipe, resolved(settings.precision, on(device)))
    refuse(size)
    engine = Engine.load(folder, device, settings.precision, verified=True)
    warm_up(engine, settings.max_batch_size)
    card = folder / CARD
    about = gist(card.read_text(errors="replace")) if card.exists() else ""
    return Served(version, engine, size, about)


def give_back_memory() -> None:
    """Let the system have what is not used any more. A traceback that some import has left keeps
    an engine until Python looks for cycles; allocators keep what was freed for themselves."""
    gc.collect()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux":
        with suppress(OSError, AttributeError):  # another C library than GNU's has none
            ctypes.CDLL(None).malloc_trim(0)


def warm_up(engine: Engine, max_batch: int) -> None:
    """Run an engine at the batch sizes 1 and `max_batch`.

    Raises InputError where it is no use.
    """
    for name, network in engine.networks.items():
        if not all(bool(torch.isfinite(value).all()) for value in network.state_dict().values()):
            raise InputError(f"the {name} has weights that are no finite numbers")
    engine.share()
    engine = engine.hasty()
    data = engine.recipe.data
    noise = np.random.default_rng(0).integers(
        0, 256, (data.size, data.size, data.channels), np.uint8
    )
    left_half = np.zeros((data.size, data.size, 1), np.uint8)
    left_half[:, : data.size // 2] = 255
    for name, ability in engine.abilities.items():
        operation = OPERATIONS[name]
        if operation.gives is Kind.PICTURES and not operation.takes:
            for rows in (1, max_batch):
                made = engine(operation.validated({"n": rows, "seed": 0})).images
                if made.shape != (rows, *noise.shape):
                    raise InputError(f"{rows} samples have the shape {list(made.shape)}")
        elif operation.takes.get("image") is Kind.PICTURE and "image" in ability.takes:
            beside: dict[str, Any] = {
                key: left_half if operation.takes[key] is Kind.MASK else noise
                for key in operation.beside
            }
            quickly = {"quality": 50, "starts": 1, "iterations": 1}
            told = {key: value for key, value in quickly.items() if key in ability.conditions}
            given = noise[..., :1] % ability.masked if ability.masked else noise
            made = engine(operation.validated(told), image=given, **beside)
            sides = tuple(ability.scale * side for side in noise.shape[:2])
            if operation.gives is Kind.PICTURE and made.images.shape[1:3] != sides:
                raise InputError(f"the result of {name} has not the shape of the given image")
        elif operation.takes.get("image") is Kind.FRAMES:
            engine(operation.validated({"frames": 1}), image=noise[None])
