"""The networks that GANs may have, a generator and its discriminator, as sections of a recipe."""

from collections.abc import Collection
from typing import Annotated, ClassVar, Literal

from pydantic import Field
from torch import nn

from genimg.models import dcgan, growing, mlp, modern, residual, styled
from genimg.models.minibatch_std import GROUP
from genimg.recipe import Data
from genimg.recipes.told import ByText


class Network(ByText):
    """What the sections of all have in common."""

    sizes: ClassVar[Collection[int]] = (16, 32, 64, 128, 256)  # of images

    @property
    def group(self) -> int:
        """Images, or packs of them, that the discriminator compares with one another."""
        return 1


class DCGANModel(Network):
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
    minibatch_std: bool = False
    """the discriminator sees how much images differ, by fours (Karras et al. 2018)"""

    @property
    def group(self) -> int:
        return GROUP if self.minibatch_std else 1


class ResidualModel(Network):
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


class ModernModel(Network):
    network: Literal["modern"] = "modern"
    """decides which of the other keys there are"""
    latent: int = Field(64, ge=1)
    """dimensions of the latent space"""
    width: int = Field(64, ge=8, multiple_of=8)
    """channels at each resolution of both networks; twice as many within blocks"""
    blocks: int = Field(1, ge=1)
    """residual blocks at each resolution of both networks; the paper has 2"""


class MLPModel(Network):
    sizes: ClassVar[Collection[int]] = range(8, 65, 4)
    network: Literal["mlp"] = "mlp"
    """decides which of the other keys there are"""
    latent: int = Field(100, ge=1)
    """dimensions of the latent space"""
    width: int = Field(512, ge=8)
    """units of each hidden layer of both networks"""
    depth: int = Field(3, ge=1)
    """hidden layers of each"""


class GrowingModel(Network):
    network: Literal["growing"] = "growing"
    """decides which of the other keys there are"""
    latent: int = Field(128, ge=1)
    """dimensions of the latent space"""
    width: int = Field(32, ge=4)
    """channels at the whole size, doubling at each halving; 512 at most"""
    phase: int = Field(100_000, ge=0)
    """images for which each size fades in, and settles; 600,000 in the paper; 0: whole at once"""

    @property
    def group(self) -> int:
        return GROUP


class StyledModel(Network):
    network: Literal["styled"] = "styled"
    """decides which of the other keys there are"""
    latent: int = Field(64, ge=1)
    """dimensions of the latent space, and of the styles"""
    width: int = Field(16, ge=4)
    """channels at the whole size, doubling at each halving; 512 at most"""
    mapping: int = Field(4, ge=1)
    """fully connected layers that make styles of latents; the paper has 8"""

    @property
    def group(self) -> int:
        return GROUP


AnyModel = DCGANModel | ResidualModel | ModernModel | MLPModel | GrowingModel | StyledModel
Model = Annotated[AnyModel, Field(discriminator="network")]


def generator_of(model: AnyModel, data: Data) -> nn.Module:
    """Freshly initialised: latents [N, latent], classes [N, K] or None -> images."""
    return model.reading(told_generator(model, data))


def told_generator(model: AnyModel, data: Data) -> nn.Module:
    """Of what is read in texts, in place of classes, where the model draws by text."""
    latent, width, classes = model.latent, model.width, model.told
    image = (data.size, data.channels)
    match model:
        case DCGANModel(normalise=normalise, depth=depth, upsampling=upsampling):
            return dcgan.Generator(latent, width, *image, normalise, depth, classes, upsampling)
        case ResidualModel(attention=attention):
            return residual.Generator(latent, width, *image, attention, classes)
        case ModernModel(blocks=blocks):
            return modern.Generator(latent, width, blocks, *image, classes)
        case MLPModel(depth=depth):
            return mlp.Generator(latent, width, depth, *image, classes)
        case GrowingModel(phase=phase):
            return growing.Generator(latent, width, *image, phase, classes)
        case StyledModel(mapping=mapping):
            return styled.Generator(latent, width, mapping, *image, classes)


def discriminator_of(model: AnyModel, data: Data, pack: int = 1) -> nn.Module:
    """Freshly initialised: images in packs [N, pack * C, H, W], classes [N, K] or None ->
    logits [N]."""
    return model.reading(told_discriminator(model, data, pack))


def told_discriminator(model: AnyModel, data: Data, pack: int) -> nn.Module:
    """Likewise."""
    width, classes = model.width, model.told
    image = (data.size, pack * data.channels)
    match model:
        case DCGANModel(depth=depth, minibatch_std=compares):
            return dcgan.Discriminator(width, *image, depth, classes, compares)
        case ResidualModel(attention=attention, spectral=spectral):
            return residual.Discriminator(width, *image, attention, spectral, classes)
        case ModernModel(blocks=blocks):
            return modern.Discriminator(width, blocks, *image, classes)
        case MLPModel(depth=depth):
            return mlp.Discriminator(width, depth, *image, classes)
        case GrowingModel(phase=phase):
            return growing.Discriminator(width, *image, phase, classes)
        case StyledModel():  # as many channels at each resolution as the generator has
            return dcgan.Discriminator(2 * width, *image, 1, classes, minibatch_std=True)
