"""FFDNet: one network for Gaussian noise of any level up to sigma 55.

    genimg train ffdnet data.channels=1 --data Train400
    genimg evaluate denoiser evaluation.sigmas=[15,25,50] --data BSD68

Protocol (that of DnCNN and its successors): the noise is float, not clipped, drawn anew for each
image from a fixed seed; the output is clipped and rounded to bytes before the PSNR; no crop.
"""

from itertools import groupby
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import Dataset
from genimg.data.degradations import draw_sigma, gaussian_noise
from genimg.images import to_bytes_range
from genimg.inference import Inference, device_of, real_images, to_floats
from genimg.metrics.fidelity import psnr, ssim
from genimg.models.ffdnet import FFDNet
from genimg.recipe import Data, Recipe, Section, Train
from genimg.training.restoration import Restoration


class Model(Section):
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(7, ge=1)
    """residual blocks of two convolutions, all at half resolution"""


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
    seed: int = Field(0, ge=0)
    """decides the noise"""


class FFDNetRecipe(Recipe):
    capabilities: ClassVar[tuple[str, ...]] = ("restore",)
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("psnr", "max")

    model: Model = Model()
    noise: Noise = Noise()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def noise_is_a_range(self) -> Self:
        if self.noise.low > self.noise.high:
            raise ValueError(
                f"noise.low={self.noise.low:g}: must be at most noise.high={self.noise.high:g}"
            )
        return self

    def restorer(self) -> FFDNet:
        return FFDNet(self.model.width, self.model.blocks, self.data.channels)

    def networks(self) -> dict[str, nn.Module]:
        return {"restorer": self.restorer()}

    def method(self, device: torch.device) -> Restoration:
        return Restoration(self.restorer(), self.degrade, self.train, device, betas=(0.9, 0.99))

    def degrade(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        sigma = draw_sigma(keys, self.noise.low, self.noise.high)
        return gaussian_noise(images, keys, sigma), sigma

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """PSNR in dB and SSIM at each sigma on whole images; `psnr` is the mean over sigmas."""
        restorer = inference.networks["restorer"]
        indices = range(min(self.evaluation.images, len(data)))
        wholes = sorted(((i, data.whole(i)) for i in indices), key=lambda item: item[1].shape)
        metrics: dict[str, float] = {}
        for sigma in self.evaluation.sigmas:
            scores = [
                self.scores(restorer, torch.tensor([i for i, _ in group]), images, sigma)
                for group, images in same_shape(wholes)
            ]
            fidelity, similarity = torch.cat(scores, dim=1).mean(dim=1).tolist()
            metrics[f"psnr_{sigma:g}"] = fidelity
            metrics[f"ssim_{sigma:g}"] = similarity
        psnrs = [value for name, value in metrics.items() if name.startswith("psnr")]
        return {"psnr": sum(psnrs) / len(psnrs)} | metrics

    def scores(self, restorer: nn.Module, index: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """float64 [2, N]: PSNR and SSIM of uint8 [N, C, H, W] with noise of their indices."""
        floats = to_floats(clean, device_of(restorer))
        keys = rng.fold(self.evaluation.seed, index).to(floats.device)
        level = torch.full((len(index),), sigma, device=floats.device)
        restored = restorer(gaussian_noise(floats, keys, level), level)
        pixels = to_bytes_range(restored).cpu()
        return torch.stack([psnr(pixels, clean), ssim(pixels, clean)])

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: clean, noisy at sigma 25, restored."""
        restorer = inference.networks["restorer"]
        images = to_floats(real_images(data, min(8, len(data))), device_of(restorer))
        keys = rng.fold(self.evaluation.seed, torch.arange(len(images))).to(images.device)
        level = torch.full((len(images),), 25.0, device=images.device)
        noisy = gaussian_noise(images, keys, level)
        columns = torch.stack([images, noisy, restorer(noisy, level)], dim=1)
        return columns.flatten(0, 1).clamp(-1, 1).float().cpu(), 6


def same_shape(
    wholes: list[tuple[int, Tensor]], at_once: int = 8
) -> list[tuple[list[tuple[int, Tensor]], Tensor]]:
    """Runs of images of one shape, at most `at_once` each, stacked."""
    runs = []
    for _, group in groupby(wholes, key=lambda item: item[1].shape):
        members = list(group)
        for start in range(0, len(members), at_once):
            part = members[start : start + at_once]
            runs.append((part, torch.stack([image for _, image in part]).cpu()))
    return runs


def ffdnet() -> FFDNetRecipe:
    return FFDNetRecipe(
        recipe="ffdnet",
        data=Data(size=48, channels=3, fit="crop", augment="dihedral", holdout=20),
        train=Train(
            images=400_000, batch_size=32, lr=3e-3, warmup=3_200, decay="cosine",
            ema_half_life=5_000, clip_norm=1.0, checkpoint_every=50_000,
        ),
    )  # fmt: skip
