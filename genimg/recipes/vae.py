"""Variational autoencoders: networks, likelihoods and bounds in any combination.

    genimg train conv-vae --data scenes
    genimg train conv-vae loss.likelihood=logistic-mixture model.conditional=true --data CIFAR10
    genimg train iwae data.size=28 data.channels=1 loss.likelihood=bernoulli loss.binarise=dynamic \
--data MNIST_FOLDER
    genimg evaluate iwae evaluation.importance=5000 --data MNIST_FOLDER

Judged by the evidence lower bound of held-out images, and by the images that they draw.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, ClassVar, Literal, Self

import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.inference import Inference, real_images, to_floats
from genimg.losses import LIKELIHOODS, Likelihood
from genimg.losses.decoders import Kind
from genimg.models.text import asked
from genimg.recipe import Data, with_network
from genimg.recipes.autoencoders import (
    Autoencoder,
    ConvModel,
    DrawModel,
    LadderModel,
    Model,
    autoencoder_in,
    autoencoder_of,
    latents_of,
)
from genimg.recipes.bounds import measured, metrics_of
from genimg.recipes.synthesis import COLUMNS, Synthesis
from genimg.recipes.synthesis import Evaluate as Drawn
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.autoencoding import Autoencoding, Binarise, Bound
from genimg.training.method import Part


class Loss(Section):
    likelihood: Kind = "gaussian"
    """of a pixel, given latents: gaussian has one learned scale; bernoulli: black or white"""
    binarise: Binarise = "none"
    """dynamic: bernoulli's images are drawn anew each time, a pixel white by its value"""
    beta: float = Field(1.0, ge=0)
    """weight of the KL term; 1 is the evidence lower bound"""
    kl_warmup: float = Field(0.1, ge=0, le=1)
    """part of the training over which the KL term is faded in"""
    drop: float = Field(0.1, gt=0, lt=1)
    """probability with which a text is not told, so that images can be drawn of none"""
    free_bits: float = Field(0.0, ge=0)
    """nats of each latent, or plane of latents, that cost nothing; against unused latents"""
    importance: int = Field(1, ge=1)
    """posterior samples an image, weighted by importance: above 1 the bound of IWAE"""

    @model_validator(mode="after")
    def parts_agree(self) -> Self:
        if self.binarise != "none" and self.likelihood != "bernoulli":
            raise ValueError(
                f"binarise={self.binarise}: a {self.likelihood} likelihood is of gray values; use"
                " likelihood=bernoulli, or leave binarise out"
            )
        if self.free_bits and self.importance > 1:
            raise ValueError(
                f"free_bits={self.free_bits:g}: importance={self.importance} weighs whole samples,"
                " and has no KL term of which some is free; set one of them back"
            )
        return self


class Evaluate(Drawn):
    images: int = Field(2_000, ge=1)
    """held-out images whose likelihood is told, at most"""
    importance: int = Field(1, ge=1)
    """posterior samples an image; above 1 the likelihood is estimated too, and chooses the best"""


