"""Classifiers: they recognise classes, and judge generators by their features.

genimg train classifier data.channels=1 data.fit=pad --data MNIST_FOLDER
genimg train classifier model.width=64 data.augment=flip train.images=1800000 --data CIFAR10
"""

from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, Self

import torch
import torch.nn.functional as F
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.errors import InputError
from genimg.inference import Inference, real_images, to_floats
from genimg.models.classifier import Classifier as Network
from genimg.models.classifier import Plain
from genimg.models.whitened import Whitened, smallest
from genimg.recipe import Data, Recipe, with_network
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Part
from genimg.training.recognition import Recognition


class PlainModel(Section):
    network: Literal["plain"] = "plain"
    """decides which of the other keys there are"""
    width: int = Field(32, ge=8, multiple_of=8)
    """channels of the first stage, doubling twice"""
    features: int = Field(128, ge=2)
    """numbers in the penultimate layer, on which FID is computed"""
    classes: tuple[str, ...] = ()
    """names of the classes; empty: taken from the data"""


class WhitenedModel(Section):
    network: Literal["whitened"] = "whitened"
    """decides which of the other keys there are"""
    width: int = Field(16, ge=8, multiple_of=8)
    """channels of the first stage; the others, and the features, are four times as many"""
    patch: int = Field(2, ge=1, le=5)
    """side of the patches that its first layer whitens, pixels"""
    classes: tuple[str, ...] = ()
    """names of the classes; empty: taken from the data"""


AnyModel = PlainModel | WhitenedModel
Model = Annotated[AnyModel, Field(discriminator="network")]


class Loss(Section):
    label_smoothing: float = Field(0.0, ge=0, lt=1)
    """probability mass that the target spreads over the other classes"""


class Evaluate(Section):
    images: int = Field(10_000, ge=1)
    """held-out images, at most"""
    average: Literal["none", "shifts", "mirrored"] = "none"
    """over an image and two shifts of it (3 passes), and all three mirrored (6): classify too"""


class Classifier(Recipe):
    wants: ClassVar[tuple[str, ...]] = ("image", "label")
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("accuracy", "max")

    model: Model = WhitenedModel()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="before")
    @classmethod
    def name_network(cls, tree: Any) -> Any:
        return with_network(tree, "plain")

    @model_validator(mode="after")
    def parts_agree(self) -> Self:
        size, model = self.data.size, self.model
        small = isinstance(model, WhitenedModel) and smallest(size, model.patch) == 1
        if small and self.train.batch_size == 1:
            raise ValueError(
                f"train.batch_size=1: with data.size={size} a channel is left with one value, of"
                " which there is no variance; use batches of 2 or more"
            )
        return self

    def resolve(
        self, classes: Mapping[str, tuple[str, ...]], shares: tuple[float, ...] | None = None
    ) -> Self:
        names = classes["label"]
        if self.model.classes and self.model.classes != names:
            raise InputError(
                f"model.classes={list(self.model.classes)} but the data has {list(names)}; "
                "leave model.classes out to take those of the data"
            )
        return self.model_copy(update={"model": self.model.model_copy(update={"classes": names})})

    @property
    def soft_classes(self) -> int:
        return len(self.model.classes)

    def classifier(self) -> Network:
        channels, classes = self.data.channels, len(self.model.classes)
        match self.model:
            case PlainModel(width=width, features=features):
                return Plain(width, features, channels, classes)
            case WhitenedModel(width=width, patch=patch):
                return Whitened(width, patch, channels, classes)

    def networks(self) -> dict[str, nn.Module]:
        return {"classifier": self.classifier()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        classifier = networks["classifier"]

        def compute(rows: Rows) -> Rows:
            return {"scores": self.seen(classifier, rows["image"]).softmax(dim=1)}

        data, classes = self.data, self.model.classes
        ability = Ability(compute, data.channels, side=data.size, fit=data.fit, classes=classes)
        return {"classify": ability}

    def seen(self, classifier: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """Logits float32 [N, classes] of images float32 [N, C, size, size]."""
        if self.evaluation.average == "none":
            return classifier(images).float()
        return averaged(classifier, images, mirror=self.evaluation.average == "mirrored")

    def method(self, device: torch.device) -> Recognition:
        network = self.classifier()
        return Recognition(
            Part(network, betas=(0.9, 0.99)),
            self.loss.label_smoothing,
            self.train,
            device,
            begin=network.whitening.fit if isinstance(network, Whitened) else None,
        )

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """Accuracy in [0, 1] and mean cross-entropy in nats."""
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        parts = [torch.empty(0, 2, dtype=torch.float64, device=inference.device)]
        for piece in inference.pieces(share):
            indices = chosen[piece.start : piece.stop]
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
        classifier = inference.networks["classifier"]
        return inference.run(lambda images: self.seen(classifier, images), floats)

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": "none: the model's own classes",
            "method": "share of images whose likeliest class is theirs; mean cross-entropy, nats"
            + {
                "none": "",
                "shifts": "; logits averaged over shifts",
                "mirrored": "; logits averaged over shifts and mirror images",
            }[self.evaluation.average],
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


def averaged(classify: Callable[[Tensor], Tensor], images: Tensor, *, mirror: bool) -> Tensor:
    """Mean logits of images [N, C, H, W] and of their shifts by a pixel up left and down right.

    The images themselves count as much as both shifts together (section 3.5, Jordan 2024).
    mirror: also of each mirrored left to right
    """
    height, width = images.shape[-2:]
    padded = F.pad(images, (1, 1, 1, 1), "reflect")
    total = torch.zeros((), device=images.device)
    for view, weight in (
        (images, 0.5),
        (padded[..., :height, :width], 0.25),
        (padded[..., 2:, 2:], 0.25),
    ):
        logits = classify(view).float()
        if mirror:
            logits = (logits + classify(view.flip(-1)).float()) / 2
        total = total + weight * logits
    return total


def classifier() -> Classifier:
    """A small CNN: recognises classes, and judges generators by its features."""
    return Classifier(
        recipe="classifier",
        data=Data(size=32, channels=3, translate=2, holdout=2_000),
        train=Train(
            images=550_000, batch_size=128, optimizer="muon", lr=0.01, weight_decay=0.5,
            warmup=5_000, decay="linear", ema_half_life=2_000, checkpoint_every=100_000,
        ),
    )  # fmt: skip
