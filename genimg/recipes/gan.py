"""Generative adversarial networks: DCGAN's two, under several losses.

genimg train dcgan --data scenes
genimg train dcgan data.channels=1 data.fit=pad model.latent=12 --data MNIST_FOLDER
genimg train dcgan model.conditional=true --data LABELLED_FOLDER
genimg train wgan-gp --data scenes
"""

from collections.abc import Callable, Mapping
from typing import Self

import torch
from pydantic import Field, model_validator
from torch import nn

from genimg.contracts import Rows
from genimg.models.dcgan import Discriminator, Generator
from genimg.recipe import Data
from genimg.recipes.synthesis import ByClass, Synthesis
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.adversarial import Adversarial, Game, Kind
from genimg.training.method import Part


class Model(ByClass):
    latent: int = Field(64, ge=1)
    """dimensions of the latent space; about as many as the images vary in (digits: 12)"""
    width: int = Field(32, ge=4)
    """channels at half the final resolution, doubling at each halving"""
    depth: int = Field(1, ge=0)
    """3x3 convolutions at each resolution of both networks; 0: only those of the paper"""
    normalise: bool = True
    """batch normalisation in the generator, as in the paper"""


class Loss(Section):
    kind: Kind = "logistic"
    """logistic, not saturating (Goodfellow 2014); least-squares (Mao 2017); wasserstein"""
    r1: float = Field(0.1, ge=0)
    """gamma of the R1 penalty; 0 turns it off"""
    r1_every: int = Field(4, ge=1)
    """steps between penalties (lazy regularisation)"""
    gradient_penalty: float = Field(0.0, ge=0)
    """weight of the penalty on gradient norms other than 1, between real and generated images"""
    critic_steps: int = Field(1, ge=1)
    """steps of the discriminator for one of the generator, each on images of its own"""
    beta1: float = Field(0.5, ge=0, lt=1)
    """of Adam, in both networks; 0.5 as in DCGAN's paper"""
    beta2: float = Field(0.99, ge=0, lt=1)
    """likewise, of the mean square"""


class GAN(Synthesis):
    model: Model = Model()
    loss: Loss = Loss()

    @model_validator(mode="after")
    def size_is_a_power_of_two(self) -> Self:
        if self.data.size not in (16, 32, 64, 128):
            raise ValueError(f"data.size={self.data.size}: {self.recipe} takes 16, 32, 64 or 128")
        return self

    @property
    def latent(self) -> int:
        return self.model.latent

    def generator(self) -> Generator:
        return Generator(
            self.model.latent,
            self.model.width,
            self.data.size,
            self.data.channels,
            self.model.normalise,
            self.model.depth,
            len(self.model.classes),
        )

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator()}

    def drawer(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        generator = networks["generator"]

        def compute(rows: Rows) -> Rows:
            return {"image": generator(rows["latent"], rows.get("classes"))}

        return compute

    def method(self, device: torch.device) -> Adversarial:
        model, data, loss = self.model, self.data, self.loss
        betas, classes = (loss.beta1, loss.beta2), len(model.classes)
        discriminator = Discriminator(model.width, data.size, data.channels, model.depth, classes)
        game = Game(loss.kind, loss.r1, loss.r1_every, loss.gradient_penalty, loss.critic_steps)
        return Adversarial(
            Part(self.generator(), betas), Part(discriminator, betas, kept=False),
            latent=model.latent, classes=classes, game=game, train=self.train, device=device,
        )  # fmt: skip


def dcgan() -> GAN:
    """DCGAN (Radford et al. 2016) with the non-saturating loss and R1 (Mescheder et al. 2018)."""
    return GAN(
        recipe="dcgan",
        data=Data(size=32, channels=3, augment="none", holdout=2_000),
        train=Train(images=500_000, batch_size=64, lr=1e-3, decay="cosine", ema_half_life=20_000),
    )


def lsgan() -> GAN:
    """LSGAN (Mao et al. 2017): least squares, 1 for real and 0 for generated images."""
    return GAN(
        recipe="lsgan",
        data=Data(size=32, channels=3, augment="none", holdout=2_000),
        train=Train(images=500_000, batch_size=64, lr=1e-3, ema_half_life=20_000),
        loss=Loss(kind="least-squares", r1=0.0, beta1=0.5, beta2=0.999),
    )


def wgan_gp() -> GAN:
    """WGAN-GP (Gulrajani et al. 2017): a critic held to gradients of norm 1, five steps to one."""
    return GAN(
        recipe="wgan-gp",
        data=Data(size=32, channels=3, augment="none", holdout=2_000),
        train=Train(images=2_500_000, batch_size=64, lr=1e-4, ema_half_life=20_000),
        loss=Loss(
            kind="wasserstein", r1=0.0, gradient_penalty=10.0, critic_steps=5, beta1=0.0, beta2=0.9
        ),
    )
