"""The restoration method: a network learns to undo a degradation of known strength."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part

Kind = Literal["absolute", "squared"]
Degrade = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]


class Restoration(Method):
    """Minimises the difference of the restored and the clean image.

    kind: absolute (as EDSR, Lim et al. 2017) or squared (eq. 1, Zhang et al. 2017)

    degrade: (clean images [N, C, H, W], keys [N]) -> (degraded images, strengths [N])
    restorer: (degraded images, strengths) -> restored images
    """

    def __init__(
        self,
        restorer: Part,
        degrade: Degrade,
        kind: Kind,
        train: Train,
        device: torch.device,
    ) -> None:
        super().__init__({"restorer": restorer}, train, device)
        self.undo = self.compiled(restorer.network)
        self.difference = F.l1_loss if kind == "absolute" else F.mse_loss
        self.degrade = degrade

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        degraded, strengths = self.degrade(batch.rows["image"], batch.keys)
        with self.autocast:
            restored = self.undo(degraded, strengths).float()
        loss = self.difference(restored, batch.rows["image"])
        self.step("restorer", loss, batch, sync)
        self.finish(batch)
        return {"loss": loss}
