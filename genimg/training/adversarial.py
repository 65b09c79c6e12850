"""The adversarial method: a generator against a discriminator, non-saturating loss and R1."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from genimg import rng
from genimg.contracts import Batch, Sync
from genimg.losses import discriminator_logistic, generator_nonsaturating, r1_penalty
from genimg.training.method import Method

if TYPE_CHECKING:
    from genimg.recipe import Train

LATENTS = 1  # tag under which a batch's keys give its latents


class Adversarial(Method):
    """Alternates one discriminator step and one generator step on the same latents.

    generator: latents float32 [N, latent] -> images [N, C, H, W] in [-1, 1]
    discriminator: images -> logits [N]
    r1: gamma of the penalty; r1_every: steps between penalties, each then weighing that much
    more (lazy regularisation, Karras et al. 2020)
    """

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        latent: int,
        r1: float,
        r1_every: int,
        train: Train,
        device: torch.device,
        betas: tuple[float, float],
    ) -> None:
        networks = {"generator": generator, "discriminator": discriminator}
        super().__init__(networks, ("generator",), train, device, betas)
        self.latent = latent
        self.r1 = r1
        self.r1_every = r1_every

    def update(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        generator, discriminator = self.networks["generator"], self.networks["discriminator"]
        latents = rng.normal(rng.fold(batch.keys, LATENTS), (self.latent,))
        penalise = self.r1 > 0 and (self.seen // batch.total) % self.r1_every == 0

        with self.autocast:
            fake = generator(latents)
            real = batch.images.detach().requires_grad_(penalise)
            real_logits = discriminator(real)
            fake_logits = discriminator(fake.detach())
        loss_d = discriminator_logistic(real_logits, fake_logits)
        losses = {"loss_d": loss_d.detach()}
        if penalise:
            penalty = r1_penalty(real_logits, real)
            loss_d = loss_d + 0.5 * self.r1 * self.r1_every * penalty
        self.step("discriminator", loss_d, batch, sync)

        discriminator.requires_grad_(False)
        with self.autocast:
            loss_g = generator_nonsaturating(discriminator(fake))
        self.step("generator", loss_g, batch, sync)
        discriminator.requires_grad_(True)

        self.finish(batch, sync)
        return losses | {
            "loss_g": loss_g.detach(),
            "logit_real": real_logits.detach().mean(),
            "logit_fake": fake_logits.detach().mean(),
        }
