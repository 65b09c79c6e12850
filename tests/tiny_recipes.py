"""Every named recipe made so small that its training takes a tenth of a second."""

from functools import cache

import pytest

from genimg import recipes
from genimg.data.opening import told_by
from genimg.errors import InputError
from genimg.recipe import Recipe
from genimg.recipes import RECIPES
from genimg.recipes.restoring import Restoring

# At least one of each method, and of those that are their own in more than their networks.
QUICK = (
    "dcgan", "wgan-gp", "progan", "stylegan", "flow", "conv-vae", "vq-vae", "draw", "ffdnet",
    "upscaler", "cyclegan", "adain", "classifier", "detector", "conv-mixer", "predrnn",
)  # fmt: skip
OTHERS = tuple(name for name in RECIPES if name not in QUICK)
QUICK_FIRST = [*QUICK, *(pytest.param(name, marks=pytest.mark.slow) for name in OTHERS)]
every_recipe = pytest.mark.parametrize("name", QUICK_FIRST)  # the others are slow
_SMALL = {
    "data.size": 16,
    "data.given": 3,
    "data.predicted": 3,
    "data.holdout": 16,
    "train.batch_size": 8,
    "train.images": 64,
    "train.checkpoint_every": 32,
    "train.log_every": 16,
    "train.log_seconds": 0,
    "model.width": 8,
    "model.latent": 8,
    "model.blocks": 1,
    "model.steps": 2,
    "model.glimpse": 4,
    "model.phase": 6,  # so they grow twice in a training
    "sampler.steps": 1,
    "model.features": 16,
    "model.codes": 16,
    "model.dimensions": 8,
    "model.prior": 32,
    "model.layers": 1,
    "evaluation.samples": 16,
    "loss.critic_steps": 1,
    "loss.discriminator_rate": 1,
    "evaluation.images": 16,
}
# Restorers are judged image by image, each damaged in several ways: most of a tiny run's time.
_SMALL_RESTORER = _SMALL | {"evaluation.images": 4}


# Deep by default; one layer of each kind is enough to see what a layer does.
_SHALLOW = {
    "dncnn": ("model.depth=4",),
    "drunet": ("model.depth=1",),
    "restorer": ("model.depth=1",),
    "colouriser": ("model.depth=1",),
    "deblurrer": ("model.encoder=[1]", "model.decoder=[1]"),
    "enhancer": ("model.encoder=[1]", "model.decoder=[1]"),
    "segmenter": ("model.depth=1",),
    "detector": ("model.depth=1",),
}


def tiny(name: str, *overrides: str) -> Recipe:
    """The recipe on scenes, with those of the small values that it has and takes."""
    recipe = _small(name).override(overrides)
    return recipe.resolve(*told_by(recipe.data, recipe.wants))


@cache
def _small(name: str) -> Recipe:
    recipe = recipes.named(name)
    small = _SMALL_RESTORER if isinstance(recipe, Restoring) else _SMALL
    for key, value in small.items():
        try:
            recipe = recipe.override([f"{key}={value}"])
        except InputError:  # this recipe has no such key, or needs more
            continue
    return recipe.override(_SHALLOW.get(name, ()))
