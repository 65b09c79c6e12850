"""A small CNN classifier: recognises classes, and judges generators by its features.

genimg train classifier data.channels=1 data.fit=pad --data MNIST_FOLDER
"""

from typing import ClassVar, Literal, Self

import torch
from pydantic import Field
from torch import Tensor, nn

from genimg.contracts import Dataset
from genimg.errors import InputError
from genimg.inference import CHUNK, Inference, device_of, real_images, to_floats
from genimg.models.classifier import Classifier
from genimg.recipe import Data, Recipe, Section, Train
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


class ClassifierRecipe(Recipe):
    capabilities: ClassVar[tuple[str, ...]] = ("classify",)
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    def resolve(self, classes: tuple[str, ...]) -> Self:
        if not classes:
            raise InputError(
                f"data.source={self.data.source!r} has no classes; "
                "put the images into one folder a class"
            )
        if self.model.classes and self.model.classes != classes:
            raise InputError(
                f"model.classes={list(self.model.classes)} but the data has {list(classes)}; "
                "leave model.classes out to take those of the data"
            )
        return self.model_copy(update={"model": self.model.model_copy(update={"classes": classes})})

    def classifier(self) -> Classifier:
        return Classifier(
            self.model.width, self.model.features, self.data.channels, len(self.model.classes)
        )

    def networks(self) -> dict[str, nn.Module]:
        return {"classifier": self.classifier()}

    def method(self, device: torch.device) -> Recognition:
        return Recognition(
            self.classifier(),
            self.loss.label_smoothing,
            self.train,
            device,
            betas=(0.9, 0.99),
        )

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Accuracy in [0, 1] and mean cross-entropy in nats."""
        classifier = inference.networks["classifier"]
        count = min(self.evaluation.images, len(data))
        correct, entropy = 0, 0.0
        for start in range(0, count, CHUNK):
            indices = torch.arange(start, min(start + CHUNK, count))
            images, labels = data.fetch(indices.numpy(), indices)
            if labels is None:
                raise InputError("a classifier is evaluated on labels; this data has none")
            logits = classifier(to_floats(images, device_of(classifier))).float().cpu()
            correct += int((logits.argmax(dim=1) == labels.cpu()).sum())
            entropy += nn.functional.cross_entropy(logits, labels.cpu(), reduction="sum").item()
        return {"accuracy": correct / count, "cross_entropy": entropy / count}

    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """The held-out images that the network is least sure of."""
        classifier = inference.networks["classifier"]
        count = min(1024, len(data))
        images = to_floats(real_images(data, count), torch.device("cpu"))
        with torch.no_grad():
            confidence = torch.cat(
                [
                    classifier(part.to(device_of(classifier))).softmax(dim=1).amax(dim=1).cpu()
                    for part in images.split(CHUNK)
                ]
            )
        return images[confidence.argsort()[:64]], 8


def classifier() -> ClassifierRecipe:
    return ClassifierRecipe(
        recipe="classifier",
        data=Data(size=32, channels=3, holdout=2_000),
        train=Train(
            images=300_000, batch_size=128, lr=2e-3, warmup=5_000, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0,
        ),
    )  # fmt: skip
