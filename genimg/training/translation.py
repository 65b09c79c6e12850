"""Translation: images of one kind are learnt to be turned into another, from pairs or without."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from genimg.contracts import Batch, Rows, Sync
from genimg.schedule import Train
from genimg.training.game import LOSSES, Kind
from genimg.training.method import Method, Part

Sides = Callable[[Rows], tuple[Tensor, Tensor]]
Network = Callable[[Tensor], Tensor]


class Contest(NamedTuple):
    """What a discriminator has to tell apart.

    discriminate: images [N, C, H, W] -> logits [N, 1, h, w], of patches
    real, fake: such images
    """

    discriminate: Network
    real: Tensor
    fake: Tensor


class Translation(Method):
    """Alternates a step of the discriminators and one of the translators, on the same images.

    translator, discriminator: a network, or several as one
    sides: rows -> (images of the first kind, images of the second), [N, C, H, W] in [-1, 1] each
    kind: of the losses of discriminators and translators, one of those that see one kind of images
        at a time

    Unlike in CycleGAN's paper discriminators see no translations of earlier steps, which several
    workers would have to share.
    """

    def __init__(
        self, translator: Part, discriminator: Part, sides: Sides, kind: Kind, train: Train,
        device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"translator": translator, "discriminator": discriminator}, train, device)
        self.sides = sides
        self.discriminator_loss, self.generator_loss = LOSSES[kind]

    @abstractmethod
    def translated(self, first: Tensor, second: Tensor) -> tuple[list[Contest], dict[str, Tensor]]:
        """(what discriminators are to tell apart, the weighted parts of the translators' loss
        beside deceiving them), of images of both kinds."""

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        contests, costs = self.translated(*self.sides(batch.rows))
        reported = self.learn_to_tell(contests, batch, sync)
        discriminator = self.networks["discriminator"].requires_grad_(False)
        with self.autocast:
            logits = [each.discriminate(each.fake).float() for each in contests]
        costs["adversarial"] = total([self.generator_loss(each) for each in logits])
        loss = total([*costs.values()])
        self.step("translator", loss, batch, sync)
        discriminator.requires_grad_(True)
        self.finish(batch)
        return reported | {"loss": loss, **{f"loss_{name}": cost for name, cost in costs.items()}}

    def learn_to_tell(
        self, contests: Sequence[Contest], batch: Batch, sync: Sync
    ) -> dict[str, Tensor]:
        """The discriminators' step."""
        pairs = []
        for discriminate, real, fake in contests:
            with self.autocast:  # in one pass, and so by the same weights
                logits = discriminate(torch.cat([real, fake.detach()])).float()
            pairs.append(logits.chunk(2))
        loss = total([self.discriminator_loss(real, fake) for real, fake in pairs])
        self.step("discriminator", loss, batch, sync)
        real, fake = (torch.stack([*each]).mean() for each in zip(*pairs, strict=True))
        return {"loss_d": loss, "logit_real": real, "logit_fake": fake}


class PairedTranslation(Translation):
    """From pairs, against a discriminator that sees both of a pair (pix2pix, Isola et al. 2017).

    translator: images -> images
    discriminator: both of a pair [N, 2 C, H, W] -> logits
    absolute: weight of the mean absolute difference from the second of a pair (eq. 4)
    """

    def __init__(
        self, translator: Part, discriminator: Part, sides: Sides, kind: Kind, absolute: float,
        train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(translator, discriminator, sides, kind, train, device)
        self.translate = self.compiled(translator.network)
        self.discriminate = self.compiled(discriminator.network)
        self.absolute = absolute

    def translated(self, first: Tensor, second: Tensor) -> tuple[list[Contest], dict[str, Tensor]]:
        with self.autocast:
            made = self.translate(first).float()
        real, fake = (torch.cat([first, each], dim=1) for each in (second, made))
        costs = {"absolute": self.absolute * F.l1_loss(made, second)}
        return [Contest(self.discriminate, real, fake)], costs


class CycleTranslation(Translation):
    """Without pairs, both ways at once: each undoes the other (CycleGAN, Zhu et al. 2017).

    translator, discriminator: their `forth` is from the first kind to the second, and tells images
        of the second kind from those; `back` likewise the other way
    cycle: weight of the mean absolute difference of an image that has gone both ways (eq. 2)
    identity: weight of that of an image translated into the kind that it is of (section 5.2)
    """

    def __init__(
        self, translator: Part, discriminator: Part, sides: Sides, kind: Kind, cycle: float,
        identity: float, train: Train, device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__(translator, discriminator, sides, kind, train, device)
        self.forth, self.back = map(self.compiled, both(translator.network))
        self.tell_second, self.tell_first = map(self.compiled, both(discriminator.network))
        self.cycle, self.identity = cycle, identity

    def translated(self, first: Tensor, second: Tensor) -> tuple[list[Contest], dict[str, Tensor]]:
        with self.autocast:
            there, back = self.forth(first).float(), self.back(second).float()
            returned = self.back(there).float(), self.forth(back).float()
        costs = {"cycle": self.cycle * differences(returned, (first, second))}
        if self.identity:
            with self.autocast:
                same = self.back(first).float(), self.forth(second).float()
            costs["identity"] = self.identity * differences(same, (first, second))
        told = (self.tell_second, second, there), (self.tell_first, first, back)
        return [Contest(*each) for each in told], costs


def both(networks: nn.Module) -> tuple[nn.Module, nn.Module]:
    """The networks of the way forth and of the way back."""
    forth, back = networks.get_submodule("forth"), networks.get_submodule("back")
    return forth, back


def differences(made: Sequence[Tensor], truth: Sequence[Tensor]) -> Tensor:
    """The sum of mean absolute differences, a scalar."""
    return total([F.l1_loss(*each) for each in zip(made, truth, strict=True)])


def total(parts: Sequence[Tensor]) -> Tensor:
    return torch.stack([*parts]).sum()
