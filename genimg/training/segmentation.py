"""The segmentation method: a network learns the class of each pixel."""

from __future__ import annotations

import torch
from torch import Tensor

from genimg.contracts import UNKNOWN, Batch, Sync
from genimg.losses import pixel_cross_entropy, soft_dice
from genimg.schedule import Train
from genimg.training.method import Method, Part


class Segmentation(Method):
    """Minimises the cross-entropy of pixels and, by a weight, one minus their Dice coefficient.

    segmenter: images [N, C, H, W] -> logits [N, classes, H, W]
    dice: weight beside the cross-entropy
    """

    def __init__(self, segmenter: Part, dice: float, train: Train, device: torch.device) -> None:
        super().__init__({"segmenter": segmenter}, train, device)
        self.segment = self.compiled(segmenter.network)
        self.dice = dice

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        mask = batch.rows["mask"]
        with self.autocast:
            logits = self.segment(batch.rows["image"]).float()
        entropy = pixel_cross_entropy(logits, mask)
        reported = {"loss": entropy, "cross_entropy": entropy}
        if self.dice > 0:
            reported["dice"] = soft_dice(logits, mask)
            reported["loss"] = entropy + self.dice * reported["dice"]
        self.step("segmenter", reported["loss"], batch, sync)
        self.finish(batch)
        right = (logits.argmax(dim=1) == mask) & (mask != UNKNOWN)
        known = (mask != UNKNOWN).sum().clamp(min=1)
        return reported | {"accuracy": right.sum() / known}
