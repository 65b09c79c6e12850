"""The recognition method: a classifier learns the labels of images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.contracts import Batch, Sync
from genimg.errors import InputError
from genimg.training.method import Method

if TYPE_CHECKING:
    from genimg.recipe import Train


class Recognition(Method):
    """Minimises the cross-entropy, with label smoothing (section 7, Szegedy et al. 2016).

    classifier: images [N, C, H, W] -> logits [N, classes]
    """

    def __init__(
        self,
        classifier: nn.Module,
        label_smoothing: float,
        train: Train,
        device: torch.device,
        betas: tuple[float, float],
    ) -> None:
        super().__init__({"classifier": classifier}, ("classifier",), train, device, betas)
        self.classify = self.compiled(classifier)
        self.label_smoothing = label_smoothing

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        if batch.labels is None:
            raise InputError("a classifier needs labels: put the images into one folder a class")
        with self.autocast:
            logits = self.classify(batch.images).float()
        loss = F.cross_entropy(logits, batch.labels, label_smoothing=self.label_smoothing)
        self.step("classifier", loss, batch, sync)
        self.finish(batch)
        correct = (logits.argmax(dim=1) == batch.labels).float().mean()
        return {"loss": loss, "accuracy": correct}
