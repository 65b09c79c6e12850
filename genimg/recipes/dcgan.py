"""DCGAN trained with the non-saturating loss and R1.

    genimg train dcgan --data scenes
    genimg train dcgan data.channels=1 data.fit=pad model.latent=12 --data MNIST_FOLDER

Judged by the sliced Wasserstein distance, which needs no pretrained network; with a classifier
(`genimg evaluate --judge`) also by FID on its features, inception score and shares of classes.
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Dataset
from genimg.images import to_bytes_range
from genimg.inference import Inference, device_of, generated, real_images
from genimg.metrics.distributions import diversity
from genimg.metrics.sliced_wasserstein import sliced_wasserstein
from genimg.models.dcgan import Discriminator, Generator
from genimg.recipe import Data, Recipe, Section, Train
from genimg.training.adversarial import Adversarial

PATCHES = 16  # of each image, for the sliced Wasserstein distance


class Model(Section):
    latent: int = Field(64, ge=1)
    """dimensions of the latent space; about as many as the images vary in (digits: 12)"""
    width: int = Field(32, ge=4)
    """channels at half the final resolution, doubling at each halving"""
    depth: int = Field(1, ge=0)
    """3x3 convolutions at each resolution of both networks; 0: only those of the paper"""
    normalise: bool = True
    """batch normalisation in the generator, as in the paper"""


class Loss(Section):
    r1: float = Field(0.1, ge=0)
    """gamma of the R1 penalty; 0 turns it off"""
    r1_every: int = Field(4, ge=1)
    """steps between penalties (lazy regularisation)"""
    beta1: float = Field(0.5, ge=0, lt=1)
    """of Adam; 0 keeps short trainings from losing whole kinds of images"""


class Evaluate(Section):
    samples: int = Field(1024, ge=16)
    """images generated, and held-out images compared with"""


class DCGAN(Recipe):
    capabilities: ClassVar[tuple[str, ...]] = ("sample",)
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("swd", "min")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def size_is_a_power_of_two(self) -> Self:
        if self.data.size not in (16, 32, 64, 128):
            raise ValueError(f"data.size={self.data.size}: dcgan takes 16, 32, 64 or 128")
        return self

    def generator(self) -> Generator:
        return Generator(
            self.model.latent,
            self.model.width,
            self.data.size,
            self.data.channels,
            self.model.normalise,
            self.model.depth,
        )

    def networks(self) -> dict[str, nn.Module]:
        return {"generator": self.generator()}

    def method(self, device: torch.device) -> Adversarial:
        return Adversarial(
            self.generator(),
            Discriminator(self.model.width, self.data.size, self.data.channels, self.model.depth),
            latent=self.model.latent,
            r1=self.loss.r1,
            r1_every=self.loss.r1_every,
            train=self.train,
            device=device,
            betas=(self.loss.beta1, 0.99),
        )

    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        count = min(self.evaluation.samples, len(data))
        fake = to_bytes_range(self.generated(inference, count))
        real = real_images(data, count)
        return {
            "swd": sliced_wasserstein(real, fake, patches_per_image=PATCHES),
            "diversity": diversity(fake),
        }

    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        return self.generated(inference, 64), 8

    def generated(self, inference: Inference, count: int) -> Tensor:
        generator = inference.networks["generator"]
        return generated(generator, self.model.latent, count, device=device_of(generator))


def dcgan() -> DCGAN:
    return DCGAN(
        recipe="dcgan",
        data=Data(size=32, channels=3, augment="none", holdout=2_000),
        train=Train(images=500_000, batch_size=64, lr=1e-3, decay="cosine", ema_half_life=20_000),
    )
