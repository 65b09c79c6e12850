"""Denoisers: one network for Gaussian noise of any level up to sigma 55.

    genimg train ffdnet data.channels=1 --data Train400
    genimg evaluate denoiser evaluation.sigmas=[15,25,50] --data BSD68

Protocol (that of DnCNN and its successors): the noise is float, not clipped, drawn anew for each
image from a fixed seed; the output is clipped and rounded to bytes before the PSNR; no crop.
"""

from typing import Annotated, ClassVar, Literal, Self

import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor

from genimg.degradations.noise import Noise as GaussianNoise
from genimg.models.restoring import RestoringNetwork
from genimg.recipe import Data
from genimg.recipes.looked import Looked
from genimg.recipes.networks import DnCNNModel, DRUNetModel, FFDNetModel, network_of
from genimg.recipes.restoring import Restoring
from genimg.schedule import Train
from genimg.section import Section

Kind = Literal["absolute", "squared"]


class Loss(Section):
    kind: Kind = "absolute"
    """mean difference of restored and clean pixels: absolute, or squared"""


class Noise(Section):
    low: float = Field(0.0, ge=0, le=255)
    """smallest sigma in training, on the scale of 0 to 255"""
    high: float = Field(55.0, ge=0, le=255)
    """largest sigma in training"""


class Evaluate(Section):
    sigmas: tuple[Annotated[float, Field(ge=0, le=255)], ...] = Field(
        (15.0, 25.0, 50.0), min_length=1
    )
    """noise levels, on the scale of 0 to 255"""
    images: int = Field(100, ge=1)
    """whole held-out images, at most"""
    seed: int = Field(0, ge=0, lt=2**63)
    """decides the noise"""


class Denoiser(Restoring):
    tells: ClassVar[bool] = True  # whether its network is told the noise level

    noise: Noise = Noise()
    model: FFDNetModel | DRUNetModel | DnCNNModel
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def noise_is_a_range(self) -> Self:
        if self.noise.low > self.noise.high:
            raise ValueError(
                f"noise.low={self.noise.low:g}: must be at most noise.high={self.noise.high:g}"
            )
        return self

    @property
    def operation(self) -> str:
        return "denoise"

    @property
    def told(self) -> tuple[str, ...]:
        return ("sigma",) if self.tells else ()

    @property
    def looked(self) -> Looked:
        return Looked(self.evaluation.images, self.evaluation.seed)

    def restorer(self) -> RestoringNetwork:
        return network_of(self.model, self.data.channels, len(self.told), scale=1)

    def damage(self) -> tuple[GaussianNoise]:
        return (GaussianNoise(low=self.noise.low, high=self.noise.high),)

    def tests(self) -> dict[str, tuple[GaussianNoise]]:
        sigmas = self.evaluation.sigmas
        return {f"{sigma:g}": (GaussianNoise(low=sigma, high=sigma),) for sigma in sigmas}

    def damage_told(self) -> str:
        return "noise that is float, not clipped"

    def loss_of(self, restored: Tensor, clean: Tensor) -> Tensor:
        return (F.l1_loss if self.loss.kind == "absolute" else F.mse_loss)(restored, clean)


class FFDNetDenoiser(Denoiser):
    model: FFDNetModel = FFDNetModel()


class DRUNetDenoiser(Denoiser):
    model: DRUNetModel = DRUNetModel()


class DnCNNDenoiser(Denoiser):
    tells: ClassVar[bool] = False

    model: DnCNNModel = DnCNNModel()


def ffdnet() -> FFDNetDenoiser:
    """FFDNet (Zhang et al. 2018), told the noise level; at half resolution, so it is fast."""
    return FFDNetDenoiser(
        recipe="ffdnet",
        data=Data(size=48, channels=3, fit="crop", augment="dihedral", holdout=20),
        train=Train(
            images=400_000, batch_size=32, lr=3e-3, warmup=3_200, decay="cosine",
            ema_half_life=5_000, clip_norm=1.0, checkpoint_every=50_000,
        ),
    )  # fmt: skip


def dncnn() -> DnCNNDenoiser:
    """DnCNN-B (Zhang et al. 2017): blind to the noise level, at full resolution.

    With Adam in place of the paper's gradient descent, and patches of 48 pixels, not 50.
    """
    return DnCNNDenoiser(
        recipe="dncnn",
        data=Data(size=48, channels=3, fit="crop", augment="dihedral", holdout=20),
        loss=Loss(kind="squared"),
        train=Train(
            images=400_000, batch_size=128, lr=1e-3, decay="cosine", ema_half_life=5_000,
            checkpoint_every=50_000,
        ),
    )  # fmt: skip


def drunet() -> DRUNetDenoiser:
    """DRUNet (Zhang et al. 2021), told the noise level; without biases, the best for its size."""
    return DRUNetDenoiser(
        recipe="drunet",
        data=Data(size=64, channels=3, fit="crop", augment="dihedral", holdout=20),
        train=Train(
            images=400_000, batch_size=16, lr=1e-3, warmup=1_600, decay="cosine",
            ema_half_life=5_000, clip_norm=1.0, checkpoint_every=50_000,
        ),
    )  # fmt: skip
