"""The restoration method: a network learns to undo a known degradation of its input."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from genimg import losses
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part

Degrade = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
Difference = Callable[[Tensor, Tensor], Tensor]
Features = Callable[[Tensor], Sequence[Tensor]]


class Restoration(Method):
    """Minimises the difference of the restored and the clean image.

    degrade: (clean images [N, C, H, W], keys [N]) -> (degraded images, condition maps [N, K, H, W])
    difference: (restored images, clean images) -> scalar
    perceptual: weight of the difference of their features, which `perceive` must then be told
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
        perceptual: float = 0.0,
        *,
        against: Mapping[str, Part] | None = None,
    ) -> None:
        super().__init__({"restorer": restorer, **(against or {})}, train, device)
        self.undo = self.compiled(restorer.network)
        self.difference = difference
        self.degrade = degrade
        self.perceptual = perceptual
        self.features: Features | None = None

    def start(self, weights: Mapping[str, Tensor]) -> None:
        """Begin with a restorer's weights in place of random ones."""
        for networks in (self.networks, self.averages):
            networks["restorer"].load_state_dict(weights)

    def perceive(self, features: Features) -> None:
        """Compare images by what this sees in them: [N, C, H, W] -> maps, in some layers.

        It is not compiled: layers in evaluation mode choose kernels that the compiler knows not.
        """
        self.features = features

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        restored, clean = self.restored(batch)
        reported = self.learn_to_restore(self.costs(restored, clean), batch, sync)
        self.finish(batch)
        return reported

    def restored(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """(restored images, clean images)."""
        images = batch.rows["image"]
        degraded, maps = self.degrade(images, batch.keys)
        with self.autocast:
            restored = self.undo(degraded, maps).float()
        return restored, batch.rows.get("target", images)

    def costs(self, restored: Tensor, clean: Tensor) -> dict[str, Tensor]:
        """The weighted parts of the loss, scalars."""
        parts = {"pixels": self.difference(restored, clean)}
        if self.perceptual:
            assert self.features is not None
            with self.autocast:
                with torch.no_grad():
                    truth = self.features(clean)
                seen = self.features(restored)
            parts["perceptual"] = self.perceptual * losses.features_l1(seen, truth)
        return parts

    def learn_to_restore(
        self, costs: Mapping[str, Tensor], batch: Batch, sync: Sync
    ) -> dict[str, Tensor]:
        """The restorer's step; the loss, and its parts where there are several."""
        loss = torch.stack([*costs.values()]).sum()
        self.step("restorer", loss, batch, sync)
        parts = {f"loss_{name}": cost for name, cost in costs.items()} if len(costs) > 1 else {}
        return {"loss": loss} | parts
