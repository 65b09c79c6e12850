"""The restoration method: a network learns to undo a degradation of known strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.contracts import Batch, Sync
from genimg.training.method import Method

if TYPE_CHECKING:
    from genimg.recipe import Train

Degrade = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Restoration(Method):
    """Minimises the absolute difference of the restored and the clean image (as EDSR does).

    degrade: (clean images [N, C, H, W], keys [N]) -> (degraded images, strengths [N])
    restorer: (degraded images, strengths) -> restored images
    """

    def __init__(
        self,
        restorer: nn.Module,
        degrade: Degrade,
        train: Train,
        device: torch.device,
        betas: tuple[float, float],
    ) -> None:
        super().__init__({"restorer": restorer}, ("restorer",), train, device, betas)
        self.undo = self.compiled(restorer)
        self.degrade = degrade

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        degraded, strengths = self.degrade(batch.images, batch.keys)
        with self.autocast:
            restored = self.undo(degraded, strengths).float()
        loss = F.l1_loss(restored, batch.images)
        self.step("restorer", loss, batch, sync)
        self.finish(batch)
        return {"loss": loss}
