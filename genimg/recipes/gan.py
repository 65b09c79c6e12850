"""Generative adversarial networks: several pairs of networks, under several losses.

genimg train dcgan --data scenes
genimg train dcgan data.channels=1 data.fit=pad model.latent=12 --data MNIST_FOLDER
genimg train dcgan model.conditional=true --data LABELLED_FOLDER
genimg train wgan-gp --data scenes
genimg train biggan-small 'loss.augment=[colour,translation,cutout]' --data LABELLED_FOLDER
genimg train mlp-gan --data MNIST_FOLDER
genimg train stylegan data.scenes=simple --data scenes
genimg train r3gan model.width=128 model.blocks=2 --data CIFAR10
"""

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from typing import Any, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from genimg.contracts import Ability, Rows
from genimg.models.dcgan import doublings
from genimg.models.growing import grown_after
from genimg.models.text import asked
from genimg.recipe import Data, with_network
from genimg.recipes.adversaries import (
    DCGANModel,
    GrowingModel,
    MLPModel,
    Model,
    ModernModel,
    ResidualModel,
    StyledModel,
    discriminator_of,
    generator_of,
)
from genimg.recipes.synthesis import Synthesis
from genimg.schedule import Train
from genimg.training.adversarial import Adversarial
from genimg.training.game import Game
from genimg.training.method import Part

MIXED = ("second", "layers", "second_classes")  # columns of a pass that mixes styles
COLOUR = Data(size=32, channels=3, augment="none", holdout=2_000)  # what most of them draw


class Loss(Game):
    discriminator_rate: float = Field(1.0, gt=0)
    """factor on the learning rate for the discriminator (two time-scales, Heusel et al. 2017)"""
    beta1: float = Field(0.5, ge=0, lt=1)
    """of Adam, in both networks; 0.5 as in DCGAN's paper"""
    beta2: float = Field(0.99, ge=0, lt=1)
    """likewise, of the mean square"""
    beta2_end: float | None = Field(None, ge=0, lt=1)
    """beta2 behind train.burn_in, to where it goes along half a cosine; null: it stays"""


