"""The adversarial method: a generator against a discriminator, by the rules of a game."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg import losses, rng
from genimg.contracts import Batch, Sync
from genimg.schedule import Train
from genimg.training.differentiable import Augmentation, augmented
from genimg.training.method import Method, Part

LATENTS = 1  # tag under which a batch's keys give its latents
BETWEEN = 2  # tag under which they give places between real and generated images
AUGMENT = 3  # tag under which they, and one of the places below, give augmentations
REAL, FAKE, AMID, REAL_AGAIN, FAKE_AGAIN = range(5)

Kind = Literal["logistic", "minimax", "least-squares", "hinge", "wasserstein", "relativistic"]
LOSSES: dict[Kind, tuple[Callable[..., Tensor], Callable[..., Tensor]]] = {
    "logistic": (losses.discriminator_logistic, losses.generator_nonsaturating),
    "minimax": (losses.discriminator_logistic, losses.generator_minimax),
    "least-squares": (losses.discriminator_least_squares, losses.generator_least_squares),
    "hinge": (losses.discriminator_hinge, losses.generator_wasserstein),
    "wasserstein": (losses.critic_wasserstein, losses.generator_wasserstein),
    "relativistic": (losses.discriminator_relativistic, losses.generator_relativistic),
}
"""Of the discriminator and of the generator."""
LABELLED: frozenset[Kind] = frozenset({"logistic", "minimax", "least-squares"})
"""Those by which an image has a label, which can be smoothed."""
PAIRED: frozenset[Kind] = frozenset({"relativistic"})
"""Those by which the generator too is told of real images."""


@dataclass(frozen=True)
class Game:
    """The rules between the two networks.

    r1, r2: gamma of the penalties at real and at generated images; r1_every: steps between these,
        each then weighing that much more (lazy regularisation, Karras et al. 2020)
    gradient_penalty: weight of the penalty between real and generated images
    weight_clip: largest absolute weight of the discriminator; 0: any
    smoothing: taken off the label 1 of real images, of losses with labels
    critic_steps: steps of the discriminator for one of the generator, each on images of its own
    orthogonal: weight of the penalty on what the generator's filters have in common
    augment: what befalls every image that the discriminator sees
    """

    kind: Kind = "logistic"
    r1: float = 0.0
    r2: float = 0.0
    r1_every: int = 1
    gradient_penalty: float = 0.0
    weight_clip: float = 0.0
    smoothing: float = 0.0
    critic_steps: int = 1
    orthogonal: float = 0.0
    augment: tuple[Augmentation, ...] = ()


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
        if game.kind in LABELLED:
            self.discriminator_loss = partial(self.discriminator_loss, smoothing=game.smoothing)

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
        game = self.game
        lazily = step % game.r1_every == 0
        seen: list[tuple[Tensor, Tensor, float]] = []
        for images, place, gamma in (
            (batch.rows["image"].detach(), REAL, game.r1),
            (fake, FAKE, game.r2),
        ):
            penalised = lazily and gamma > 0
            images.requires_grad_(penalised)
            logits = self._logits(images, classes, batch, place, twice=penalised)
            seen.append((images, logits, gamma if penalised else 0.0))
        real_logits, fake_logits = (logits for _, logits, _ in seen)
        loss = self.discriminator_loss(real_logits, fake_logits)
        reported = {"loss_d": loss}
        for images, logits, gamma in seen:
            if gamma:
                penalty = losses.zero_centred_penalty(logits, images)
                loss = loss + 0.5 * gamma * game.r1_every * penalty
        if game.gradient_penalty > 0:
            part = rng.uniform(rng.fold(batch.keys, BETWEEN), (1, 1, 1))
            between = torch.lerp(fake.detach().float(), batch.rows["image"], part).requires_grad_()
            logits = self._logits(between, classes, batch, AMID, twice=True)
            penalty = losses.gradient_penalty(logits, between)
            loss = loss + game.gradient_penalty * penalty
            reported["penalty"] = penalty
        self.step("discriminator", loss, batch, sync)
        if game.weight_clip > 0:
            self._clip(game.weight_clip)
        return reported | {"logit_real": real_logits.mean(), "logit_fake": fake_logits.mean()}

    def _learn_to_draw(
        self, batch: Batch, fake: Tensor, classes: Tensor | None, sync: Sync
    ) -> dict[str, Tensor]:
        """The generator's step."""
        discriminator = self.networks["discriminator"]
        discriminator.requires_grad_(False)
        seen = [(batch.rows["image"].detach(), REAL_AGAIN)] if self.game.kind in PAIRED else []
        logits = [
            self._logits(images, classes, batch, place)
            for images, place in (*seen, (fake, FAKE_AGAIN))
        ]
        loss = self.generator_loss(*logits)
        reported = {"loss_g": loss}
        if self.game.orthogonal > 0:
            filters = (p for p in self.networks["generator"].parameters() if p.dim() == 4)
            loss = loss + self.game.orthogonal * losses.orthogonal_penalty(filters)
        self.step("generator", loss, batch, sync)
        discriminator.requires_grad_(True)
        return reported

    def _logits(
        self, images: Tensor, classes: Tensor | None, batch: Batch, place: int, twice: bool = False
    ) -> Tensor:
        """float32 [N] of images [N, C, H, W], augmented.

        place: of the step, so that each has augmentations of its own
        twice: they are differentiated twice, which compiled networks cannot be
        """
        if self.game.augment:
            keys = rng.fold(batch.keys, AUGMENT, place)
            images = augmented(images, keys, self.game.augment)
        discriminate = self.networks["discriminator"] if twice else self.discriminate
        with self.autocast:
            return discriminate(images, classes).float()

    @torch.no_grad()
    def _clip(self, most: float) -> None:
        """Weights of the discriminator into [-most, most] (algorithm 1, Arjovsky et al. 2017)."""
        weights = list(self.networks["discriminator"].parameters())
        torch._foreach_clamp_min_(weights, -most)
        torch._foreach_clamp_max_(weights, most)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """float32 [N, classes] of labels int64 [N]: 1 for its own class, 0 for the others."""
    return F.one_hot(labels, classes).float()
