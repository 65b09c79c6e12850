"""A tiny stylist that a classifier helps, and what it is given."""

import numpy as np
import torch
from torch import Tensor, nn
from training_steps import started

from genimg.models.whitened import Whitened
from genimg.recipes.stylist import AdaIN
from genimg.training.method import Method

FEATURES = ("loss.features=x",)


def maps(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(1, 2, shape)).float()


def picture(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, channels), np.uint8)


def classifier(channels: int = 3) -> Whitened:
    """Whose normalisation is not the identity, as one that has learnt."""
    with torch.random.fork_rng():
        torch.manual_seed(3)
        network = Whitened(8, 2, channels, classes=4)
        for layer in network.modules():
            if isinstance(layer, nn.BatchNorm2d):
                for values in (layer.weight, layer.bias, layer.running_mean):
                    nn.init.normal_(values, std=0.5)
                nn.init.uniform_(layer.running_var, 0.5, 2)
            elif isinstance(layer, nn.Conv2d):
                nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
        return network.eval().requires_grad_(False)


def helped(recipe: AdaIN) -> Method:
    method = started(recipe)
    recipe.helped(method, {"features": {"classifier": classifier(recipe.data.channels)}})
    return method
