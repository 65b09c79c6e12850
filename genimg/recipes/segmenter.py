"""Segmenters: they tell the class of each pixel.

genimg train segmenter --data scenes
genimg train segmenter --data FOLDER_WITH_images_AND_masks
"""

from collections.abc import Mapping
from typing import ClassVar, Literal, Self

import numpy as np
import torch
from pydantic import Field, model_validator
from torch import Tensor, nn

from genimg.contracts import UNKNOWN, Ability, Dataset, Rows
from genimg.drawing import overlay
from genimg.errors import InputError
from genimg.inference import Inference, to_floats
from genimg.metrics.segmentation import confusion, mean_iou
from genimg.models.unet import UNet
from genimg.pixels import to_tensor
from genimg.recipe import Data, Recipe
from genimg.recipes.recognition import named_classes, refuse_sides
from genimg.schedule import Train
from genimg.section import Section
from genimg.training.method import Part
from genimg.training.segmentation import Segmentation


class Model(Section):
    width: int = Field(16, ge=4)
    """channels at full resolution, doubling at each halving"""
    depth: int = Field(3, ge=1, le=5)
    """halvings on the way down"""
    classes: tuple[str, ...] = Field((), max_length=UNKNOWN)
    """names of the classes, from 0 on; empty: taken from the data"""


class Loss(Section):
    dice: float = Field(0.0, ge=0)
    """weight of one minus the Dice coefficient, beside the cross-entropy of pixels"""


class Evaluate(Section):
    images: int = Field(1_000, ge=1)
    """held-out images, at most"""


class Segmenter(Recipe):
    wants: ClassVar[tuple[str, ...]] = ("image", "mask")
    objective: ClassVar[tuple[str, Literal["min", "max"]]] = ("mean_iou", "max")

    model: Model = Model()
    loss: Loss = Loss()
    evaluation: Evaluate = Evaluate()

    @model_validator(mode="after")
    def size_can_be_halved(self) -> Self:
        stride = 2**self.model.depth
        refuse_sides(self, self.model.depth, stride)
        return self

    def resolve(
        self, classes: Mapping[str, tuple[str, ...]], shares: tuple[float, ...] | None = None
    ) -> Self:
        named = named_classes(self.model.classes, classes.get("mask", ()))
        if len(named) < 2:
            raise InputError(
                f"{self.data.source}: its masks show {len(named) or 'no'} class"
                f" ({UNKNOWN} stands for unknown); number the classes from 0 on, at least two"
            )
        return self.model_copy(update={"model": self.model.model_copy(update={"classes": named})})

    def segmenter(self) -> UNet:
        model = self.model
        return UNet(model.width, model.depth, self.data.channels, max(2, len(model.classes)))

    def networks(self) -> dict[str, nn.Module]:
        return {"segmenter": self.segmenter()}

    def abilities(self, networks: Mapping[str, nn.Module]) -> dict[str, Ability]:
        segmenter = networks["segmenter"]
        assert isinstance(segmenter, UNet)

        def compute(rows: Rows) -> Rows:
            return {"mask": segmenter(rows["image"]).argmax(dim=1)}

        ability = Ability(
            compute,
            self.data.channels,
            margin=segmenter.margin,
            stride=segmenter.stride,
            classes=self.model.classes,
        )
        return {"segment": ability}

    def method(self, device: torch.device) -> Segmentation:
        part = Part(self.segmenter(), betas=(0.9, 0.99))
        return Segmentation(part, self.loss.dice, self.train, device)

    @torch.no_grad()
    def evaluate(self, inference: Inference, data: Dataset) -> dict[str, float]:
        """mean_iou: over classes, of all pixels together; pixel_accuracy: share of known pixels."""
        chosen = data.choose(self.evaluation.images)
        share = inference.share(len(chosen))
        count = len(self.model.classes)
        mine = torch.zeros(1, count, count, dtype=torch.int64, device=inference.device)
        for piece in inference.pieces(share):
            indices = chosen[piece.start : piece.stop]
            images, truth = self.looked_at(inference, data, indices)
            mine += confusion(self.segmented(inference, images), truth, count)
        every = inference.gather(mine).sum(dim=0)
        accuracy = every.diagonal().sum() / every.sum().clamp(min=1)
        return {"mean_iou": mean_iou(every), "pixel_accuracy": accuracy.item()}

    def looked_at(
        self, inference: Inference, data: Dataset, indices: np.ndarray
    ) -> tuple[Tensor, Tensor]:
        """(images uint8 [N, C, H, W], masks uint8 [N, H, W]) on the device."""
        stored = data.fetch(indices, torch.from_numpy(indices).to(inference.device))
        masks = stored["mask"][:, 0].to(inference.device)
        highest = int(masks[masks != UNKNOWN].max()) if (masks != UNKNOWN).any() else 0
        if highest >= len(self.model.classes):
            raise InputError(
                f"a mask shows class {highest}, but the model knows {len(self.model.classes)},"
                " counted from 0"
            )
        return stored["image"].to(inference.device), masks

    def segmented(self, inference: Inference, images: Tensor) -> Tensor:
        """int64 [N, H, W] of uint8 [N, C, H, W]."""
        compute = self.abilities(inference.networks)["segment"].compute
        floats = to_floats(images, inference.device)
        return inference.rows(compute, {"image": floats})["mask"].long()

    def protocol(self, data: Dataset) -> dict[str, str | int]:
        return {
            "images": min(self.evaluation.images, len(data)),
            "seed": 0,
            "detector": "none: the model's own classes",
            "method": "intersection over union of the pixels of all images, mean over classes;"
            " share of pixels that are right",
        }

    @torch.no_grad()
    def preview(self, inference: Inference, data: Dataset) -> tuple[Tensor, int]:
        """Columns: image, truth, what the model sees."""
        images, truth = self.looked_at(inference, data, data.choose(8))
        guess = self.segmented(inference, images)
        pictures = []
        for image, *masks in zip(
            images.permute(0, 2, 3, 1).cpu().numpy(), truth.cpu(), guess.cpu(), strict=True
        ):
            nothing = np.zeros(image.shape[:2], np.int64)
            pictures += [overlay(image, mask) for mask in (nothing, *(m.numpy() for m in masks))]
        return to_tensor(np.stack(pictures)), 6


def segmenter() -> Segmenter:
    """A U-Net (Ronneberger et al. 2015): the class of each pixel, of images of any size."""
    return Segmenter(
        recipe="segmenter",
        data=Data(size=64, channels=3, augment="flip", holdout=1_000),
        train=Train(
            images=60_000, batch_size=32, lr=2e-3, warmup=2_000, decay="cosine",
            ema_half_life=2_000, clip_norm=1.0,
        ),
    )  # fmt: skip
