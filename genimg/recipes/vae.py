"""Variational autoencoders.

    genimg train conv-vae --data scenes
    genimg train conv-vae data.channels=1 data.fit=pad --data MNIST_FOLDER

Judged by the evidence lower bound of held-out images.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import Ability, Dataset, Rows
from genimg.inference import Inference, real_images, to_floats
from genimg.losses import discretised_gaussian_nll, gaussian_kl, gaussian_nll
from genimg.metrics.fidelity import psnr
from genimg.models.conv_vae import ConvVAE
from genimg.pixels import to_bytes_range
from genimg.recipe import Data, Recipe
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.autoencoding import Autoencoding
from genimg.training.method import Part


class Model(Section):
    latent: int = Field(32, ge=1)
    """dimensions of the latent space"""
    width: int = Field(32, ge=8, multiple_of=8)
    """channels at half the final resolution; twice and four times as many below"""


class Loss(Section):
    beta: float = Field(1.0, ge=0)
    """weight of the KL term; 1 is the evidence lower bound"""
    kl_warmup: float = Field(0.1, ge=0, le=1)
    """part of the training over which the KL term is faded in"""


class Evaluate(Section):
    images: int = Field(2_000, ge=1)
    """held-out images, at most"""


class VAE(Recipe):
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("elbo", "max")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    def autoencoder(self) -> ConvVAE:
        return ConvVAE(self.model.latent, self.model.width, self.data.size, self.data.channels)

    def networks(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        autoencoder = networks["autoencoder"]
        assert isinstance(autoencoder, ConvVAE)

        def decode(rows: Rows) -> Rows:
            return {"image": autoencoder.decode(rows["latent"])}

        def encode(rows: Rows) -> Rows:
            return {"latent": autoencoder.encode(rows["image"])[0]}  # the posterior's mean

        def reconstruct(rows: Rows) -> Rows:
            return decode(encode(rows))

        def invert(rows: Rows) -> Rows:
            found = encode(rows)
            return {**found, **decode(found)}

        def vary(rows: Rows) -> Rows:
            near = rows["latent"]
            return decode({"latent": encode(rows)["latent"] + near if "image" in rows else near})

        data, latent = self.data, self.model.latent
        draw = Ability(decode, data.channels, ("latent",), latent=latent, side=data.size)
        read = Ability(encode, data.channels, latent=latent, side=data.size, fit=data.fit)
        drawing = dict.fromkeys(("sample", "interpolate", "traverse", "decode"), draw)
        return drawing | {
            "encode": read,
            "reconstruct": replace(read, compute=reconstruct),
            "invert": replace(read, compute=invert),
            "vary": replace(read, compute=vary, takes=("image", "latent")),
        }

    def method(self, device: torch.device) -> Autoencoding:
        return Autoencoding(
            Part(self.autoencoder(), betas=(0.9, 0.999)),
            beta=self.loss.beta,
            kl_warmup=round(self.loss.kl_warmup * self.train.images),
            train=self.train,
            device=device,
        )

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """The ELBO with one posterior sample an image, and how well images are reconstructed.

        elbo: nats an image, of the Gaussian density over pixels in [-1, 1], as in training
        bits_per_dimension: the same bound on the bytes' probability under the discretised
            Gaussian, which a density gains nothing on by agreeing more closely than to a level
        kl: the part of both that the latents cost, nats an image
        psnr: of reconstructions from the posterior mean, dB
        """
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        parts = [torch.empty(0, 4, dtype=torch.float64, device=inference.device)]
        for start in range(share.start, share.stop, inference.at_once):
            numbers = torch.arange(start, min(start + inference.at_once, share.stop))
            real = real_images(data, chosen[numbers.numpy()], inference.device)
            parts.append(self.scores(inference, real, numbers))
        rows = inference.gather(torch.cat(parts))
        density, mass, rate, fidelity = rows.mean(dim=0).tolist()
        dimensions = data.channels * data.size**2
        return {
            "elbo": -density - rate,
            "bits_per_dimension": (mass + rate) / (dimensions * math.log(2)),
            "kl": rate,
            "psnr": fidelity,
        }

    def scores(self, inference: Inference, real: Tensor, numbers: Tensor) -> Tensor:
        """float64 [N, 4] of uint8 [N, C, size, size], whose noise is that of their numbers.

        Both negative log likelihoods, of density and of bytes, and the KL, nats; PSNR, dB.
        """
        autoencoder = inference.networks["autoencoder"]
        assert isinstance(autoencoder, ConvVAE)
        images = to_floats(real, inference.device)
        posterior = inference.run(lambda x: torch.cat(autoencoder.encode(x), dim=1), images)
        mean, log_variance = posterior.chunk(2, dim=1)
        noise = rng.normal(rng.fold(0, numbers).to(mean.device), mean.shape[1:])
        drawn = mean + (0.5 * log_variance).exp() * noise
        decoded = inference.run(autoencoder.decode, drawn)
        columns = [
            gaussian_nll(images, decoded, autoencoder.log_sigma),
            discretised_gaussian_nll(images, decoded, autoencoder.log_sigma),
            gaussian_kl(mean, log_variance),
            psnr(to_bytes_range(inference.run(autoencoder.decode, mean)), real),
        ]
        return torch.stack([column.double() for column in columns], dim=1)

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": "none: the model's own likelihood",
            "method": "evidence lower bound with one posterior sample an image; PSNR from the "
            "posterior mean",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Four times: a row of held-out images above their reconstructions."""
        autoencoder = inference.networks["autoencoder"]
        assert isinstance(autoencoder, ConvVAE)
        images = to_floats(real_images(data, data.choose(32), inference.device), inference.device)
        decoded = inference.run(lambda x: autoencoder.decode(autoencoder.encode(x)[0]), images)
        rows = [row for pair in zip(images.split(8), decoded.split(8), strict=True) for row in pair]
        return torch.cat(rows).float().cpu(), 8


def conv_vae() -> VAE:
    """A convolutional VAE whose output scale is learned (sigma-VAE, Rybkin et al. 2021)."""
    return VAE(
        recipe="conv-vae",
        data=Data(size=32, channels=3, holdout=2_000),
        train=Train(images=600_000, batch_size=128, lr=1e-3, decay="cosine", clip_norm=1.0),
    )
