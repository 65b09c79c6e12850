"""Stylisation: a decoder learns to draw features that took on the moments of another image's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from genimg.contracts import Batch, Rows, Sync
from genimg.moments import exchange, exchanged, moments, style_distance
from genimg.schedule import Train
from genimg.training.method import Method, Part

Sides = Callable[[Rows], tuple[Tensor, Tensor]]


class Stylisation(Method):
    """Minimises how far an image that was drawn is from the features that it was drawn from, and
    in each layer from the moments of the style's (AdaIN, eq. 11 to 13, Huang & Belongie 2017).

    stylist: its `encoder` gives maps of images [N, C, H, W], in layers, all or so many, and does
        not learn; its `decoder` makes images of `levels` of these, of which the last is a layer
    depth: which, counted from 1
    sides: rows -> (contents, styles), [N, C, H, W] in [-1, 1] each
    content, style: weights
    """

    def __init__(
        self, stylist: Part, depth: int, sides: Sides, content: float, style: float, train: Train,
        device: torch.device,
    ) -> None:  # fmt: skip
        super().__init__({"stylist": stylist}, train, device)
        network: Any = stylist.network
        # not compiled, as in evaluation mode layers choose kernels that the compiler knows not
        self.encode, self.levels = network.encoder, network.levels
        self.decode = self.compiled(network.decoder)
        self.depth = depth
        self.sides = sides
        self.content, self.style = content, style

    def learn(self, batch: Batch, sync: Sync) -> dict[str, Tensor]:
        content, style = self.sides(batch.rows)
        with torch.no_grad():
            with self.autocast:
                known, wanted = self.encode(content, self.depth), self.encode(style)
            pairs = zip(self.levels(content, known), self.levels(style, wanted), strict=True)
            target = [exchanged(a, exchange(moments(a), moments(b))) for a, b in pairs]  # eq. 8
        with self.autocast:
            seen = self.encode(self.decode(target).float())
        parts = {
            "content": self.content * F.mse_loss(seen[self.depth - 1].float(), target[-1]),
            "style": self.style * style_distance(seen, wanted).mean(),
        }
        loss = torch.stack([*parts.values()]).sum()
        self.step("stylist", loss, batch, sync)
        self.finish(batch)
        return {"loss": loss} | {f"loss_{name}": part for name, part in parts.items()}
