"""Translators' training loops written by hand, as those of bare_loops."""

import copy
from collections.abc import Callable, Iterator
from typing import Any

import torch
import torch.nn.functional as F
from bare_loops import Columns, Loop, Networks, batches, floats, follow
from torch import Tensor

from genimg.training.game import LOSSES
from genimg.training.method import Method
from genimg.training.translation import CycleTranslation, PairedTranslation

Contests = list[tuple[Any, Tensor, Tensor]]  # a discriminator, real and translated images


def against(
    recipe: Any,
    networks: Networks,
    data: Columns,
    device: torch.device,
    bfloat16: bool,
    translated: Callable[[Any, Any, Tensor], tuple[Contests, Tensor]],
) -> Iterator[None]:
    """translated: of recipe, networks and images what is told apart, and the loss beside that"""
    translator, discriminator = networks["translator"], networks["discriminator"]
    train = recipe.train
    average = copy.deepcopy(translator).requires_grad_(False)
    adam_t, adam_d = (
        torch.optim.Adam(each.parameters(), train.lr, (0.5, 0.999), fused=True)
        for each in (translator, discriminator)
    )
    of_telling, of_deceiving = LOSSES[recipe.loss.kind]
    for indices in batches(data["image"], train.batch_size):
        images = floats(data["image"][indices], device)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            contests, loss = translated(recipe, networks, images)
            cost: Any = 0
            for network, real, fake in contests:
                both = network(torch.cat([real, fake.detach()])).float()
                cost = cost + of_telling(*both.chunk(2))
        adam_d.zero_grad()
        cost.backward()
        adam_d.step()
        discriminator.requires_grad_(False)
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            for network, _, fake in contests:
                loss = loss + of_deceiving(network(fake).float())
        adam_t.zero_grad()
        loss.backward()
        adam_t.step()
        discriminator.requires_grad_(True)
        follow(average, translator, 0.5 ** (train.batch_size / train.ema_half_life))
        yield


def paired(recipe: Any, networks: Any, images: Tensor) -> tuple[Contests, Tensor]:
    given, wanted = recipe.sides({"image": images})
    made = networks["translator"](given).float()
    real, fake = torch.cat([given, wanted], dim=1), torch.cat([given, made], dim=1)
    contests = [(networks["discriminator"], real, fake)]
    return contests, recipe.loss.absolute * F.l1_loss(made, wanted)


def cycles(recipe: Any, networks: Any, images: Tensor) -> tuple[Contests, Tensor]:
    first, second = recipe.apart({"image": images})
    forth, back = networks["translator"]["forth"], networks["translator"]["back"]
    there, here = forth(first).float(), back(second).float()
    loss = F.l1_loss(back(there).float(), first) + F.l1_loss(forth(here).float(), second)
    tell = networks["discriminator"]
    contests = [(tell["forth"], second, there), (tell["back"], first, here)]
    return contests, recipe.loss.cycle * loss


def loop_of(translated: Callable[[Any, Any, Tensor], tuple[Contests, Tensor]]) -> Loop:
    return lambda *given: against(*given, translated)


LOOPS: dict[type[Method], Loop] = {
    CycleTranslation: loop_of(cycles),
    PairedTranslation: loop_of(paired),
}
