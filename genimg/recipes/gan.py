"""Generative adversarial networks: DCGAN's two, under several losses.

    genimg train dcgan --data scenes
    genimg train dcgan data.channels=1 data.fit=pad model.latent=12 --data MNIST_FOLDER
    genimg train wgan-gp --data scenes

Judged by the sliced Wasserstein distance, which needs no pretrained network; with a classifier
(`genimg evaluate --judge`) also by FID on its features, inception score and shares of classes.
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.inference import Inference, latents, real_images
from genimg.judging import BETTER, Best, judged_in_training, refuse_best, refuse_judge
from genimg.metrics.distributions import diversity
from genimg.metrics.sliced_wasserstein import DIRECTIONS, PATCH, sliced_wasserstein
from genimg.models.dcgan import Discriminator, Generator
from genimg.pixels import to_bytes_range
from genimg.recipe import Data, Recipe
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.adversarial import Adversarial, Game, Kind
from genimg.training.method import Part

FEWEST = 16  # held-out images that are worth comparing with
PATCHES = 16  # of each generated image and level, and as many of held-out ones
VARIED = 256  # images whose diversity is measured, by all their pairs


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


class Evaluate(Section):
    samples: int = Field(8192, ge=FEWEST)
    """images generated, and held-out images compared with, at most"""
    judge: str | None = None
    """a classifier (NAME, NAME@ALIAS, NAME@7): checkpoints are chosen by FID on its features"""
    best: Best | None = None
    """the metric that chooses the best checkpoint; null: judge_fid with a judge, else swd"""


class GAN(Recipe):
    helpers: ClassVar[Mapping[str, str]] = {"judge": "evaluation.judge"}
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("swd", "min")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def size_is_a_power_of_two(self) -> Self:
        if self.data.size not in (16, 32, 64, 128):
            raise ValueError(f"data.size={self.data.size}: {self.recipe} takes 16, 32, 64 or 128")
        return self

    @model_validator(mode="after")
    def enough_is_held_out(self) -> Self:
        if self.data.holdout < FEWEST:
            raise ValueError(
                f"data.holdout={self.data.holdout}: {self.recipe} is compared with at least "
                f"{FEWEST} held-out images"
            )
        return self

    @model_validator(mode="after")
    def the_best_is_measured(self) -> Self:
        refuse_best(self.evaluation.best, self.evaluation.judge, self.data)
        return self

    @property
    def chosen_by(self) -> tuple[str, Literal["min", "max"]]:
        best = self.evaluation.best or ("judge_fid" if self.evaluation.judge else "swd")
        return best, BETTER[best]

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        refuse_judge(self.data, helper, f"evaluation.judge={self.evaluation.judge}")

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

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        generator = networks["generator"]

        def compute(rows: Rows) -> Rows:
            return {"image": generator(rows["latent"])}

        data = self.data
        draw = Ability(
            compute, data.channels, ("latent",), latent=self.model.latent, side=data.size
        )
        return dict.fromkeys(("sample", "interpolate", "decode"), draw)

    def method(self, device: torch.device) -> Adversarial:
        model, data, loss = self.model, self.data, self.loss
        betas = (loss.beta1, loss.beta2)
        discriminator = Discriminator(model.width, data.size, data.channels, model.depth)
        game = Game(loss.kind, loss.r1, loss.r1_every, loss.gradient_penalty, loss.critic_steps)
        return Adversarial(
            Part(self.generator(), betas), Part(discriminator, betas, kept=False),
            latent=model.latent, game=game, train=self.train, device=device,
        )  # fmt: skip

    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """swd: sliced Wasserstein distance; diversity: of the images, in levels of 0 to 255;

        with a judge, what genimg.judging tells.
        """
        mine = inference.share(self.evaluation.samples)
        fake = self.generated(inference, mine)
        chosen = data.choose(self.evaluation.samples)
        share = inference.share(len(chosen))
        real = real_images(data, chosen[share.start : share.stop], inference.device)
        metrics = {
            "swd": sliced_wasserstein(real, fake, patches=self.patches(), sync=inference.sync),
            "diversity": diversity(inference.gather(fake[: max(0, VARIED - mine.start)])),
        }
        if "judge" in inference.helpers:
            best = self.evaluation.best
            metrics |= judged_in_training(inference, fake, data, chosen, best)
        return metrics

    def patches(self) -> int:
        return PATCHES * self.evaluation.samples

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        judge = self.evaluation.judge
        about: dict[str, str | int] = {"judge": judge} if judge else {}
        return about | {
            "images": min(self.evaluation.samples, len(data)),
            "samples": self.evaluation.samples,
            "seed": 0,
            "detector": f"patches of {PATCH}x{PATCH} pixels of a Laplacian pyramid",
            "method": f"sliced Wasserstein distance (Karras et al. 2018) x 1000, {self.patches()} "
            f"patches a level, {DIRECTIONS} directions",
        }

    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        return self.generated(inference, range(64)).float().cpu() / 127.5 - 1, 8

    def generated(self, inference: Inference, seeds: range) -> Tensor:
        """uint8 [N, C, size, size] on the device: the images of seeds, if any."""
        shape = (0, self.data.channels, self.data.size, self.data.size)
        parts = [torch.empty(shape, dtype=torch.uint8, device=inference.device)]
        for start in range(seeds.start, seeds.stop, inference.at_once):
            few = torch.arange(
                start, min(start + inference.at_once, seeds.stop), device=inference.device
            )
            drawn = latents(few, self.model.latent)
            parts.append(to_bytes_range(inference.run(inference.networks["generator"], drawn)))
        return torch.cat(parts)


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
