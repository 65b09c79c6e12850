"""Every named recipe. A new one is a function and a line here (and a model file if it is new)."""

import json
import sys
from collections.abc import Callable

from genimg.errors import InputError, nearest
from genimg.recipe import Recipe
from genimg.recipes.classifier import classifier
from genimg.recipes.conv_vae import conv_vae
from genimg.recipes.dcgan import dcgan
from genimg.recipes.ffdnet import ffdnet

RECIPES: dict[str, Callable[[], Recipe]] = {
    "dcgan": dcgan,
    "conv-vae": conv_vae,
    "ffdnet": ffdnet,
    "classifier": classifier,
}


def named(name: str) -> Recipe:
    """The recipe of that name with its defaults, or InputError with the nearest name."""
    if name not in RECIPES:
        raise InputError(f"unknown recipe {name!r}; {nearest(name, RECIPES)}")
    return RECIPES[name]()


def from_json(text: str) -> Recipe:
    """The recipe that `Recipe.model_dump_json` wrote, or InputError."""
    try:
        tree = json.loads(text)
        name = str(tree["recipe"])
    except (ValueError, KeyError, TypeError):
        raise InputError(f"{text[:40]!r}... is not a recipe's JSON") from None
    return type(named(name)).validated(tree)


def summary(recipe: Recipe) -> str:
    """The first line of the module that a recipe is defined in."""
    text = sys.modules[type(recipe).__module__].__doc__ or ""
    return text.strip().splitlines()[0]