class GAN(Synthesis):
    model: Model = DCGANModel()
    loss: Loss = Loss()

    @model_validator(mode="before")
    @classmethod
    def name_network(cls, tree: Any) -> Any:
        return with_network(tree, "dcgan")

    @model_validator(mode="after")
    def the_network_takes_the_size(self) -> Self:
        sizes = self.model.sizes
        if self.data.size not in sizes:
            allowed = f"multiples of 4 from {min(sizes)} to {max(sizes)}"
            if not isinstance(sizes, range):
                *first, last = map(str, sizes)
                allowed = f"{', '.join(first)} or {last}"
            raise ValueError(
                f"data.size={self.data.size}: {self.recipe} takes {allowed}, with"
                f" model.network={self.model.network}"
            )
        return self

    @model_validator(mode="after")
    def filters_are_there_to_be_orthogonal(self) -> Self:
        if self.loss.orthogonal and isinstance(self.model, MLPModel):
            raise ValueError(
                f"loss.orthogonal={self.loss.orthogonal}: is of the filters of convolutions, and"
                " model.network=mlp has none; leave it out"
            )
        if self.loss.orthogonal and isinstance(self.model, GrowingModel | StyledModel):
            raise ValueError(
                f"loss.orthogonal={self.loss.orthogonal}: the weights of model.network="
                f"{self.model.network} are scaled when used, and begin about 1 large; leave it out"
            )
        return self

    @model_validator(mode="after")
    def styles_are_there_to_be_mixed(self) -> Self:
        if self.loss.style_mixing and not isinstance(self.model, StyledModel):
            raise ValueError(
                f"loss.style_mixing={self.loss.style_mixing}: model.network={self.model.network}"
                " has no styles; leave it out, or use model.network=styled"
            )
        return self

    @model_validator(mode="after")
    def critics_are_bounded_once(self) -> Self:
        loss, spectral = self.loss, getattr(self.model, "spectral", False)
        if loss.weight_clip and spectral:
            raise ValueError(
                f"loss.weight_clip={loss.weight_clip}: with model.spectral=true it does not count"
                " how large weights are; leave one of them out"
            )
        if loss.weight_clip and isinstance(self.model, GrowingModel):
            raise ValueError(
                f"loss.weight_clip={loss.weight_clip}: the weights of model.network=growing are"
                " scaled when used, and begin about 1 large; use loss.gradient_penalty"
            )
        bounds = (loss.r1, loss.r2, loss.gradient_penalty, loss.weight_clip, spectral)
        if loss.kind == "wasserstein" and not any(bounds):
            raise ValueError(
                "loss.kind=wasserstein: nothing bounds the critic, whose loss then falls for ever;"
                " give loss.gradient_penalty=10, loss.weight_clip=0.01 or loss.r1=0.1"
            )
        return self

    @model_validator(mode="after")
    def batches_are_whole_groups(self) -> Self:
        if self.loss.pack > 1 and (self.model.conditional or self.model.text):
            key = "conditional" if self.model.conditional else "text"
            raise ValueError(
                f"loss.pack={self.loss.pack}: images judged together are of several classes or"
                f" texts; leave it out, or model.{key}"
            )
        size, together = self.train.batch_size, self.together
        if size % together:
            raise ValueError(
                f"train.batch_size={size}: {together} images are judged together (packs of"
                f" {self.loss.pack}, compared in groups of {self.model.group}); give a multiple of"
                f" {together}, as {-(-size // together) * together}"
            )
        return self

    def idle(self) -> Mapping[str, str]:
        loss, unused = self.loss, {}
        if not (loss.r1 or loss.r2 or loss.r1_end or loss.r2_end):
            unused["loss.r1_every"] = "loss.r1 and loss.r2 are 0"
        if not self.model.text:
            unused["loss.drop"] = "no text is told; see model.text"
        return unused

    def cautions(self) -> Iterator[str]:
        yield from super().cautions()
        if isinstance(self.model, GrowingModel):
            most = doublings(self.data.size)
            if self.train.images < (needed := grown_after(self.model.phase, most)):
                yield (
                    f"train.images={self.train.images}: the networks draw all of"
                    f" data.size={self.data.size} after {needed} images; train on as many, or give"
                    f" model.phase={self.train.images // (2 * most)}"
                )

    @property
    def together(self) -> int:
        return math.lcm(super().together, self.loss.pack * self.model.group)

    @property
    def latent(self) -> int:
        return self.model.latent

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": generator_of(self.model, self.data)}

    def drawer(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        generator = networks["generator"]

        def compute(rows: Rows) -> Rows:
            mixed = {name: each for name, each in rows.items() if name in MIXED}
            return {"image": generator(rows["latent"], asked(generator, rows), **mixed)}

        return compute

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        able = super().abilities(networks)
        if not isinstance(self.model, StyledModel):
            return able
        draw = able["sample"]
        columns = MIXED if draw.classes else MIXED[:2]
        layers: int = networks["generator"].layers  # type: ignore[assignment]
        return able | {"mix": replace(draw, takes=(*draw.takes, *columns), layers=layers)}

    def method(self, device: torch.device) -> Adversarial:
        model, loss = self.model, self.loss
        betas, rate = (loss.beta1, loss.beta2), loss.discriminator_rate
        return Adversarial(
            Part(generator_of(model, self.data), betas, beta2_end=loss.beta2_end),
            Part(
                discriminator_of(model, self.data, loss.pack),
                betas, rate, kept=False, beta2_end=loss.beta2_end,
            ),
            latent=model.latent, classes=len(model.classes), game=loss, train=self.train,
            device=device,
        )  # fmt: skip


def dcgan() -> GAN:
    """DCGAN (Radford et al. 2016) with the non-saturating loss and R1 (Mescheder et al. 2018)."""
    return GAN(
        recipe="dcgan",
        data=COLOUR,
        train=Train(images=500_000, batch_size=64, lr=1e-3, decay="cosine", ema_half_life=20_000),
    )


def deep_conv_gan() -> GAN:
    """DCGAN as large as in its paper: 64 pixels, 1024 channels at 4 of them; with R1 and EMA."""
    return GAN(
        recipe="deep-conv-gan",
        data=Data(size=64, channels=3, augment="none", holdout=2_000),
        model=DCGANModel(latent=100, width=128, depth=0),
        train=Train(images=2_500_000, batch_size=128, lr=2e-4, ema_half_life=20_000),
        loss=Loss(beta2=0.999),
    )


def mlp_gan() -> GAN:
    """The first GAN (Goodfellow et al. 2014): fully connected, of 28 x 28 gray pixels; with R1."""
    return GAN(
        recipe="mlp-gan",
        data=Data(size=28, channels=1, augment="none", holdout=2_000),
        model=MLPModel(),
        train=Train(images=2_000_000, batch_size=64, lr=1e-3, ema_half_life=20_000),
    )


def lsgan() -> GAN:
    """LSGAN (Mao et al. 2017): least squares, 1 for real and 0 for generated images."""
    return GAN(
        recipe="lsgan",
        data=COLOUR,
        train=Train(images=500_000, batch_size=64, lr=1e-3, ema_half_life=20_000),
        loss=Loss(kind="least-squares", r1=0.0, beta1=0.5, beta2=0.999),
    )


def wgan_gp() -> GAN:
    """WGAN-GP (Gulrajani et al. 2017): a critic held to gradients of norm 1, five steps to one."""
    return GAN(
        recipe="wgan-gp",
        data=COLOUR,
        train=Train(images=2_500_000, batch_size=64, lr=1e-4, ema_half_life=20_000),
        loss=Loss(
            kind="wasserstein", r1=0.0, gradient_penalty=10.0, critic_steps=5, beta1=0.0, beta2=0.9
        ),
    )


def wgan() -> GAN:
    """WGAN (Arjovsky et al. 2017): a critic whose weights are clipped, five steps to one.

    By Adam without momentum, which stands for the paper's RMSprop.
    """
    return GAN(
        recipe="wgan",
        data=COLOUR,
        train=Train(images=2_500_000, batch_size=64, lr=5e-5, ema_half_life=20_000),
        loss=Loss(
            kind="wasserstein", r1=0.0, weight_clip=0.01, critic_steps=5, beta1=0.0, beta2=0.99
        ),
    )


def sngan() -> GAN:
    """SNGAN (Miyato et al. 2018): residual networks, spectral normalisation, hinge loss."""
    return GAN(
        recipe="sngan",
        data=COLOUR,
        model=ResidualModel(),
        train=Train(images=2_500_000, batch_size=64, lr=2e-4, decay="linear", ema_half_life=20_000),
        loss=Loss(kind="hinge", r1=0.0, critic_steps=5, beta1=0.0, beta2=0.9),
    )


def sagan() -> GAN:
    """SAGAN (Zhang et al. 2019): SNGAN with self-attention in both, and two learning rates."""
    return GAN(
        recipe="sagan",
        data=COLOUR,
        model=ResidualModel(attention=True),
        train=Train(images=1_000_000, batch_size=64, lr=1e-4, ema_half_life=20_000),
        loss=Loss(kind="hinge", r1=0.0, discriminator_rate=4.0, beta1=0.0, beta2=0.9),
    )


def biggan_small() -> GAN:
    """BigGAN (Brock et al. 2019), small: SAGAN by class, in normalisation and by projection."""
    return GAN(
        recipe="biggan-small",
        data=COLOUR,
        model=ResidualModel(attention=True, conditional=True),
        train=Train(images=2_500_000, batch_size=64, lr=2e-4, ema_half_life=20_000),
        loss=Loss(kind="hinge", r1=0.0, critic_steps=4, orthogonal=1e-4, beta1=0.0, beta2=0.999),
    )


def progan() -> GAN:
    """ProGAN (Karras et al. 2018): both networks grow from 4 pixels; a critic as WGAN-GP's.

    With five steps to one, where the paper has one: in trainings as short as these the critic else
    falls behind the generator. loss.kind=logistic with loss.r1=1 needs no more than one.
    """
    return GAN(
        recipe="progan",
        data=COLOUR,
        model=GrowingModel(),
        train=Train(images=2_000_000, batch_size=64, lr=1e-3, ema_half_life=20_000),
        loss=Loss(
            kind="wasserstein", r1=0.0, gradient_penalty=10.0, drift=0.001, critic_steps=5,
            beta1=0.0, beta2=0.99,
        ),
    )  # fmt: skip


def stylegan() -> GAN:
    """StyleGAN2 (Karras et al. 2020), small: styles for each layer, mixed in training; lazy R1.

    Without noise in its layers and the penalty on path lengths. The generator's weights are about 1
    large, which those of its discriminator, one as `dcgan`'s, are not: hence two learning rates. At
    the paper's the generator falls behind in trainings as short as these.
    """
    return GAN(
        recipe="stylegan",
        data=COLOUR,
        model=StyledModel(),
        train=Train(images=500_000, batch_size=64, lr=1e-2, decay="cosine", ema_half_life=20_000),
        loss=Loss(r1_every=16, style_mixing=0.9, discriminator_rate=0.05, beta1=0.0, beta2=0.99),
    )


def r3gan() -> GAN:
    """R3GAN (Huang et al. 2024): relativistic loss, R1 and R2, residual blocks of today.

    Rates and penalties go along the paper's cosines, here over the whole of a much shorter training
    in smaller batches, and so at five times its learning rate. For few images add the paper's
    augmentation: loss.augment=[colour,translation] loss.probability=0 loss.probability_end=0.55.
    """
    return GAN(
        recipe="r3gan",
        data=COLOUR,
        model=ModernModel(),
        train=Train(
            images=1_000_000, batch_size=64, lr=1e-3, decay="cosine", lr_end=2.5e-4,
            ema_half_life=20_000,
        ),
        loss=Loss(
            kind="relativistic", r1=1.0, r1_end=0.1, r2=1.0, r2_end=0.1, r1_every=1,
            beta1=0.0, beta2=0.9, beta2_end=0.99,
        ),
    )  # fmt: skip
