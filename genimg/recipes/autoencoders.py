"""The networks that VAEs may have, as sections of a recipe."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from genimg.models.conv_vae import ConvVAE
from genimg.models.draw import DrawVAE
from genimg.models.ladder import LadderVAE, resolutions
from genimg.models.mlp import MlpVAE
from genimg.recipe import Data
from genimg.recipes.told import ByText

Autoencoder = ConvVAE | MlpVAE | LadderVAE | DrawVAE


class ConvModel(ByText):
    network: Literal["conv"] = "conv"
    """decides which of the other keys there are"""
    latent: int = Field(32, ge=1)
    """dimensions of the latent space"""
    width: int = Field(32, ge=8, multiple_of=8)
    """channels at half the final resolution; twice and four times as many below"""
    mixture: int = Field(0, ge=0)
    """Gaussians that follow the latents, and of which images are drawn; 0: of the prior"""


class MlpModel(ByText):
    network: Literal["mlp"] = "mlp"
    """decides which of the other keys there are"""
    latent: int = Field(50, ge=1)
    """dimensions of the latent space"""
    width: int = Field(400, ge=1)
    """units of a hidden layer"""
    depth: int = Field(2, ge=1)
    """hidden layers of the encoder, and of the decoder"""
    mixture: int = Field(0, ge=0)
    """Gaussians that follow the latents, and of which images are drawn; 0: of the prior"""


class LadderModel(ByText):
    network: Literal["ladder"] = "ladder"
    """decides which of the other keys there are"""
    latent: int = Field(4, ge=1)
    """planes of latents of each level"""
    width: int = Field(48, ge=8, multiple_of=8)
    """channels at each resolution, on the way up and down"""
    blocks: int = Field(2, ge=1)
    """levels of latents at each resolution, from 4 pixels to half of the images'"""


class DrawModel(ByText):
    network: Literal["draw"] = "draw"
    """decides which of the other keys there are"""
    latent: int = Field(32, ge=1)
    """latents of each step"""
    width: int = Field(128, ge=8, multiple_of=8)
    """numbers that it remembers, of what it has seen and of what it has drawn"""
    steps: int = Field(8, ge=1, le=64)
    """in which the canvas is drawn"""
    glimpse: int = Field(8, ge=2)
    """side of the grid that is looked at, and drawn, at a step; it moves and widens"""


AnyModel = ConvModel | MlpModel | LadderModel | DrawModel
Model = Annotated[AnyModel, Field(discriminator="network")]


def autoencoder_of(model: AnyModel, data: Data, planes: int) -> Autoencoder:
    """Freshly initialised; decodes to so many planes."""
    network = told_autoencoder(model, data, planes)
    model.reading(network, every=isinstance(model, DrawModel))
    return network


def told_autoencoder(model: AnyModel, data: Data, planes: int) -> Autoencoder:
    """Of what is read in texts, in place of classes, where the model draws by text."""
    latent, width, classes = model.latent, model.width, model.told
    image = (data.size, data.channels)
    match model:
        case ConvModel(mixture=mixture):
            return ConvVAE(latent, width, *image, planes, classes, mixture)
        case MlpModel(depth=depth, mixture=mixture):
            return MlpVAE(latent, width, depth, *image, planes, classes, mixture)
        case LadderModel(blocks=blocks):
            return LadderVAE(latent, width, blocks, *image, planes, classes)
        case DrawModel(steps=steps, glimpse=patch):
            return DrawVAE(latent, width, steps, patch, *image, planes, classes)


def latents_of(model: AnyModel, data: Data) -> int:
    """Dimensions of the latents of its network."""
    match model:
        case ConvModel(latent=latent, mixture=mixture) | MlpModel(latent=latent, mixture=mixture):
            return latent + (mixture > 0)
        case LadderModel(latent=latent, blocks=blocks):
            return latent * blocks * sum(side**2 for side in resolutions(data.size))
        case DrawModel(latent=latent, steps=steps):
            return latent * steps


def autoencoder_in(networks: Mapping[str, nn.Module]) -> Autoencoder:
    """That among a recipe's networks."""
    network = networks["autoencoder"]
    assert isinstance(network, Autoencoder)
    return network
