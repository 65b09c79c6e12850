"""From images to latents: a search by gradients, where a model has no encoder."""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable
from typing import cast

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.optim.adam import adam

from genimg.contracts import Ability, Rows
from genimg.drawn import PLAIN, Manner
from genimg.inference import latents
from genimg.metrics.fidelity import PEAK, squared_error
from genimg.passes import filled
from genimg.pixels import to_bytes_range
from genimg.plans import Fitted
from genimg.results import Latents

STARTS, ITERATIONS = 8, 200
AT_A_TIME = 10  # iterations of a pass, behind which others have their turn
RATE = 0.1  # of Adam; falls to 0 along a cosine
LEVELS = 3  # of the pyramid on which images are compared: a start may be off by some pixels
BEYOND = 2.0  # by which latents may be longer than the root of their number: few seeds' are


def search(
    draw: Callable[[Tensor], Tensor],
    images: Tensor,
    start: Tensor,
    iterations: int,
    moments: Tensor | None = None,
    begun: int = 0,
    most: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Latents float32 [N, D] whose images draw(latents) come near to images [N, C, H, W], and the
    moments float32 [N, 2, D] with which a search goes on.

    From `start`, each row by itself, by Adam (Kingma & Ba 2015) on the mean square differences of
    the levels of a pyramid (projection, as of Abdal et al. 2019, Image2StyleGAN). They stay within
    the ball in which latents of seeds are.

    moments, begun: of a search of which so many of its iterations are done
    most: iterations that are done now, at most; None: all that are left
    """
    radius = math.sqrt(start.shape[1]) + BEYOND
    stop = iterations if most is None else min(begun + most, iterations)
    if moments is None:
        moments = start.new_zeros(len(start), 2, start.shape[1])
    first, second = (each.clone() for each in moments.unbind(1))
    with torch.enable_grad():
        found = start.clone().requires_grad_()
        steps = [torch.tensor(float(begun))]
        for iteration in range(begun, stop):
            (gradient,) = torch.autograd.grad(apart(draw(found), images), found)
            with torch.no_grad():
                # not by torch.optim.Adam, whose making imports the compiler, which takes a second
                adam(
                    [found], [gradient], [first], [second], [], steps,
                    lr=RATE * 0.5 * (1 + math.cos(math.pi * iteration / iterations)),
                    beta1=0.9, beta2=0.999, eps=1e-8, weight_decay=0.0,
                    amsgrad=False, maximize=False,
                )  # fmt: skip
                found *= (radius / found.norm(dim=1, keepdim=True)).clamp_max(1)
    return found.detach(), torch.stack([first, second], dim=1)


def in_blocks(compute: Callable[[Rows], Rows], rows: Rows, size: int) -> Rows:
    """A pass with gradients in blocks of a size, the last one filled up.

    So a row has the same bits in passes of any size, for which those of gradients are not tried.
    """
    columns = cast("dict[str, Tensor]", rows)
    count, parts = len(rows["latent"]), []
    for start in range(0, count, size):
        few = {name: filled(each[start : start + size], size) for name, each in columns.items()}
        parts.append(cast("dict[str, Tensor]", compute(cast(Rows, few))))
    return cast(
        Rows, {name: torch.cat([part[name] for part in parts])[:count] for name in parts[0]}
    )


def apart(made: Tensor, images: Tensor) -> Tensor:
    """The sum over rows and levels of mean square differences, images [N, C, H, W] twice."""
    total = made.new_zeros(())
    for level in range(LEVELS):
        a, b = (F.avg_pool2d(each, 2**level) if level else each for each in (made, images))
        total = total + (a - b).square().flatten(1).mean(dim=1).sum()
    return total


class Inverted(Fitted):
    """An image, brought to the model's size, and the latents from which it comes nearest to it.

    starts: seeds with whose latents a search begins, 0 and on; the best of what is found counts

    What takes long goes on from pass to pass, in laps of all starts: a search by some iterations,
    a flow back by a step. Between them others have their turn, and one that nobody waits for any
    more ends.
    """

    def __init__(
        self,
        ability: Ability,
        image: np.ndarray,
        starts: int | None = None,
        iterations: int | None = None,
        manner: Manner = PLAIN,
    ) -> None:
        super().__init__(ability, image, self._best)
        self._iterations, self._manner = iterations or ITERATIONS, manner
        self._row = self._fitted(image)
        self._searches, self._goes_on = (name in ability.takes for name in ("moments", "begun"))
        self._starts, self._step, in_all = 1, 1, 1
        if self._searches:
            self._starts, self._step, in_all = starts or STARTS, AT_A_TIME, self._iterations
            self._found = latents(torch.arange(self._starts), ability.latent)
            self._moments = torch.zeros(self._starts, 2, ability.latent)
        elif self._goes_on:
            in_all = manner.steps or ability.steps
            self._found = self._row.flatten()[None].clone()
        self.count = -(-in_all // self._step) * self._starts
        self.key = id(self) if ability.alone else (manner.steps, manner.guidance)

    def lap(self, row: int) -> tuple[Hashable, int]:
        number = row // self._starts
        return (self.key, number), (number + 1) * self._starts

    def rows(self, start: int, stop: int) -> Rows:
        ability, count = self._ability, stop - start
        number, first = divmod(start, self._starts)
        rows: Rows = {
            "image": self._row.expand(count, -1, -1, -1),
            **self._manner.columns(ability, count),
        }
        if self._goes_on:
            rows["latent"] = self._found[first : first + count]
            rows["begun"] = torch.full((count,), number * self._step)
        if self._searches:
            rows["moments"] = self._moments[first : first + count]
            rows["iterations"] = torch.full((count,), self._iterations)
        if ability.classes:
            rows["classes"] = self._manner.classes(ability, count)
        return rows

    def put(self, start: int, made: Rows) -> None:
        first = start % self._starts
        few = slice(first, first + len(made["latent"]))
        if self._goes_on:
            self._found[few] = made["latent"].cpu()
        if self._searches:
            self._moments[few] = made["moments"].cpu()
        if start >= self.count - self._starts:  # of the last lap
            super().put(first, made)

    def _best(self, made: Rows) -> Latents:
        bytes_, wanted = to_bytes_range(made["image"]), to_bytes_range(self._row)
        errors = squared_error(bytes_, wanted.expand_as(bytes_))
        best = int(errors.argmin())
        found = made["latent"][best : best + 1].numpy()
        varies = wanted.double().flatten(1).var(dim=1, correction=0).mean()
        return Latents(found, (decibels(errors[best]),), (decibels(varies),))


def decibels(error: Tensor) -> float:
    """PSNR of a mean square error; finite, as JSON's numbers are."""
    return round(10 * math.log10(PEAK**2 / max(float(error), 1e-4)), 2)
