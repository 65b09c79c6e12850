"""What is known of a model version, from an engine or from its recipe while there is none; and of
what it was asked for."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import chain

import torch

from cluster.registry import Registry
from cluster.versions import Version
from genimg import checkpoint, directions, recipes
from genimg.compact import CARD, gist
from genimg.contracts import Ability
from genimg.engine import Engine
from genimg.operations import OPERATIONS, Operation
from genimg.precision import Precision, resolved
from genimg.recipe import Recipe
from genimg.results import UNLIKE, unlike
from serving.requests import ModelInfo
from serving.work import Made

WORDS = 200  # of a vocabulary that are told


def described(
    ref: str,
    version: Version,
    recipe: Recipe,
    abilities: Mapping[str, Ability],
    precision: Precision,
    size: int,
    gist: str = "",
) -> ModelInfo:
    """A version that is ready to be asked; size: bytes of its weights; gist: of its card."""
    able = abilities.values()
    return ModelInfo(
        id=ref,
        name=version.name,
        state="ready",
        version=version.number,
        capabilities=tuple(abilities),
        honours={
            name: tuple(sorted(ability.conditions & OPERATIONS[name].conditions))
            for name, ability in abilities.items()
        },
        recipe=recipe.recipe,
        size=recipe.data.size,
        channels=recipe.data.channels,
        scale=max(each.scale for each in able),
        steps=max(each.steps for each in able),
        classes=next((each.classes for each in able if each.classes), ()),
        words=next((each.vocabulary for each in able if each.vocabulary), ())[:WORDS],
        grammar=next((each.grammar for each in able if each.grammar), None),
        directions=tuple(dict.fromkeys(chain(*(each.directions for each in able)))),
        precision=precision,
        bytes=size,
        metrics=version.metrics,
        created=version.created,
        about=gist or None,
    )


def looked_up(
    registry: Registry, ref: str, version: Version, precision: str, device: str | None
) -> ModelInfo:
    """As `described`, of a version that is not loaded: its small files say it all.

    precision, device: as for Engine.load. Raises Damaged, InputError or StorageError.
    """
    recipe = recipes.from_json(registry.read(version, checkpoint.RECIPE).decode())
    abilities, numbers = recipe.outline()
    if directions.FILE in version.files:
        tree = json.loads(registry.read(version, directions.FILE))
        abilities = directions.steered(abilities, directions.vectors(tree))
    chosen = resolved(precision, on(device))
    card = registry.read(version, CARD).decode(errors="replace") if CARD in version.files else ""
    size = numbers * _WIDTHS[chosen]
    return described(ref, version, recipe, abilities, chosen, size, gist(card))


def on(device: str | None) -> torch.device:
    """Where an engine computes that is told so."""
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def weight_of(recipe: Recipe, precision: Precision) -> int:
    """Bytes of the weights of its models in memory."""
    return recipe.outline()[1] * _WIDTHS[precision]


_WIDTHS: dict[Precision, int] = {"float32": 4, "bfloat16": 2}


def notes_of(operation: Operation, engine: Engine, made: Made) -> tuple[str, ...]:
    """What a person should know of what was asked for, and of what came of it."""
    asked = tuple(operation.cautions(engine.abilities[operation.name]))
    return (*asked, f"the image is {UNLIKE}") if unlike(made.psnr, made.plain_psnr) else asked
