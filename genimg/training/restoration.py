"""The restoration method: a network learns to undo damage."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part

Degrade = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Difference = Callable[[Tensor, Tensor], Tensor]


class Restoration(Method):
    """Minimises the difference of the restored and the clean image.

    degrade: (clean images [N, C, H, W], keys [N]) -> (degraded images, condition maps [N, K, H, W])
    difference: (restored images, clean images) -> scalar
    restorer: (degraded images, condition maps) -> restored images

    Where rows have a `target`, that is the clean image, and `image` is damaged already.
    """

    def __init__(
        self,
        restorer: Part,
        degrade: Degrade,
        difference: Difference,
        train: Train,
        device: torch.device,
    ) -> None:
        super().__init__({"restorer": restorer}, train, device)
        self.undo = self.compiled(restorer.network)
        self.difference = difference
        self.degrade = degrade

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        images = batch.rows["image"]
        degraded, maps = self.degrade(images, batch.keys)
        with self.autocast:
            restored = self.undo(degraded, maps).float()
        loss = self.difference(restored, batch.rows.get("target", images))
        self.step("restorer", loss, batch, sync)
        self.finish(batch)
        return {"loss": loss}
