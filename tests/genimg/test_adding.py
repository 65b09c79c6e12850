"""What docs/house.md says of adding things, done."""

import textwrap
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from tiny_recipes import tiny
from torch import nn

from genimg import recipes
from genimg.contracts import Ability
from genimg.engine import Engine
from genimg.operations import OPERATIONS
from genimg.operations.reading import Reading
from genimg.recipe import Data
from genimg.recipes import RECIPES
from genimg.recipes.gan import GAN, Loss
from genimg.schedule import Train

HOUSE = (Path(__file__).parents[2] / "docs" / "house.md").read_text()


def example_after(words: str) -> str:
    """The code that follows these words."""
    lines = HOUSE.partition(words)[2].partition("\n\n    ")[2].split("\n")
    code = []
    for line in ["    " + lines[0], *lines[1:]]:
        if line.strip() and not line.startswith("    "):
            break
        code.append(line)
    return textwrap.dedent("\n".join(code))


def test_an_operation_is_a_class_and_a_line(monkeypatch):
    space = {
        "Ability": Ability, "Any": Any, "ClassVar": ClassVar, "Fitted": Any, "Mapping": Mapping,
        "Reading": Reading, "nn": nn,
    }  # fmt: skip
    exec(example_after("**to add an operation**"), space)
    again = space["Reconstruct"]
    shipped = OPERATIONS[again.name]
    assert again is not shipped
    monkeypatch.setitem(OPERATIONS, again.name, again)
    recipe = tiny("conv-vae")
    networks = recipe.networks()
    for network in networks.values():
        network.eval().requires_grad_(False)
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    engine = Engine(recipe, networks)
    made, expected = (engine(kind(), image=image).images for kind in (again, shipped))
    assert np.array_equal(made, expected)


def test_a_recipe_is_a_function_and_a_line(monkeypatch):
    space = {"Data": Data, "GAN": GAN, "Loss": Loss, "Train": Train}
    exec(example_after("**To add a recipe**"), space)
    shipped = recipes.named("lsgan")
    monkeypatch.setitem(RECIPES, "lsgan", space["lsgan"])
    assert recipes.named("lsgan") == shipped
