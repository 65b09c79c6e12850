"""The recognition method: a classifier learns the labels of images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part


class Recognition(Method):
    """Minimises the cross-entropy, with label smoothing (section 7, Szegedy et al. 2016).

    Labels may be shares of classes, float32 [N, classes].
    classifier: images [N, C, H, W] -> logits [N, classes]
    begin: (images, mean) sets before the first step what the network takes from them: this worker's
        share of the first batch, and a tensor's share-weighted mean over the workers
    """

    def __init__(
        self,
        classifier: Part,
        label_smoothing: float,
        train: Train,
        device: torch.device,
        begin: Callable[[Tensor, Callable[[Tensor], Tensor]], None] | None = None,
    ) -> None:
        super().__init__({"classifier": classifier}, train, device)
        self.begin = begin
        self.classify = self.compiled(classifier.network)
        self.label_smoothing = label_smoothing

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        labels = batch.rows["label"]
        if self.begin and self.seen == 0:
            self.begin(batch.rows["image"], lambda values: sync.mean(values, batch.share))
        with self.autocast:
            logits = self.classify(batch.rows["image"]).float()
        loss = F.cross_entropy(logits, labels, label_smoothing=self.label_smoothing)
        self.step("classifier", loss, batch, sync)
        self.finish(batch)
        likeliest = labels.argmax(dim=1) if labels.is_floating_point() else labels
        correct = (logits.argmax(dim=1) == likeliest).float().mean()
        return {"loss": loss, "accuracy": correct}
