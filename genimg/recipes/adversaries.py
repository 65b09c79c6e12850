"""The networks that GANs may have, a generator and its discriminator, as sections of a recipe."""

from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from genimg.models import dcgan, modern, residual
from genimg.recipe import Data
from genimg.recipes.synthesis import ByClass


class DCGANModel(ByClass):
    network: Literal["dcgan"] = "dcgan"
    """decides which of the other keys there are"""
    latent: int = Field(64, ge=1)
    """dimensions of the latent space; about as many as the images vary in (digits: 12)"""
    width: int = Field(32, ge=4)
    """channels at half the final resolution, doubling at each halving"""
    depth: int = Field(1, ge=0)
    """3x3 convolutions at each resolution of both networks; 0: only those of the paper"""
    normalise: bool = True
    """batch normalisation in the generator, as in the paper"""
    upsampling: dcgan.Upsampling = "transposed"
    """of the generator; bilinear leaves no checkerboard and costs about half as much again"""


class ResidualModel(ByClass):
    network: Literal["residual"] = "residual"
    """decides which of the other keys there are"""
    latent: int = Field(64, ge=1)
    """dimensions of the latent space"""
    width: int = Field(64, ge=8)
    """channels at each resolution of both networks"""
    attention: bool = False
    """self-attention in both networks, at half the final resolution, or at 32 pixels"""
    spectral: bool = True
    """weights of the discriminator have the spectral norm 1"""


class ModernModel(ByClass):
    network: Literal["modern"] = "modern"
    """decides which of the other keys there are"""
    latent: int = Field(64, ge=1)
    """dimensions of the latent space"""
    width: int = Field(64, ge=8, multiple_of=8)
    """channels at each resolution of both networks; twice as many within blocks"""
    blocks: int = Field(1, ge=1)
    """residual blocks at each resolution of both networks; the paper has 2"""


AnyModel = DCGANModel | ResidualModel | ModernModel
Model = Annotated[AnyModel, Field(discriminator="network")]


def generator_of(model: AnyModel, data: Data) -> nn.Module:
    """Freshly initialised: latents [N, latent], classes [N, K] or None -> images."""
    latent, width, classes = model.latent, model.width, len(model.classes)
    image = (data.size, data.channels)
    match model:
        case DCGANModel(normalise=normalise, depth=depth, upsampling=upsampling):
            return dcgan.Generator(latent, width, *image, normalise, depth, classes, upsampling)
        case ResidualModel(attention=attention):
            return residual.Generator(latent, width, *image, attention, classes)
        case ModernModel(blocks=blocks):
            return modern.Generator(latent, width, blocks, *image, classes)


def discriminator_of(model: AnyModel, data: Data) -> nn.Module:
    """Freshly initialised: images, classes [N, K] or None -> logits [N]."""
    width, classes = model.width, len(model.classes)
    image = (data.size, data.channels)
    match model:
        case DCGANModel(depth=depth):
            return dcgan.Discriminator(width, *image, depth, classes)
        case ResidualModel(attention=attention, spectral=spectral):
            return residual.Discriminator(width, *image, attention, spectral, classes)
        case ModernModel(blocks=blocks):
            return modern.Discriminator(width, blocks, *image, classes)