class VAE(Synthesis):
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("elbo", "max")

    model: Model = ConvModel()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate(samples=1024)

    @model_validator(mode="before")
    @classmethod
    def name_network(cls, tree: Any) -> Any:
        return with_network(tree, "conv")

    @property
    def chosen_by(self) -> tuple[str, Literal["min", "max"]]:
        metric, better = super().chosen_by
        likely = metric == "elbo" and self.evaluation.importance > 1
        return ("log_likelihood" if likely else metric), better

    @property
    def latent(self) -> int:
        return latents_of(self.model, self.data)

    @property
    def likelihood(self) -> Likelihood:
        return LIKELIHOODS[self.loss.likelihood](self.data.channels)

    def autoencoder(self) -> Autoencoder:
        return autoencoder_of(self.model, self.data, self.likelihood.planes)

    def networks(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder()}

    def drawer(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        autoencoder, mean = autoencoder_in(networks), self.likelihood.mean

        def compute(rows: Rows) -> Rows:
            told = asked(autoencoder, rows)
            return {"image": mean(autoencoder.decode(rows["latent"], told))}

        return compute

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        """One that is told classes or texts draws by them; of an image nobody tells it these."""
        drawing = super().abilities(networks)
        if self.model.conditional or self.model.text:
            return drawing
        autoencoder, decode = autoencoder_in(networks), self.drawer(networks)

        def encode(rows: Rows) -> Rows:  # to the posterior's mean
            return {"latent": autoencoder.latents(autoencoder.encode(rows["image"]))}

        def reconstruct(rows: Rows) -> Rows:
            return decode(encode(rows))

        def invert(rows: Rows) -> Rows:
            found = encode(rows)
            return {**found, **decode(found)}

        def vary(rows: Rows) -> Rows:
            step = rows["latent"]
            if "image" not in rows:
                return decode({"latent": step})
            if autoencoder.mixture is not None:  # whose Gaussian stays
                step = torch.cat([torch.zeros_like(step[:, :1]), step[:, 1:]], dim=1)
            return decode({"latent": encode(rows)["latent"] + step})

        data = self.data
        read = Ability(encode, data.channels, latent=self.latent, side=data.size, fit=data.fit)
        return drawing | {
            "encode": read,
            "reconstruct": replace(read, compute=reconstruct),
            "invert": replace(read, compute=invert),
            "vary": replace(read, compute=vary, takes=("image", "latent")),
        }

    def method(self, device: torch.device) -> Autoencoding:
        loss = self.loss
        warmup = round(loss.kl_warmup * self.train.images)
        return Autoencoding(
            Part(self.autoencoder(), betas=(0.9, 0.999)),
            self.likelihood,
            Bound(loss.beta, warmup, loss.free_bits, loss.importance, loss.binarise),
            classes=len(self.model.classes),
            drop=loss.drop,
            train=self.train,
            device=device,
        )

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """What genimg.recipes.bounds tells of held-out images, beside what all drawers tell."""
        chosen = data.choose(self.evaluation.images)
        scores = measured(
            inference, data, chosen, self.likelihood, self.loss.binarise,
            len(self.model.classes), self.evaluation.importance,
        )  # fmt: skip
        dimensions = data.channels * data.size**2
        bounds = metrics_of(scores, dimensions, self.evaluation.importance)
        return bounds | super().evaluate(inference, data)

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        drawn, loss, count = super().protocol(data), self.loss, self.evaluation.importance
        given = " of images given their classes" if self.model.conditional else ""
        given = " of images given their texts" if self.model.text else given
        method = f"evidence lower bound{given} with one posterior sample an image; "
        if count > 1:
            method += f"log-likelihood by {count} importance samples; "
        told = drawn | {
            "images": min(self.evaluation.images, len(data)),
            "likelihood": loss.likelihood,
            "detector": f"the model's own likelihood; {drawn['detector']}",
            "method": f"{method}PSNR from the posterior mean; {drawn['method']}",
        }
        if loss.likelihood == "bernoulli":
            told["binarisation"] = {
                "none": "none: gray values are taken for probabilities",
                "dynamic": "dynamic: each pixel drawn by its value, seed 0",
            }[loss.binarise]
        return told

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Images of the first seeds; without classes or texts half as many, and twice a row of
        held-out images above their reconstructions."""
        images, _ = super().preview(inference, data)
        if self.model.conditional or self.model.text:
            return images, COLUMNS
        chosen = real_images(data, data.choose(2 * COLUMNS), inference.device)
        rows: Rows = {"image": to_floats(chosen, inference.device)}
        compute = self.abilities(inference.networks)["reconstruct"].compute
        made = inference.rows(compute, rows)["image"]
        pairs = zip(rows["image"].split(COLUMNS), made.split(COLUMNS), strict=True)
        every = [row.float().cpu() for pair in pairs for row in pair]
        return torch.cat([images[: COLUMNS**2 // 2], *every]), COLUMNS


def conv_vae() -> VAE:
    """A convolutional VAE whose output scale is learned (sigma-VAE, Rybkin et al. 2021)."""
    return VAE(
        recipe="conv-vae",
        data=Data(size=32, channels=3, holdout=2_000),
        train=Train(
            images=600_000, batch_size=128, optimizer="muon", lr=4e-3, decay="cosine", clip_norm=1.0
        ),
    )


def iwae() -> VAE:
    """IWAE (Burda et al. 2016): the bound of importance samples, eight an image."""
    return VAE(
        recipe="iwae",
        data=Data(size=32, channels=3, holdout=2_000),
        loss=Loss(importance=8),
        evaluation=Evaluate(samples=1024, importance=8),  # its bound is not that of one sample
        train=Train(images=600_000, batch_size=64, lr=1e-3, decay="cosine", clip_norm=1.0),
    )


def hvae() -> VAE:
    """A hierarchical VAE: levels of latents from coarse to fine (Sonderby et al. 2016)."""
    return VAE(
        recipe="hvae",
        data=Data(size=32, channels=3, holdout=2_000),
        model=LadderModel(),
        loss=Loss(free_bits=0.1),
        train=Train(
            images=1_000_000, batch_size=64, lr=1e-3, warmup=10_000, decay="cosine", clip_norm=1.0,
            ema_half_life=10_000, checkpoint_every=100_000,
        ),
    )  # fmt: skip


def draw() -> VAE:
    """DRAW told by words (alignDRAW, Mansimov et al. 2016): a canvas, drawn where it attends to."""
    return VAE(
        recipe="draw",
        data=Data(size=32, channels=3, scenes="captioned", holdout=2_000),
        model=DrawModel(text=True),
        train=Train(
            images=600_000, batch_size=64, lr=1e-3, warmup=10_000, decay="cosine", clip_norm=1.0,
            ema_half_life=10_000, checkpoint_every=100_000,
        ),
    )  # fmt: skip
