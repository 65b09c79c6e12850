"""The adversarial method: a generator against a discriminator, by the rules of a game."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from genimg import losses, rng
from genimg.contracts import Batch, Rows, Sync
from genimg.schedule import Train, along, burnt_in
from genimg.training.differentiable import augmented
from genimg.training.game import Game
from genimg.training.method import Method, Part, classes_of, told, untold

LATENTS = 1  # tag under which a batch's keys give its latents
BETWEEN = 2  # tag under which they give places between real and generated images
AUGMENT = 3  # tag under which they, and one of the places below, give augmentations
UNTOLD = 4  # tag under which they say of which images the text is not told
SECOND, CROSSED = 5, 6  # tags under which they give latents that are mixed in, and from where on
REAL, FAKE, AMID, REAL_AGAIN, FAKE_AGAIN = range(5)
ADAPTED = 500_000  # images in which adaptive augmentation can go from never to always


@dataclass(frozen=True)
class Turn:
    """A batch as the two networks meet it.

    real: images in packs [N, pack * C, H, W], as the discriminator takes them
    classes: float32 [N, classes] of the images, or None
    done: part of the burn-in that lies behind
    """

    batch: Batch
    sync: Sync
    real: Tensor
    classes: Tensor | None
    done: float


class Adversarial(Method):
    """Alternates discriminator steps and a generator step, which shares the last one's latents.

    generator: latents float32 [N, latent], classes -> images [N, C, H, W] in [-1, 1]; where its
        `layers` have styles, perhaps also other latents, and which of the layers take theirs
    discriminator: body: images (in packs: [N, pack * C, H, W]) -> features [N, ...];
        logits: features, classes -> logits [N]; where the two grow, faded: real images -> images
    classes: how many there are; the networks are given float32 [N, classes], one of them 1, those
        of the batch's labels for real and for generated images; 0: they are given None, or those
        that have a reader what that reads in the images' texts, and with game.drop zeros
    """

    def __init__(
        self, generator: Part, discriminator: Part, latent: int, classes: int, game: Game,
        train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"generator": generator, "discriminator": discriminator}, train, device)
        self.generate = self.compiled(generator.network)
        self.discriminate = self.compiled(self.judged)
        self.latent = latent
        self.layers: int = getattr(generator.network, "layers", 0)
        self.classes = classes
        self.game = game
        self.discriminator_loss, self.generator_loss = game.losses()
        every = (*self.networks.values(), *self.averages.values())
        self._growing = [network for network in every if hasattr(network, "grow")]
        if game.adaptive:
            self.state["probability"] = torch.zeros((), device=device)

    def drawn(self, keys: Tensor) -> Rows:
        rows: Rows = {"latent": rng.normal(rng.fold(keys, LATENTS), (self.latent,))}
        if self.game.style_mixing > 0:
            rows["second"] = rng.normal(rng.fold(keys, SECOND), (self.latent,))
            rows["layers"] = crossed(rng.fold(keys, CROSSED), self.layers, self.game.style_mixing)
        return rows

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        for network in self._growing:
            network.grow(self.seen)
        step = self.seen // batch.total
        drawn = batch.rows if "latent" in batch.rows else self.drawn(batch.keys)
        names = ("second", "layers") if "layers" in drawn else ()
        # of their own: kernels are chosen by how memory lies, too
        latents, *mixed = (drawn[name].clone() for name in ("latent", *names))  # type: ignore[literal-required]
        classes = classes_of(batch, self.classes)
        real = packed(batch.rows["image"].detach(), self.game.pack)
        if self._growing:
            real = self.networks["discriminator"].faded(real)
        turn = Turn(batch, sync, real, classes, burnt_in(self.train, self.seen))
        moves = (step + 1) % self.game.critic_steps == 0  # the generator
        with self.autocast, torch.set_grad_enabled(moves):
            drawn_of = self.told("generator", turn)
            fake = packed(self.generate(latents, drawn_of, *mixed), self.game.pack)
        reported = self._learn_to_tell(turn, fake.detach(), lazily=step % self.game.r1_every == 0)
        if moves:
            reported |= self._learn_to_draw(turn, fake)
        self.finish(batch)
        return reported

    def _learn_to_tell(self, turn: Turn, fake: Tensor, lazily: bool) -> dict[str, Tensor]:
        """The discriminator's step; lazily: it is one of those with penalties R1 and R2."""
        game, penalties = self.game, []
        real, logits = turn.real.detach(), []
        r1 = along(game.r1, game.r1_end, turn.done) if lazily else 0
        r2 = along(game.r2, game.r2_end, turn.done) if lazily else 0
        for images, place, gamma in ((real, REAL, r1), (fake, FAKE, r2)):
            images.requires_grad_(gamma > 0)
            outputs, _ = self._told(images, turn, place, twice=gamma > 0)
            logits.append(outputs)
            if gamma > 0:
                penalty = losses.zero_centred_penalty(outputs, images)
                penalties.append(0.5 * gamma * game.r1_every * penalty)
        loss = self.discriminator_loss(*logits)
        reported = {"loss_d": loss, "logit_real": logits[0].mean(), "logit_fake": logits[1].mean()}
        if game.gradient_penalty > 0:
            part = rng.uniform(rng.fold(turn.batch.keys[:: game.pack], BETWEEN), (1, 1, 1))
            between = torch.lerp(fake.detach().float(), turn.real, part).requires_grad_()
            outputs, _ = self._told(between, turn, AMID, twice=True)
            penalty = losses.gradient_penalty(outputs, between)
            penalties.append(game.gradient_penalty * penalty)
            reported["penalty"] = penalty
        if game.drift > 0:
            penalties.append(game.drift * logits[0].square().mean())
        self.step("discriminator", sum(penalties, loss), turn.batch, turn.sync)
        if game.weight_clip > 0:
            self._clip(game.weight_clip)
        if game.adaptive > 0:
            reported["probability"] = self._adapt(logits[0], turn)
        return reported

    def _learn_to_draw(self, turn: Turn, fake: Tensor) -> dict[str, Tensor]:
        """The generator's step."""
        game, discriminator = self.game, self.networks["discriminator"]
        discriminator.requires_grad_(False)
        real = fake
        if game.paired or game.feature_matching > 0:
            real_logits, real = self._told(turn.real.detach(), turn, REAL_AGAIN)
        logits, features = self._told(fake, turn, FAKE_AGAIN)
        loss = self.generator_loss(*([real_logits] if game.paired else []), logits)
        reported = {"loss_g": loss}
        if game.feature_matching > 0:
            mean = partial(turn.sync.mean, share=turn.batch.share)
            distance = losses.feature_distance(real, features, mean)
            loss = loss + game.feature_matching * distance
            reported["features"] = distance
        if game.orthogonal > 0:
            filters = (p for p in self.networks["generator"].parameters() if p.dim() == 4)
            loss = loss + game.orthogonal * losses.orthogonal_penalty(filters)
        self.step("generator", loss, turn.batch, turn.sync)
        discriminator.requires_grad_(True)
        return reported

    def _told(
        self, images: Tensor, turn: Turn, place: int, twice: bool = False
    ) -> tuple[Tensor, Tensor]:
        """(logits float32 [N], features) of images [N, pack * C, H, W], augmented.

        place: of the step, so that each has augmentations of its own
        twice: they are differentiated twice, which compiled networks cannot be
        """
        game = self.game
        if game.augment:
            keys = rng.fold(turn.batch.keys, AUGMENT, place)
            often = self.state.get(
                "probability", along(game.probability, game.probability_end, turn.done)
            )
            images = augmented(unpacked(images, game.pack), keys, game.augment, often)
            images = packed(images, game.pack)
        discriminate = self.judged if twice else self.discriminate
        with self.autocast:
            logits, features = discriminate(images, self.told("discriminator", turn))
        return logits.float(), features

    def told(self, name: str, turn: Turn) -> Tensor | None:
        """float32 [N, K]: what a network is told of each image."""
        network = self.networks[name]
        if not hasattr(network, "reader"):
            return turn.classes
        read = told(network, turn.batch, self.classes)
        assert read is not None, "it reads texts"
        return untold(read, rng.fold(turn.batch.keys, UNTOLD), self.game.drop)

    def judged(self, images: Tensor, classes: Tensor | None) -> tuple[Tensor, Tensor]:
        """The discriminator's logits, and its features behind them."""
        discriminator = self.networks["discriminator"]
        features = discriminator.body(images)
        return discriminator.logits(features, classes), features

    @torch.no_grad()
    def _adapt(self, real: Tensor, turn: Turn) -> Tensor:
        """The probability of augmentations, one step nearer to where it does not overfit.

        By how much more often real images are told rightly than wrongly (r_t, section 3, Karras et
        al. 2020, Training GANs with limited data); at each step, where its authors wait for four.
        """
        ahead = turn.sync.mean(real.sign().mean(), turn.batch.share) - self.game.adaptive
        probability = self.state["probability"]
        return probability.add_(ahead.sign() * (turn.batch.total / ADAPTED)).clamp_(0, 1).clone()

    @torch.no_grad()
    def _clip(self, most: float) -> None:
        """Weights of the discriminator into [-most, most] (algorithm 1, Arjovsky et al. 2017)."""
        weights = list(self.networks["discriminator"].parameters())
        torch._foreach_clamp_min_(weights, -most)
        torch._foreach_clamp_max_(weights, most)


def crossed(keys: Tensor, layers: int, share: float) -> Tensor:
    """float32 [N, layers]: 1 from a random layer on, which is not the first; 0 before, and for all
    but a share of the rows.

    (Style mixing regularisation, section 3.1, Karras et al. 2019, A Style-Based Generator.)
    """
    first = 1 + rng.integers(keys, layers - 1)
    first = torch.where(rng.uniform(rng.fold(keys, 0)) < share, first, layers)
    return (torch.arange(layers, device=keys.device) >= first[:, None]).float()


def packed(images: Tensor, pack: int) -> Tensor:
    """[N, C, H, W] -> [N / pack, pack * C, H, W]: neighbours as the channels of one."""
    return images if pack == 1 else images.unflatten(0, (-1, pack)).flatten(1, 2)


def unpacked(images: Tensor, pack: int) -> Tensor:
    """The inverse of `packed`."""
    return images if pack == 1 else images.unflatten(1, (pack, -1)).flatten(0, 1)
