"""Translators: they turn images of one kind into images of another, learnt from pairs or without.

genimg train pix2pix                                      # masks of scenes to scenes
genimg train pix2pix --data FOLDER_WITH_images_AND_masks
genimg train pix2pix task=pairs --data FOLDER_WITH_input_AND_target
genimg train cyclegan task=folders --data FOLDER_OF_TWO_FOLDERS
genimg train cyclegan task=thickened data.size=28 data.channels=1 --data MNIST_FOLDER
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Rows
from genimg.models.patches import PatchDiscriminator
from genimg.models.restoring import RestoringNetwork
from genimg.recipe import Data
from genimg.recipes.networks import Model, ResNetModel, UNetModel
from genimg.recipes.translating import Translator
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Part
from genimg.training.translation import CycleTranslation, PairedTranslation, both

BETAS = (0.5, 0.999)  # of Adam, in both papers

Contest = Literal["logistic", "least-squares", "hinge"]
Task = Literal["pairs", "masks", "gray", "night", "mirrored", "thickened"]

DATA = Data(size=64, channels=3, augment="flip", holdout=1_000)
TRAIN = Train(
    images=200_000, batch_size=16, lr=5e-4, decay="linear", ema_half_life=5_000,
    checkpoint_every=20_000,
)  # fmt: skip


class PairedLoss(Section):
    kind: Contest = "logistic"
    """by what a discriminator of patches tells pairs from images with their translations"""
    absolute: float = Field(100.0, ge=0)
    """weight of the mean absolute difference, beside 1 of deceiving the discriminator"""


class CycleLoss(Section):
    kind: Contest = "logistic"
    """by what discriminators tell images of a kind from translated ones; the paper's least-squares
    takes a smaller cycle here, as 1, to leave the identity"""
    cycle: float = Field(10.0, gt=0)
    """weight of the difference of images that went both ways, beside 1 of deceiving"""
    identity: float = Field(0.0, ge=0)
    """weight of that of images translated into their own kind; 5, where colours are to stay"""


class Pix2Pix(Translator):
    task: Task = "masks"
    """masks to images; gray to colours; day to night; as mirrored or thickened; or pairs on disk"""
    model: Model = UNetModel()
    loss: PairedLoss = PairedLoss()

    def networks(self) -> dict[str, nn.Module]:
        return {"translator": self.translator()}

    def forth(self, networks: Mapping[str, nn.Module]) -> RestoringNetwork:
        return known(networks["translator"])

    def method(self, device: torch.device) -> PairedTranslation:
        discriminator = PatchDiscriminator(2 * self.data.channels)
        return PairedTranslation(
            Part(self.translator(), BETAS), Part(discriminator, BETAS, kept=False), self.sides,
            self.loss.kind, self.loss.absolute, self.train, device,
        )  # fmt: skip


class CycleGAN(Translator):
    task: Task | Literal["folders"] = "night"
    """as pix2pix's, whose pairs are judged by and not learnt from; folders: two, without pairs"""
    model: Model = ResNetModel()
    loss: CycleLoss = CycleLoss()

    @model_validator(mode="after")
    def batches_have_halves(self) -> Self:
        if self.train.batch_size % self.together:
            raise ValueError(
                f"train.batch_size={self.train.batch_size}: of each two images one is of the first"
                " kind, and one of the second; give a multiple of 2"
            )
        return self

    @property
    def together(self) -> int:
        return 2 if self.paired else super().together

    def apart(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """As `sides`, but that no image comes as both: of two neighbours each is of one kind."""
        first, second = self.sides(rows)
        return (first[0::2], second[1::2]) if self.paired else (first, second)

    def networks(self) -> dict[str, nn.Module]:
        return {"translator": two_ways(self.translator(), self.translator())}

    def forth(self, networks: Mapping[str, nn.Module]) -> RestoringNetwork:
        return known(both(networks["translator"])[0])

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        forth, back = both(networks["translator"])

        def compute(rows: Rows) -> Rows:
            images, turned = rows["image"], rows["back"] > 0
            if not turned.any():
                return {"image": forth(images)}
            if turned.all():
                return {"image": back(images)}
            return {"image": torch.where(turned[:, None, None, None], back(images), forth(images))}

        (ability,) = super().abilities(networks).values()
        honoured = frozenset({"back"})
        ability = replace(ability, compute=compute, takes=("image", "back"), conditions=honoured)
        return {"translate": ability}

    def method(self, device: torch.device) -> CycleTranslation:
        translator = two_ways(self.translator(), self.translator())
        discriminator = two_ways(*(PatchDiscriminator(self.data.channels) for _ in range(2)))
        return CycleTranslation(
            Part(translator, BETAS), Part(discriminator, BETAS, kept=False), self.apart,
            self.loss.kind, self.loss.cycle, self.loss.identity, self.train, device,
        )  # fmt: skip


def known(network: nn.Module) -> RestoringNetwork:
    assert isinstance(network, RestoringNetwork)
    return network


def two_ways(forth: nn.Module, back: nn.Module) -> nn.ModuleDict:
    """Two networks as one, as `both` reads it."""
    return nn.ModuleDict({"forth": forth, "back": back})


def pix2pix() -> Pix2Pix:
    """pix2pix (Isola et al. 2017): a U-Net against a discriminator of patches, from pairs."""
    return Pix2Pix(recipe="pix2pix", data=DATA, train=TRAIN)


def cyclegan() -> CycleGAN:
    """CycleGAN (Zhu et al. 2017): two translators that undo one another, without pairs."""
    return CycleGAN(recipe="cyclegan", data=DATA, train=TRAIN)
