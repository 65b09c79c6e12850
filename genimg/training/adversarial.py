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
        self.generate = self.compiled(generator)
        self.discriminate = self.compiled(discriminator)
        self.latent = latent
        self.r1 = r1
        self.r1_every = r1_every

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        discriminator = self.networks["discriminator"]
        latents = rng.normal(rng.fold(batch.keys, LATENTS), (self.latent,))
        penalise = self.r1 > 0 and (self.seen // batch.total) % self.r1_every == 0

        with self.autocast:
            fake = self.generate(latents)
            real = batch.images.detach().requires_grad_(penalise)
            # the penalty differentiates twice, which compiled networks cannot
            real_logits = (discriminator if penalise else self.discriminate)(real).float()
            fake_logits = self.discriminate(fake.detach()).float()
        loss_d = discriminator_logistic(real_logits, fake_logits)
        losses = {"loss_d": loss_d}
        if penalise:
            penalty = r1_penalty(real_logits, real)
            loss_d = loss_d + 0.5 * self.r1 * self.r1_every * penalty
        self.step("discriminator", loss_d, batch, sync)

        discriminator.requires_grad_(False)
        with self.autocast:
            logits = self.discriminate(fake).float()
        loss_g = generator_nonsaturating(logits)
        self.step("generator", loss_g, batch, sync)
        discriminator.requires_grad_(True)

        self.finish(batch)
        return losses | {
            "loss_g": loss_g,
            "logit_real": real_logits.mean(),
            "logit_fake": fake_logits.mean(),
        }
