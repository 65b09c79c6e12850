"""Tiny second stages of restorers and the classifier that helps them."""

import torch
from tiny_recipes import tiny

from genimg.models.classifier import Classifier, Plain
from genimg.recipe import Recipe
from genimg.training.method import Method

ADVERSARIAL = ("loss.adversarial=0.1",)
PERCEPTUAL = ("loss.perceptual=0.5", "loss.features=x")


def second_stage(*overrides: str) -> Recipe:
    return tiny("deblocker", *ADVERSARIAL, *PERCEPTUAL, *overrides)


def classifier(channels: int = 3) -> Plain:
    with torch.random.fork_rng():
        torch.manual_seed(5)
        return Plain(8, 16, channels, classes=4).eval().requires_grad_(False)


def helped(recipe: Recipe, method: Method, network: Classifier | None = None) -> Method:
    recipe.helped(method, {"features": {"classifier": network or classifier()}})
    return method
