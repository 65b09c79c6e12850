"""Detectors: they tell where which objects are.

genimg train detector --data scenes
genimg train detector --data FOLDER_WITH_annotations.json
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import Ability, Dataset, Rows
from genimg.data.beside import BOXES
from genimg.drawing import outline
from genimg.errors import InputError
from genimg.inference import Inference, to_floats
from genimg.metrics.detection import average_precision
from genimg.models.centers import STRIDE, CenterNet, found
from genimg.pixels import to_tensor
from genimg.recipe import Data, Recipe
from genimg.recipes.recognition import named_classes, refuse_sides
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.detection import Detection
from genimg.training.method import Part

SURE = 0.3  # score from which a box is shown in a preview


class Model(Section):
    width: int = Field(32, ge=8, multiple_of=2)
    """channels at a quarter of the resolution, doubling at each further halving"""
    depth: int = Field(2, ge=1, le=4)
    """further halvings"""
    classes: tuple[str, ...] = ()
    """names of the classes, from 0 on; empty: taken from the data"""


class Loss(Section):
    sides: float = Field(0.1, ge=0)
    """weight of the error of widths and heights, beside that of the centres' heat"""
    offset: float = Field(1.0, ge=0)
    """likewise, of the error of centres within a pixel of the heat map"""


class Evaluate(Section):
    images: int = Field(1_000, ge=1)
    """held-out images, at most"""


class Detector(Recipe):
    wants: ClassVar[tuple[str, ...]] = ("image", "boxes")
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("map", "max")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def size_can_be_halved(self) -> Self:
        stride = STRIDE * 2**self.model.depth
        refuse_sides(self, self.model.depth, stride)
        return self

    def resolve(
        self, classes: Mapping[str, tuple[str, ...]], shares: tuple[float, ...] | None = None
    ) -> Self:
        named = named_classes(self.model.classes, classes.get("boxes", ()))
        if not named:
            raise InputError(f"{self.data.source}: has no boxes; there is nothing to detect")
        return self.model_copy(update={"model": self.model.model_copy(update={"classes": named})})

    def detector(self) -> CenterNet:
        model = self.model
        return CenterNet(model.width, model.depth, self.data.channels, max(1, len(model.classes)))

    def networks(self) -> dict[str, nn.Module]:
        return {"detector": self.detector()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        detector = networks["detector"]

        def compute(rows: Rows) -> Rows:
            boxes, scores = found(detector(rows["image"]), BOXES)
            return {"boxes": boxes, "scores": scores}

        data, classes = self.data, self.model.classes
        ability = Ability(compute, data.channels, side=data.size, fit=data.fit, classes=classes)
        return {"detect": ability}

    def method(self, device: torch.device) -> Detection:
        return Detection(
            Part(self.detector(), betas=(0.9, 0.99)),
            classes=max(1, len(self.model.classes)),
            stride=STRIDE,
            sides=self.loss.sides,
            offset=self.loss.offset,
            train=self.train,
            device=device,
        )

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """map: mean average precision over overlaps of 0.5 to 0.95; map50, map75: at these."""
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        shape = (0, 2 * BOXES, 6)  # guesses, then truths; class, corners, score
        parts = [torch.empty(shape, device=inference.device)]
        for piece in inference.pieces(share):
            indices = chosen[piece.start : piece.stop]
            stored = data.fetch(indices, torch.from_numpy(indices).to(inference.device))
            guess, scores = self.detected(inference, stored["image"])
            truth = stored["boxes"].to(inference.device)
            scored = torch.cat([guess, scores[..., None]], dim=2)
            parts.append(torch.cat([scored, nn.functional.pad(truth, (0, 1))], dim=1))
        every = inference.gather(torch.cat(parts)).cpu().numpy()
        told, there = every[:, :BOXES], every[:, BOXES:, :5]
        return average_precision(told[..., :5], told[..., 5], there, len(self.model.classes))

    def detected(self, inference: Inference, images: Tensor) -> tuple[Tensor, Tensor]:
        """(boxes [N, BOXES, 5], scores [N, BOXES]) of uint8 [N, C, H, W], on the device."""
        compute = self.abilities(inference.networks)["detect"].compute
        told = inference.rows(compute, {"image": to_floats(images, inference.device)})
        return told["boxes"], told["scores"]

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": "none: the model's own classes",
            "method": "COCO's mean average precision of boxes (pycocotools), at most 100 an image",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: the boxes that there are, and those that the model is sure of."""
        indices = data.choose(16)
        stored = data.fetch(indices, torch.from_numpy(indices).to(inference.device))
        guess, scores = self.detected(inference, stored["image"])
        guess[..., 0] = guess[..., 0].where(scores >= SURE, -1)
        images = stored["image"].permute(0, 2, 3, 1).cpu().numpy()
        sides = (stored["boxes"].cpu().numpy(), guess.cpu().numpy())
        pictures = [
            outline(image, boxes)
            for image, *both in zip(images, *sides, strict=True)
            for boxes in both
        ]
        return to_tensor(np.stack(pictures)), 4


def detector() -> Detector:
    """CenterNet (Zhou et al. 2019): boxes around objects, by their centres and sizes."""
    return Detector(
        recipe="detector",
        data=Data(size=64, channels=3, augment="flip", holdout=1_000),
        train=Train(
            images=100_000, batch_size=32, lr=2e-3, warmup=2_000, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0,
        ),
    )  # fmt: skip
