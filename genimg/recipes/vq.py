"""VQ-VAEs: an autoencoder whose latents are codes, and a prior that draws codes.

    genimg train vq-vae --data scenes
    genimg train vq-vae model.conditional=true data.channels=1 data.fit=pad --data MNIST_FOLDER
    genimg train vq-vae start=vq-vae model.layers=8 --data scenes

Both learn side by side; with `start` the prior alone, of another's autoencoder.
"""

from collections.abc import Callable, Mapping
from typing import ClassVar, Self

import torch
from pydantic import Field, model_validator
from torch import nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.errors import InputError
from genimg.inference import Inference, real_images, to_floats
from genimg.metrics.fidelity import finite_psnr
from genimg.models.prior import HEAD, CausalPrior
from genimg.models.quantised import QuantisedAutoencoder
from genimg.models.velocity import GROUPS
from genimg.pixels import to_bytes_range
from genimg.recipe import Data, Recipe
from genimg.recipes.synthesis import Evaluate, Synthesis
from genimg.recipes.told import ByClass
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Method, Part
from genimg.training.quantisation import Quantisation

SHARED = ("codes", "dimensions", "width", "halvings")  # keys of a model that its autoencoder has


class Model(ByClass):
    codes: int = Field(512, ge=2)
    """codes in the codebook"""
    dimensions: int = Field(64, ge=1)
    """numbers that a code stands for"""
    width: int = Field(64, ge=8, multiple_of=8)
    """channels of the autoencoder"""
    halvings: int = Field(2, ge=1, le=5)
    """of the images' side, down to that of their codes"""
    prior: int = Field(128, ge=HEAD, multiple_of=HEAD)
    """channels of the prior, a causal transformer"""
    layers: int = Field(4, ge=1)
    """of the prior"""


class Loss(Section):
    commitment: float = Field(0.25, ge=0)
    """weight of the distance of features from their codes"""


class VQVAE(Synthesis):
    helpers: ClassVar[Mapping[str, str]] = {**Synthesis.helpers, "start": "start"}
    teachers: ClassVar[frozenset[str]] = frozenset({"start"})

    model: Model = Model()
    loss: Loss = Loss()
    start: str | None = None
    """a vq-vae (NAME, NAME@ALIAS, NAME@7) whose autoencoder is taken as it is: the prior learns"""
    evaluation: Evaluate = Evaluate(samples=1024)

    @model_validator(mode="after")
    def size_can_be_halved(self) -> Self:
        if self.data.size % 2**self.model.halvings:
            raise ValueError(
                f"data.size={self.data.size}: with model.halvings={self.model.halvings}"
                f" {self.recipe} takes multiples of {2**self.model.halvings}"
            )
        if self.data.size == 2**self.model.halvings and self.model.width == GROUPS:
            raise ValueError(
                f"model.halvings={self.model.halvings}: of data.size={self.data.size} a single"
                f" pixel is left, and with model.width={GROUPS} one value to be normalised by"
                " itself, which says nothing; use fewer halvings, or a larger width"
            )
        return self

    @property
    def latent(self) -> int:
        """One for each code of an image: it decides how likely a code is taken."""
        return (self.data.size // 2**self.model.halvings) ** 2

    def autoencoder(self) -> QuantisedAutoencoder:
        model = self.model
        shape = (model.codes, model.dimensions, model.width, model.halvings)
        return QuantisedAutoencoder(*shape, self.data.channels)

    def prior(self) -> CausalPrior:
        model = self.model
        classes = len(model.classes)
        return CausalPrior(model.codes, self.latent, model.prior, model.layers, classes)

    def networks(self) -> dict[str, nn.Module]:
        return {"autoencoder": self.autoencoder(), "prior": self.prior()}

    def drawer(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        autoencoder, prior = networks["autoencoder"], networks["prior"]
        assert isinstance(autoencoder, QuantisedAutoencoder)
        assert isinstance(prior, CausalPrior)

        def compute(rows: Rows) -> Rows:
            codes = prior.draw(rows["latent"], rows.get("classes"))
            return {"image": autoencoder.decode(autoencoder.features(codes))}

        return compute

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        data, reconstruct = self.data, self.reconstructor(networks)
        read = Ability(reconstruct, data.channels, side=data.size, fit=data.fit)
        drawing = super().abilities(networks)
        del drawing["invert"]  # codes are chosen, which no search could follow
        return drawing | {"reconstruct": read}

    def reconstructor(self, networks: Mapping[str, nn.Module]) -> Callable[[Rows], Rows]:
        """A pass: images of images, by their codes."""
        autoencoder = networks["autoencoder"]
        assert isinstance(autoencoder, QuantisedAutoencoder)

        def compute(rows: Rows) -> Rows:
            codes = autoencoder.nearest(autoencoder.encode(rows["image"]))
            return {"image": autoencoder.decode(autoencoder.features(codes))}

        return compute

    def method(self, device: torch.device) -> Quantisation:
        return Quantisation(
            Part(self.autoencoder(), betas=(0.9, 0.99)),
            Part(self.prior(), betas=(0.9, 0.99)),
            commitment=self.loss.commitment,
            classes=len(self.model.classes),
            frozen=self.start is not None,
            train=self.train,
            device=device,
        )

    def refuse_helper(self, name: str, helper: Recipe) -> None:
        if name != "start":
            super().refuse_helper(name, helper)
            return
        named = f"start={self.start}"
        if not isinstance(helper, VQVAE):
            raise InputError(f"{named}: {helper.recipe} models have no codes; give a vq-vae")
        mine, its = (shape_of(each) for each in (self, helper))
        if apart := [
            f"{key}={its[key]} (here {mine[key]})" for key in mine if mine[key] != its[key]
        ]:
            raise InputError(
                f"{named}: a vq-vae with {', '.join(apart)}; override this recipe's keys to be like"
                " its"
            )

    def helped(self, method: Method, teachers: Mapping[str, Mapping[str, nn.Module]]) -> None:
        if "start" in teachers:
            assert isinstance(method, Quantisation)
            method.start(teachers["start"]["autoencoder"].state_dict())

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """psnr: of reconstructions, dB, of as many held-out images as are compared with."""
        chosen = data.choose(self.evaluation.samples)
        share = inference.share(len(chosen))
        compute = self.reconstructor(inference.networks)
        parts = [torch.empty(0, dtype=torch.float64, device=inference.device)]
        for piece in inference.pieces(share):
            few = chosen[piece.start : piece.stop]
            real = real_images(data, few, inference.device)
            rows: Rows = {"image": to_floats(real, inference.device)}
            parts.append(finite_psnr(to_bytes_range(inference.rows(compute, rows)["image"]), real))
        fidelity = inference.gather(torch.cat(parts)).mean().item()
        return super().evaluate(inference, data) | {"psnr": fidelity}


def shape_of(recipe: VQVAE) -> dict[str, object]:
    """Keys that decide the autoencoder, and their values."""
    keys = {f"model.{name}": getattr(recipe.model, name) for name in SHARED}
    return keys | {"data.size": recipe.data.size, "data.channels": recipe.data.channels}


def vq_vae() -> VQVAE:
    """VQ-VAE (van den Oord et al. 2017) with a causal transformer that draws its codes."""
    return VQVAE(
        recipe="vq-vae",
        data=Data(size=32, channels=3, holdout=2_000),
        train=Train(
            images=1_000_000, batch_size=64, lr=5e-4, warmup=10_000, decay="cosine", clip_norm=1.0,
            checkpoint_every=100_000,
        ),
    )  # fmt: skip
