"""The adversarial method: a generator against a discriminator, with one of three losses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import losses, rng
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.method import Method, Part

LATENTS = 1  # tag under which a batch's keys give its latents
BETWEEN = 2  # tag under which they give places between real and generated images

Kind = Literal["logistic", "least-squares", "wasserstein"]
LOSSES: dict[Kind, tuple[Callable[[Tensor, Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "logistic": (losses.discriminator_logistic, losses.generator_nonsaturating),
    "least-squares": (losses.discriminator_least_squares, losses.generator_least_squares),
    "wasserstein": (losses.critic_wasserstein, losses.generator_wasserstein),
}
"""Of the discriminator and of the generator."""


@dataclass(frozen=True)
class Game:
    """The rules between the two networks.

    r1: gamma of the penalty at real images; r1_every: steps between these, each then weighing
        that much more (lazy regularisation, Karras et al. 2020)
    gradient_penalty: weight of the penalty between real and generated images
    critic_steps: steps of the discriminator for one of the generator, each on images of its own
    """

    kind: Kind = "logistic"
    r1: float = 0.0
    r1_every: int = 1
    gradient_penalty: float = 0.0
    critic_steps: int = 1


class Adversarial(Method):
    """Alternates discriminator steps and a generator step, which shares the last one's latents.

    generator: latents float32 [N, latent], classes -> images [N, C, H, W] in [-1, 1]
    discriminator: images, classes -> logits [N]
    classes: how many there are; the networks are given float32 [N, classes], one of them 1, those
        of the batch's labels for real and for generated images; 0: they are given None
    """

    def __init__(
        self, generator: Part, discriminator: Part, latent: int, classes: int, game: Game,
        train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"generator": generator, "discriminator": discriminator}, train, device)
        self.generate = self.compiled(generator.network)
        self.discriminate = self.compiled(discriminator.network)
        self.latent = latent
        self.classes = classes
        self.game = game
        self.discriminator_loss, self.generator_loss = LOSSES[game.kind]

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        game, step = self.game, self.seen // batch.total
        latents = rng.normal(rng.fold(batch.keys, LATENTS), (self.latent,))
        classes = one_hot(batch.rows["label"], self.classes) if self.classes else None
        moves = (step + 1) % game.critic_steps == 0  # the generator
        with self.autocast, torch.set_grad_enabled(moves):
            fake = self.generate(latents, classes)
        reported = self._learn_to_tell(batch, fake.detach(), classes, step, sync)
        if moves:
            reported |= self._learn_to_draw(batch, fake, classes, sync)
        self.finish(batch)
        return reported

    def _learn_to_tell(
        self, batch: Batch, fake: Tensor, classes: Tensor | None, step: int, sync: Sync
    ) -> dict[str, Tensor]:
        """The discriminator's step."""
        game, discriminator = self.game, self.networks["discriminator"]
        penalise = game.r1 > 0 and step % game.r1_every == 0
        real = batch.rows["image"].detach().requires_grad_(penalise)
        with self.autocast:
            # penalties differentiate twice, which compiled networks cannot
            real_logits = (discriminator if penalise else self.discriminate)(real, classes).float()
            fake_logits = self.discriminate(fake, classes).float()
        loss = self.discriminator_loss(real_logits, fake_logits)
        reported = {"loss_d": loss}
        if penalise:
            penalty = losses.r1_penalty(real_logits, real)
            loss = loss + 0.5 * game.r1 * game.r1_every * penalty
        if game.gradient_penalty > 0:
            part = rng.uniform(rng.fold(batch.keys, BETWEEN), (1, 1, 1))
            between = torch.lerp(fake.float(), real.detach(), part).requires_grad_()
            with self.autocast:
                logits = discriminator(between, classes).float()
            penalty = losses.gradient_penalty(logits, between)
            loss = loss + game.gradient_penalty * penalty
            reported["penalty"] = penalty
        self.step("discriminator", loss, batch, sync)
        return reported | {"logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}

    def _learn_to_draw(
        self, batch: Batch, fake: Tensor, classes: Tensor | None, sync: Sync
    ) -> dict[str, Tensor]:
        """The generator's step."""
        discriminator = self.networks["discriminator"]
        discriminator.requires_grad_(False)
        with self.autocast:
            logits = self.discriminate(fake, classes).float()
        loss = self.generator_loss(logits)
        self.step("generator", loss, batch, sync)
        discriminator.requires_grad_(True)
        return {"loss_g": loss}


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """float32 [N, classes] of labels int64 [N]: 1 for its own class, 0 for the others."""
    return F.one_hot(labels, classes).float()
