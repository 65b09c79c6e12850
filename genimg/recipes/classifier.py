"""Classifiers: they recognise classes, and judge generators by their features.

genimg train classifier data.channels=1 data.fit=pad --data MNIST_FOLDER
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.errors import InputError
from genimg.inference import Inference, real_images, to_floats
from genimg.models.classifier import Classifier as Network
from genimg.recipe import Data, Recipe
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Part
from genimg.training.recognition import Recognition


class Model(Section):
    width: int = Field(32, ge=8, multiple_of=8)
    """channels of the first stage, doubling twice"""
    features: int = Field(128, ge=2)
    """numbers in the penultimate layer, on which FID is computed"""
    classes: tuple[str, ...] = ()
    """names of the classes; empty: taken from the data"""


class Loss(Section):
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """probability mass that the target spreads over the other classes"""


class Evaluate(Section):
    images: int = Field(10_000, ge=1)
    """held-out images, at most"""


class Classifier(Recipe):
    wants: ClassVar[tuple[str, ...]] = ("image", "label")
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    def resolve(self, classes: Mapping[str, tuple[str, ...]]) -> Self:
        names = classes["label"]
        if self.model.classes and self.model.classes != names:
            raise InputError(
                f"model.classes={list(self.model.classes)} but the data has {list(names)}; "
                "leave model.classes out to take those of the data"
            )
        return self.model_copy(update={"model": self.model.model_copy(update={"classes": names})})

    def classifier(self) -> Network:
        return Network(
            self.model.width, self.model.features, self.data.channels, len(self.model.classes)
        )

    def networks(self) -> dict[str, nn.Module]:
        return {"classifier": self.classifier()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        classifier = networks["classifier"]

        def compute(rows: Rows) -> Rows:
            return {"scores": classifier(rows["image"]).float().softmax(dim=1)}

        data, classes = self.data, self.model.classes
        ability = Ability(compute, data.channels, side=data.size, fit=data.fit, classes=classes)
        return {"classify": ability}

    def method(self, device: torch.device) -> Recognition:
        return Recognition(
            Part(self.classifier(), betas=(0.9, 0.99)),
            self.loss.label_smoothing,
            self.train,
            device,
        )

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Accuracy in [0, 1] and mean cross-entropy in nats."""
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        parts = [torch.empty(0, 2, dtype=torch.float64, device=inference.device)]
        for start in range(share.start, share.stop, inference.at_once):
            indices = chosen[start : min(start + inference.at_once, share.stop)]
            keys = torch.from_numpy(indices).to(inference.device)
            stored = data.fetch(indices, keys)
            logits = self.logits(inference, stored["image"])
            labels = stored["label"].to(logits.device)
            entropy = nn.functional.cross_entropy(logits, labels, reduction="none")
            parts.append(torch.stack([logits.argmax(dim=1) == labels, entropy.double()], dim=1))
        accuracy, entropy = inference.gather(torch.cat(parts)).mean(dim=0).tolist()
        return {"accuracy": accuracy, "cross_entropy": entropy}

    def logits(self, inference: Inference, images: Tensor) -> Tensor:
        """float32 [N, classes] of uint8 [N, C, size, size], on the device."""
        floats = to_floats(images, inference.device)
        return inference.run(inference.networks["classifier"], floats)

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": "none: the model's own classes",
            "method": "share of images whose likeliest class is theirs; mean cross-entropy, nats",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """The held-out images that the network is least sure of."""
        images = real_images(data, data.choose(1024), inference.device)
        sure = [
            self.logits(inference, few).softmax(dim=1).amax(dim=1)
            for few in images.split(inference.at_once)
        ]
        least = torch.cat(sure).argsort()[:64]
        return to_floats(images[least], inference.device).cpu(), 8


def classifier() -> Classifier:
    """A small CNN: recognises classes, and judges generators by its features."""
    return Classifier(
        recipe="classifier",
        data=Data(size=32, channels=3, holdout=2_000),
        train=Train(
            images=300_000, batch_size=128, lr=2e-3, warmup=5_000, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0,
        ),
    )  # fmt: skip
