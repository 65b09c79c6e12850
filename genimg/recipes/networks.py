"""The networks that restorers may have, as sections of a recipe."""

from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from genimg.models.denoising import DnCNN, FFDNet
from genimg.models.drunet import DRUNet
from genimg.models.gated import GatedUNet
from genimg.models.nafnet import NAFNet
from genimg.models.restoring import RestoringNetwork
from genimg.models.translating import TranslatingResNet, TranslatingUNet
from genimg.models.upscaling import EDSR, Plain
from genimg.section import Section


class PlainModel(Section):
    network: Literal["plain"] = "plain"
    """decides which of the other keys there are"""
    width: int = Field(48, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(8, ge=1)
    """residual blocks of two 3x3 convolutions"""
    unshuffle: Literal[1, 2, 4] = 2
    """at which part of the resolution it computes: 2 a half; of low resolution images all: 1"""


class FFDNetModel(Section):
    network: Literal["ffdnet"] = "ffdnet"
    """decides which of the other keys there are"""
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(7, ge=1)
    """residual blocks of two convolutions, all at half resolution"""


class DnCNNModel(Section):
    network: Literal["dncnn"] = "dncnn"
    """decides which of the other keys there are"""
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    depth: int = Field(20, ge=3)
    """convolutions; 17 suffice for a single noise level"""


class DRUNetModel(Section):
    network: Literal["drunet"] = "drunet"
    """decides which of the other keys there are"""
    width: int = Field(32, ge=8)
    """channels at full resolution, doubling at each halving"""
    depth: int = Field(3, ge=1, le=4)
    """halvings"""
    blocks: int = Field(2, ge=1)
    """residual blocks at each resolution, down and up"""


class NAFNetModel(Section):
    network: Literal["nafnet"] = "nafnet"
    """decides which of the other keys there are"""
    width: int = Field(16, ge=8)
    """channels at full resolution, doubling at each halving"""
    encoder: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 1, 1), min_length=1, max_length=4)
    """blocks before each halving"""
    middle: int = Field(1, ge=0)
    """blocks at the lowest resolution"""
    decoder: tuple[Annotated[int, Field(ge=0)], ...] = Field((1, 1, 1), min_length=1, max_length=4)
    """blocks behind each doubling, the highest first"""

    @model_validator(mode="after")
    def levels_agree(self) -> Self:
        if len(self.encoder) != len(self.decoder):
            raise ValueError(
                f"encoder={list(self.encoder)}: has {len(self.encoder)} levels, and decoder"
                f" {len(self.decoder)}"
            )
        return self


class EDSRModel(Section):
    network: Literal["edsr"] = "edsr"
    """decides which of the other keys there are"""
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(16, ge=1)
    """residual blocks of two 3x3 convolutions"""


class GatedModel(Section):
    network: Literal["gated"] = "gated"
    """decides which of the other keys there are"""
    width: int = Field(24, ge=8)
    """channels at full resolution, doubling at each halving"""
    depth: int = Field(3, ge=1, le=4)
    """halvings"""
    blocks: int = Field(2, ge=1)
    """residual blocks of gated convolutions at each resolution, down and up"""


class UNetModel(Section):
    network: Literal["unet"] = "unet"
    """decides which of the other keys there are"""
    width: int = Field(32, ge=8)
    """channels at full resolution, doubling at each halving"""
    depth: int = Field(3, ge=1, le=5)
    """halvings"""


class ResNetModel(Section):
    network: Literal["resnet"] = "resnet"
    """decides which of the other keys there are"""
    width: int = Field(32, ge=8)
    """channels at full resolution, doubling at each halving"""
    depth: int = Field(2, ge=0, le=4)
    """halvings"""
    blocks: int = Field(6, ge=1)
    """residual blocks of two 3x3 convolutions, at the lowest resolution"""


AnyModel = (
    PlainModel | FFDNetModel | DnCNNModel | DRUNetModel | NAFNetModel | EDSRModel | GatedModel
    | UNetModel | ResNetModel
)  # fmt: skip
Model = Annotated[AnyModel, Field(discriminator="network")]


def network_of(model: AnyModel, channels: int, maps: int, scale: int) -> RestoringNetwork:
    """Freshly initialised. maps: condition maps that it is told; scale: by which it enlarges."""
    match model:
        case PlainModel():
            return Plain(
                model.width, model.blocks, channels, maps, scale, unshuffle=model.unshuffle
            )
        case EDSRModel():
            return EDSR(model.width, model.blocks, channels, scale, maps=maps)
        case FFDNetModel():
            return FFDNet(model.width, model.blocks, channels, maps)
        case DnCNNModel():
            return DnCNN(model.width, model.depth, channels, maps)
        case DRUNetModel():
            return DRUNet(model.width, model.depth, model.blocks, channels, maps)
        case NAFNetModel():
            return NAFNet(model.width, model.encoder, model.middle, model.decoder, channels, maps)
        case GatedModel():
            return GatedUNet(model.width, model.depth, model.blocks, channels, maps)
        case UNetModel():
            return TranslatingUNet(model.width, model.depth, channels, maps)
        case ResNetModel():
            return TranslatingResNet(model.width, model.depth, model.blocks, channels, maps)


def refuse_single(model: AnyModel, size: int, images: int) -> None:
    """ValueError where of a batch of so many square images one value is left to be normalised."""
    if isinstance(model, UNetModel) and size <= 2**model.depth and images == 1:
        raise ValueError(
            f"model.depth={model.depth}: of one image of {size} pixels a channel is left with one"
            " value, of which there is no variance; use fewer halvings, or larger batches"
        )


def scales_of(model: AnyModel) -> tuple[int, ...]:
    """By what such a network can enlarge."""
    if isinstance(model, EDSRModel):
        return (2, 3, 4)
    return (1, 2, 3, 4) if isinstance(model, PlainModel) else (1,)
