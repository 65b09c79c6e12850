"""Restoration against a discriminator, which tells restored images from clean ones."""

from __future__ import annotations

import torch
from torch import Tensor

from genimg import losses
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Part
from genimg.training.restoration import Degrade, Difference, Restoration


class AdversarialRestoration(Restoration):
    """Alternates a step of the discriminator and one of the restorer, on the same images.

    As ESRGAN's second stage (Wang et al. 2018), but with the non-saturating logistic loss, which
    is a mean over images: any number of workers computes the same.

    discriminator: images -> logits [N, 1, h, w], of patches
    adversarial: weight of not deceiving it in the restorer's loss
    """

    def __init__(
        self,
        restorer: Part,
        discriminator: Part,
        degrade: Degrade,
        difference: Difference,
        train: Train,
        device: torch.device,
        perceptual: float = 0.0,
        adversarial: float = 0.005,
    ) -> None:
        super().__init__(
            restorer, degrade, difference, train, device, perceptual,
            against={"discriminator": discriminator},
        )  # fmt: skip
        self.discriminate = self.compiled(discriminator.network)
        self.adversarial = adversarial

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        restored, clean = self.restored(batch)
        reported = self.learn_to_tell(restored.detach(), clean, batch, sync)
        costs = self.costs(restored, clean)
        discriminator = self.networks["discriminator"].requires_grad_(False)
        with self.autocast:
            logits = self.discriminate(restored).float()
        costs["adversarial"] = self.adversarial * losses.generator_nonsaturating(logits)
        reported |= self.learn_to_restore(costs, batch, sync)
        discriminator.requires_grad_(True)
        self.finish(batch)
        return reported

    def learn_to_tell(
        self, restored: Tensor, clean: Tensor, batch: Batch, sync: Sync
    ) -> dict[str, Tensor]:
        """The discriminator's step."""
        with self.autocast:  # in one pass, and so by the same weights
            logits = self.discriminate(torch.cat([clean, restored])).float()
        real, fake = logits.chunk(2)
        loss = losses.discriminator_logistic(real, fake)
        self.step("discriminator", loss, batch, sync)
        return {"loss_d": loss, "logit_real": real.mean(), "logit_fake": fake.mean()}
