"""What a restorer's training may begin with, and learn from beside the clean image.

The weights of another restorer, the features of a classifier, and a discriminator: together the
second stage of ESRGAN (Wang et al. 2018).
"""

from collections.abc import Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from genimg.errors import InputError
from genimg.losses.restoration import RestorationLoss
from genimg.models.classifier import Classifier
from genimg.models.patches import PatchDiscriminator
from genimg.models.perception import Perception
from genimg.recipe import Recipe
from genimg.recipes.restoring import Restoring
from genimg.training.adversarial_restoration import AdversarialRestoration
from genimg.training.method import Method, Part
from genimg.training.restoration import Restoration
from genimg.weightless import weightless


class Loss(RestorationLoss):
    perceptual: float = Field(0.0, ge=0)
    """weight of the absolute difference of a classifier's features (ESRGAN, Wang et al. 2018)"""
    features: str | None = None
    """that classifier (NAME, NAME@ALIAS, NAME@7); where perceptual is above 0"""
    adversarial: float = Field(0.0, ge=0)
    """weight of deceiving a discriminator of patches; 0.005 in ESRGAN, beside perceptual=1"""

    @model_validator(mode="after")
    def parts_agree(self) -> Self:
        if self.perceptual and not self.features:
            raise ValueError(
                f"perceptual={self.perceptual:g}: needs features, a classifier whose features are "
                "compared, as features=judge"
            )
        if self.features and not self.perceptual:
            raise ValueError(
                f"features={self.features}: is looked at only where perceptual is above 0; give "
                "perceptual a weight, as 1, or leave features out"
            )
        others = {name: w for name, w in self if isinstance(w, float) and name != "adversarial"}
        if not any(others.values()):
            raise ValueError(
                f"adversarial={self.adversarial:g}: asks for no likeness to the clean image; give "
                f"another weight above 0 (of {', '.join(others)})"
            )
        return self


def method_of(recipe: Restoring, loss: Loss, device: torch.device) -> Restoration:
    """The method that minimises a loss: with a discriminator, where it has one."""
    restorer = Part(recipe.restorer(), betas=(0.9, 0.99))
    rest = (recipe.degraded, recipe.loss_of, recipe.train, device, loss.perceptual)
    if not loss.adversarial:
        return Restoration(restorer, *rest)
    network = PatchDiscriminator(recipe.data.channels)
    discriminator = Part(network, betas=(0.9, 0.99), kept=False)
    return AdversarialRestoration(restorer, discriminator, *rest, loss.adversarial)


def help_method(method: Method, teachers: Mapping[str, Mapping[str, nn.Module]]) -> None:
    """As Recipe.helped: `start` gives the first weights, `features` what is compared."""
    assert isinstance(method, Restoration)
    if "start" in teachers:
        method.start(teachers["start"]["restorer"].state_dict())
    if "features" in teachers:
        classifier = teachers["features"]["classifier"]
        assert isinstance(classifier, Classifier)
        method.perceive(Perception(classifier))


def refuse_start(recipe: Restoring, first: Recipe, named: str) -> None:
    """InputError where a recipe's models are of another network than those of this one."""
    if not isinstance(first, Restoring):
        able = ", ".join(first.can())
        raise InputError(f"{named}: {first.recipe} models restore nothing; they can: {able}")
    if shape_of(first) == shape_of(recipe):
        return
    mine, theirs = shown(recipe), shown(first)
    apart = [
        f"{key}={theirs.get(key, 'none')} (here {mine.get(key, 'none')})"
        for key in sorted(mine.keys() | theirs.keys())
        if mine.get(key) != theirs.get(key)
    ]
    raise InputError(
        f"{named}: another network, of {first.recipe}: {', '.join(apart)}; begin with a model of "
        "the same network, or override this recipe's keys to be like its"
    )


def shape_of(recipe: Restoring) -> tuple[object, ...]:
    """Equal where weights of one recipe's models mean the same in those of another."""
    with weightless():
        network = recipe.restorer()
    weights = {name: each.shape for name, each in network.state_dict().items()}
    return type(network), network.scale, network.stride, recipe.told, weights


def shown(recipe: Restoring) -> dict[str, object]:
    """What decides a recipe's network, in keys and words of a person's."""
    with weightless():
        network = recipe.restorer()
    keys = recipe.model_dump()["model"]
    return {
        "network": type(network).__name__,
        **{f"model.{name}": value for name, value in keys.items()},
        "data.channels": recipe.data.channels,
        "scale": network.scale,
        "tells": list(recipe.told),
    }
