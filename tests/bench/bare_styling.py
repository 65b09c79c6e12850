"""Stylists' training loop written by hand, as those of bare_loops."""

import copy
from collections.abc import Iterator
from typing import Any

import torch
import torch.nn.functional as F
from bare_loops import Columns, Loop, Networks, batches, descend, floats

from genimg.moments import exchange, exchanged, moments, style_distance
from genimg.training.method import Method
from genimg.training.stylisation import Stylisation


def stylising(
    recipe: Any, networks: Networks, data: Columns, device: torch.device, bfloat16: bool
) -> Iterator[None]:
    stylist: Any = networks["stylist"]
    train, loss, depth = recipe.train, recipe.loss, recipe.model.depth
    average = copy.deepcopy(stylist).requires_grad_(False)
    adam = torch.optim.Adam(stylist.parameters(), train.lr, (0.9, 0.99), fused=True)
    for step, indices in enumerate(batches(data["image"], train.batch_size)):
        content, style = recipe.sides({"image": floats(data["image"][indices], device)})
        with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
            with torch.no_grad():
                known, wanted = stylist.encoder(content, depth), stylist.encoder(style)
                pairs = zip(
                    stylist.levels(content, known), stylist.levels(style, wanted), strict=True
                )
                target = [exchanged(a, exchange(moments(a), moments(b))) for a, b in pairs]
            seen = stylist.encoder(stylist.decoder(target).float())
        apart = F.mse_loss(seen[depth - 1].float(), target[-1])
        cost = loss.content * apart + loss.style * style_distance(seen, wanted).mean()
        descend(train, step, cost, stylist, average, adam)
        yield


LOOPS: dict[type[Method], Loop] = {Stylisation: stylising}
