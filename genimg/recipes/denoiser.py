"""Denoisers: one network for Gaussian noise of any level up to sigma 55.

    genimg train ffdnet data.channels=1 --data Train400
    genimg evaluate denoiser evaluation.sigmas=[15,25,50] --data BSD68

Protocol (that of DnCNN and its successors): the noise is float, not clipped, drawn anew for each
image from a fixed seed; the output is clipped and rounded to bytes before the PSNR; no crop.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg import rng
from genimg.budget import PIXELS, shares, stacks
from genimg.contracts import Ability, Dataset, Rows
from genimg.data.degradations import draw_sigma, gaussian_noise
from genimg.inference import Inference, real_images, to_floats
from genimg.metrics.fidelity import WINDOW, psnr, ssim
from genimg.models.denoising import DnCNN, FFDNet
from genimg.models.restoring import RestoringNetwork, constant_maps
from genimg.pixels import to_bytes_range
from genimg.recipe import Data, Recipe
from genimg.schedule import Train
from genimg.section import Section
from genimg.tiles import tiled
from genimg.training.method import Part
from genimg.training.restoration import Kind, Restoration

TILE = 1024  # pixels: PIXELS in all


class FFDNetModel(Section):
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    blocks: int = Field(7, ge=1)
    """residual blocks of two convolutions, all at half resolution"""


class DnCNNModel(Section):
    width: int = Field(64, ge=8)
    """channels of the inner convolutions"""
    depth: int = Field(20, ge=3)
    """convolutions; 17 suffice for a single noise level"""


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


class Denoiser(Recipe):
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("psnr", "max")
    told: ClassVar[bool] = True  # whether its network is told the noise level

    noise: Noise = Noise()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def noise_is_a_range(self) -> Self:
        if self.noise.low > self.noise.high:
            raise ValueError(
                f"noise.low={self.noise.low:g}: must be at most noise.high={self.noise.high:g}"
            )
        return self

    @model_validator(mode="after")
    def images_hold_a_window(self) -> Self:
        if self.data.size < WINDOW:
            raise ValueError(
                f"data.size={self.data.size}: {self.recipe} takes 12 or more; its images are "
                f"judged by SSIM, whose window is {WINDOW} pixels wide"
            )
        return self

    @abstractmethod
    def restorer(self) -> RestoringNetwork:
        """Freshly initialised."""

    def networks(self) -> dict[str, nn.Module]:
        return {"restorer": self.restorer()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        restorer = networks["restorer"]
        assert isinstance(restorer, RestoringNetwork)

        def compute(rows: Rows) -> Rows:
            images = rows["image"]
            sigma = rows["sigma"] if self.told else images.new_zeros(len(images))
            return {"image": restorer(images, self.maps(sigma, images))}

        told = ("sigma",) if self.told else ()
        ability = Ability(
            compute, self.data.channels, ("image", *told), frozenset(told),
            margin=restorer.margin, stride=restorer.stride,
        )  # fmt: skip
        return {"denoise": ability}

    def method(self, device: torch.device) -> Restoration:
        restorer = Part(self.restorer(), betas=(0.9, 0.99))

        def degrade(images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
            noisy, sigma = self.degrade(images, keys)
            return noisy, self.maps(sigma, noisy)

        return Restoration(restorer, degrade, self.loss.kind, self.train, device)

    def degrade(self, images: Tensor, keys: Tensor) -> tuple[Tensor, Tensor]:
        sigma = draw_sigma(keys, self.noise.low, self.noise.high)
        return gaussian_noise(images, keys, sigma), sigma

    def maps(self, sigma: Tensor, images: Tensor) -> Tensor:
        """What the network is told of noise of sigma [N]: sigma / 255 everywhere, or nothing."""
        return constant_maps((sigma / 255)[:, None][:, : int(self.told)], images)

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """PSNR in dB and SSIM at each sigma on whole images; `psnr` is the mean over sigmas.

        The workers divide the images by their pixels; large ones are restored in tiles.
        """
        chosen = data.choose(self.evaluation.images).tolist()
        part = inference.share(len(chosen))
        sides = [data.whole(index)["image"].shape[1:] for index in chosen[part.start : part.stop]]
        mine = torch.tensor([list(each) for each in sides], device=inference.device).view(-1, 2)
        shapes = [(height, width) for height, width in inference.gather(mine.long()).tolist()]
        sync = inference.sync
        mine_by_pixels = shares([height * width for height, width in shapes], sync.world)[sync.rank]

        sigmas = self.evaluation.sigmas
        width = 1 + 2 * len(sigmas)  # the number of the image, then PSNR and SSIM at each sigma
        rows = [torch.empty(0, width, dtype=torch.float64, device=inference.device)]
        for numbers in stacks(mine_by_pixels, shapes):
            clean = torch.stack([data.whole(chosen[number])["image"] for number in numbers])
            clean = clean.to(inference.device)
            index = torch.tensor([chosen[number] for number in numbers])
            scores = [self.scores(inference, index, clean, sigma) for sigma in sigmas]
            order = torch.tensor(numbers, device=inference.device).double()
            rows.append(torch.cat([order[:, None], *scores], dim=1))
        every = inference.gather(torch.cat(rows))
        every = every[every[:, 0].argsort()]  # the same sum whoever did which
        means = every[:, 1:].mean(dim=0).view(-1, 2).tolist()
        metrics: dict[str, float] = {}
        for sigma, (fidelity, similarity) in zip(sigmas, means, strict=True):
            metrics |= {f"psnr_{sigma:g}": fidelity, f"ssim_{sigma:g}": similarity}
        return {"psnr": sum(psnr for psnr, _ in means) / len(means)} | metrics

    def scores(self, inference: Inference, index: Tensor, clean: Tensor, sigma: float) -> Tensor:
        """float64 [N, 2]: PSNR and SSIM of uint8 [N, C, H, W] with noise of their indices."""
        keys = rng.fold(self.evaluation.seed, index).to(clean.device)
        level = torch.full((len(clean),), sigma, device=clean.device)
        noisy = gaussian_noise(to_floats(clean, clean.device), keys, level)
        pixels = self.restored(inference, noisy, sigma)
        return torch.stack([psnr(pixels, clean), ssim(pixels, clean)], dim=1)

    def restored(self, inference: Inference, noisy: Tensor, sigma: float) -> Tensor:
        """uint8 [N, C, H, W] of float32 [N, C, H, W]: whole, or in tiles of PIXELS at a time."""
        restorer = inference.networks["restorer"]
        assert isinstance(restorer, RestoringNetwork)

        def restore(tiles: Tensor) -> Tensor:
            level = torch.full((len(tiles),), sigma, device=tiles.device)
            return restorer(tiles, self.maps(level, tiles))

        height, width = noisy.shape[-2:]
        margin = restorer.margin
        fits = height * width <= PIXELS
        return tiled(
            lambda tiles: to_bytes_range(inference.run(restore, tiles)),
            noisy,
            side=max(height, width) + 2 * margin + 1 if fits else max(TILE, 4 * margin),
            margin=margin,
            stride=restorer.stride,
        )

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": self.evaluation.seed,
            "detector": "none: pixels",
            "method": "PSNR and SSIM of whole images rounded to bytes; the noise is float, not "
            "clipped; no crop",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: clean, noisy at sigma 25, restored."""
        images = to_floats(real_images(data, data.choose(8), inference.device), inference.device)
        keys = rng.fold(self.evaluation.seed, torch.arange(len(images))).to(images.device)
        level = torch.full((len(images),), 25.0, device=images.device)
        noisy = gaussian_noise(images, keys, level)
        restored = to_floats(self.restored(inference, noisy, 25.0), images.device)
        columns = torch.stack([images, noisy, restored], dim=1)
        return columns.flatten(0, 1).clamp(-1, 1).float().cpu(), 6


class FFDNetDenoiser(Denoiser):
    model: FFDNetModel = FFDNetModel()

    def restorer(self) -> FFDNet:
        return FFDNet(self.model.width, self.model.blocks, self.data.channels)


class DnCNNDenoiser(Denoiser):
    told: ClassVar[bool] = False

    model: DnCNNModel = DnCNNModel()

    def restorer(self) -> DnCNN:
        return DnCNN(self.model.width, self.model.depth, self.data.channels)


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
